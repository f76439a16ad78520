package codecs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update writes the golden files anew. They are what earlier versions wrote: a change of one is a change of a
// format, and needs a new format version.
var update = flag.Bool("update", false, "write the golden files anew")

// A golden record is a line for the key, one for the value and one for each header, in hexadecimal.
func goldenText(key, value []byte, headers []Header) string {
	var b strings.Builder
	b.WriteString("key " + hex.EncodeToString(key) + "\nvalue " + hex.EncodeToString(value) + "\n")
	for _, h := range headers {
		b.WriteString("header " + hex.EncodeToString([]byte(h.Key)) + " " + hex.EncodeToString(h.Value) + "\n")
	}
	return b.String()
}

func parseGolden(t *testing.T, text string) (key, value []byte, headers []Header) {
	t.Helper()
	bytesOf := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "key":
			key = bytesOf(rest)
		case "value":
			value = bytesOf(rest)
		case "header":
			name, content, _ := strings.Cut(rest, " ")
			headers = append(headers, Header{string(bytesOf(name)), bytesOf(content)})
		default:
			t.Fatalf("golden line %.40q", line)
		}
	}
	return key, value, headers
}

// golden answers the record in the file, after comparing it with what is written now.
func golden(t *testing.T, name string, key, value []byte, headers []Header) ([]byte, []byte, []Header) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	now := goldenText(key, value, headers)
	if *update {
		if err := os.WriteFile(path, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if now != string(old) {
		t.Errorf("%s: written now\n%.2000s\nwant, as earlier versions wrote,\n%.2000s", name, now, old)
	}
	return parseGolden(t, string(old))
}

func TestGolden_StateOfFormat1(t *testing.T) {
	num := func(text string) Value {
		d, err := ParseStoredDecimal([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return Value{Kind: Number, Num: d}
	}
	want := &State{
		Version: 574, Count: 574, Late: 3, FirstMs: -1500, LastMs: 1_492_698_869_000, Working: []byte{10, 2, 8, 1},
		Totals: []Value{
			num("-12.5"),
			{},
			{Kind: List, Items: []Value{num("0"), {Kind: Bool, Bool: true}, {Kind: String, Str: "é"}, {Kind: Bool}}},
			num("-" + strings.Repeat("123456789", 12) + ".5"),
			{Kind: String},
		},
		Flags: []Flag{
			{Raised: true, Why: Why{TimeMs: 1_491_040_800_000, Topic: "test-events", Partition: 2, Offset: 1042, Rules: "9f2c51"}},
			{},
			{Raised: true, Why: Why{TimeMs: -1, Topic: "other", Partition: 0, Offset: 1 << 40, Rules: "00ff"}},
		},
	}
	_, value, _ := golden(t, "state", nil, want.AppendBinary(nil, testSchema), nil)
	var got State
	if err := got.UnmarshalBinary(value, testSchema); err != nil {
		t.Fatal(err)
	}
	if diff := stateDiff(want, &got); diff != "" {
		t.Errorf("the old bytes read as another state: %s", diff)
	}
	if again := got.AppendBinary(nil, testSchema); !bytes.Equal(again, value) {
		t.Errorf("written again: %x, want %x", again, value)
	}
}

func TestGolden_FlagChangeOfFormat1(t *testing.T) {
	want := &FlagChange{
		ID: "85.245.107.41", Flag: "brute_force", Raised: true, Version: 574,
		Why: Why{TimeMs: 1_491_040_800_001, Topic: "ssh-auth-events", Partition: 2, Offset: 1042, Rules: "9f2c51"},
	}
	key, value := want.Encode()
	key, value, _ = golden(t, "flagchange", key, value, nil)
	got, err := DecodeFlagChange(value)
	if err != nil || *got != *want || string(key) != want.ID {
		t.Fatalf("got %+v (%v), want %+v", got, err, want)
	}
	if _, again := got.Encode(); !bytes.Equal(again, value) {
		t.Errorf("written again: %s, want %s", again, value)
	}
}

func TestGolden_DeadLettersOfFormat1(t *testing.T) {
	whole := DeadLetter{
		Reason: ReasonDuplicateKey, Detail: `key "a" stands twice in one object`, Topic: "in", Partition: 3, Offset: 17, TimestampMs: 1_491_040_800_001,
		Key: []byte("k\xff"), Value: []byte(`{"a":1,"a":2}`), Headers: ownHeaders,
	}
	cut := whole
	cut.Value, cut.Headers = bytes.Repeat([]byte("0123456789abcdef"), 8<<10), nil
	for _, c := range []struct {
		name string
		want DeadLetter
		max  int
	}{{"deadletter", whole, 1 << 20}, {"deadletter-cut", cut, 100 << 10}} {
		key, value, headers := c.want.Encode(c.max)
		kept := len(value)
		if len(value) > 100 { // the file need not hold all of it
			value = value[:100]
		}
		key, value, headers = golden(t, c.name, key, value, headers)
		got, err := DecodeDeadLetter(key, value, headers)
		if err != nil {
			t.Fatal(err)
		}
		want := c.want
		if c.name == "deadletter-cut" {
			sum := sha256.Sum256(c.want.Value)
			want.Cut, want.CutSize, want.CutSHA256, want.Value = true, 128<<10, hex.EncodeToString(sum[:]), c.want.Value[:100]
			if kept != CutBytes {
				t.Errorf("cut to %d bytes, want %d", kept, CutBytes)
			}
		} else if k, v, h := got.Encode(c.max); goldenText(k, v, h) != goldenText(key, value, headers) {
			t.Errorf("%s: written again it differs", c.name)
		}
		if diff := cmp.Diff(&want, got, emptyIsNil); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// emptyIsNil, for the files do not tell an empty header from none.
var emptyIsNil = cmp.Transformer("header", func(h Header) string { return h.Key + "=" + hex.EncodeToString(h.Value) })

func TestGolden_RekeyedOfFormat1(t *testing.T) {
	want := Rekeyed{
		ID: "é-17", Topic: "in", Partition: 3, Offset: 17, TimestampMs: 1_491_040_800_001, Key: []byte("other"), Value: []byte(`{"id":"é-17"}`), Headers: ownHeaders,
	}
	key, value, headers := want.Encode()
	key, value, headers = golden(t, "rekeyed", key, value, headers)
	got, err := DecodeRekeyed(key, value, headers)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got, emptyIsNil); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	k, v, h := got.Encode()
	if goldenText(k, v, h) != goldenText(key, value, headers) {
		t.Error("written again it differs")
	}
}
