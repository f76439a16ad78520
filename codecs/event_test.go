package codecs

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

func decodeWhole(t *testing.T, text string) (Value, error) {
	t.Helper()
	var out [1]Value
	err := NewEventDecoder([]Path{{}}).Decode([]byte(text), out[:])
	return out[0], err
}

// nestedEvent is an event n levels deep.
func nestedEvent(n int) string {
	return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}`
}

// manyKeys is an event of a hundred keys and one more.
func manyKeys(extra string) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range 100 {
		b.WriteString(`"k` + strconv.Itoa(i) + `":{"x":1},`)
	}
	return b.String() + extra + "}"
}

var refusals = []struct{ text, want string }{
	{`{}`, ""},
	{" \r\n\t{ } ", ""},
	{nestedEvent(128), ""},
	{manyKeys(`"k100":1`), ""},
	{`{"a":{"x":1},"b":{"x":1},"x":1}`, ""},
	{`{"a":"\u0000"}`, ""},
	{`{"a":"\ud83d\ude00"}`, ""},
	{`{"a":1` + strings.Repeat("0", 400) + `e-400}`, ""},
	{`{"a":0.` + strings.Repeat("0", 400) + `}`, ""},

	{``, ReasonJSON},
	{`null`, ReasonJSON},
	{`[{}]`, ReasonJSON},
	{`"a"`, ReasonJSON},
	{"\xef\xbb\xbf{}", ReasonJSON},
	{`{} {}`, ReasonJSON},
	{"{}\x00", ReasonJSON},
	{`{`, ReasonJSON},
	{`{"a"`, ReasonJSON},
	{`{"a":`, ReasonJSON},
	{`{"a":1,}`, ReasonJSON},
	{`{,}`, ReasonJSON},
	{`{a:1}`, ReasonJSON},
	{`{'a':1}`, ReasonJSON},
	{`{"a":[1,]}`, ReasonJSON},
	{`{"a":NaN}`, ReasonJSON},
	{`{"a":-Infinity}`, ReasonJSON},
	{`{"a":+1}`, ReasonJSON},
	{`{"a":01}`, ReasonJSON},
	{`{"a":.5}`, ReasonJSON},
	{`{"a":5.}`, ReasonJSON},
	{`{"a":1e}`, ReasonJSON},
	{`{"a":True}`, ReasonJSON},
	{`{"a":nul`, ReasonJSON},
	{`{"a":"\x"}`, ReasonJSON},
	{`{"a":"\u12"}`, ReasonJSON},
	{"{\"a\":\"\n\"}", ReasonJSON},
	{`{"a":"`, ReasonJSON},
	{`{"a":"\`, ReasonJSON},
	{`{"a":1}//`, ReasonJSON},

	{`{"a":1,"a":1}`, ReasonDuplicateKey},
	{`{"a":1,"\u0061":2}`, ReasonDuplicateKey},
	{`{"\ud83d\ude00":1,"😀":2}`, ReasonDuplicateKey},
	{`{"\/":1,"/":2}`, ReasonDuplicateKey},
	{`{"":1,"":2}`, ReasonDuplicateKey},
	{`{"x":{"a":1,"b":2,"a":3}}`, ReasonDuplicateKey},
	{`{"x":[{"y":[{"a":1,"\u0061":3}]}]}`, ReasonDuplicateKey},
	{manyKeys(`"k0":1`), ReasonDuplicateKey},
	{manyKeys(`"k99":1`), ReasonDuplicateKey},
	{manyKeys(`"\u006b24":1`), ReasonDuplicateKey},

	{nestedEvent(129), ReasonDepth},
	{strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), ReasonDepth},
	{strings.Repeat(`{"a":`, 1_000_000), ReasonDepth},

	{`{"a":` + strings.Repeat("1", 400) + `}`, ReasonNumber},
	{`{"a":1e34}`, ReasonNumber},
	{`{"a":1e-41}`, ReasonNumber},
	{`{"a":1e999999999}`, ReasonNumber},
	{`{"a":[-1E-99999999999999999999]}`, ReasonNumber},

	{"{\"a\":\"\xff\"}", ReasonUTF8},
	{"{\"\xc0\x80\":1}", ReasonUTF8},
	{"{\"a\":\"\xed\xa0\x80\"}", ReasonUTF8},
	{"{}\xff", ReasonUTF8},
	{`{"a":"\ud800"}`, ReasonUTF8},
	{`{"a":"\udc00"}`, ReasonUTF8},
	{`{"a":"\ud800\ud800"}`, ReasonUTF8},
	{`{"a":"\ud800x"}`, ReasonUTF8},
	{`{"\udfff":1}`, ReasonUTF8},
}

func TestEventDecoder_ReasonsOfRefusal(t *testing.T) {
	for _, c := range refusals {
		for _, paths := range [][]Path{{}, {{}}, {{"a"}}, {{"x", "a"}, {"x"}}} {
			err := NewEventDecoder(paths).Decode([]byte(c.text), make([]Value, len(paths)))
			got := ""
			var refusal *EventError
			if errors.As(err, &refusal) {
				got = refusal.Reason
			}
			if got != c.want || err == nil && c.want != "" {
				t.Errorf("%.80q for %q: got %v, want reason %q", c.text, paths, err, c.want)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("%.80q: the error is %d bytes long", c.text, len(err.Error()))
			}
		}
	}
}

// Control: the library that the tests compare with lets pass what an event may not have.
func TestEventDecoder_RefusesWhatEncodingJSONLetsPass(t *testing.T) {
	for _, text := range []string{`{"a":1,"\u0061":2}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":1e999999999}`} {
		if !json.Valid([]byte(text)) {
			t.Errorf("%q is not valid for encoding/json", text)
		}
		if _, err := decodeWhole(t, text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestEventDecoder_LargeValues(t *testing.T) {
	long := strings.Repeat("é", 1<<19)
	v, err := decodeWhole(t, `{"plain":"`+long+`","escaped":"\n`+long+`"}`)
	if err != nil || v.Members[0].Value.Str != long || v.Members[1].Value.Str != "\n"+long {
		t.Fatalf("strings of 1 MB: %v, %d and %d bytes", err, len(v.Members[0].Value.Str), len(v.Members[1].Value.Str))
	}
	var b bytes.Buffer
	for i := range 30_000 {
		b.WriteString(`,"key` + strconv.Itoa(i) + `":` + strconv.Itoa(i))
	}
	text := "{" + b.String()[1:] + "}"
	v, err = decodeWhole(t, text)
	if err != nil || len(v.Members) != 30_000 || v.Members[29_999].Value.Num.String() != "29999" {
		t.Fatalf("30,000 members: %v, %d members", err, len(v.Members))
	}
	if _, err := decodeWhole(t, text[:len(text)-1]+`,"key7":1}`); err == nil {
		t.Error("a duplicate among 30,000 keys was accepted")
	}
}

func TestEventDecoder_ComparesOnlyFewKeysWithEachOther(t *testing.T) {
	d, set := NewEventDecoder(nil), keySet{}
	for i := range 10_000 {
		if key := "key" + strconv.Itoa(i); !d.note(&set, key) || d.note(&set, key) {
			t.Fatalf("key %d is new once", i)
		}
		if len(d.keys) > fewKeys {
			t.Fatalf("%d keys are compared one by one, want at most %d", len(d.keys), fewKeys)
		}
	}
}

func TestEventDecoder_WantedStringsAliasTheRecordOrAreFresh(t *testing.T) {
	data := []byte(`{"a":"plain","b":"esc\u0061ped","c":{"d":"deep"},"e":["x\ny"],"k\u0031":1}`)
	within := func(s string) bool {
		p := uintptr(unsafe.Pointer(unsafe.StringData(s)))
		from := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
		return p >= from && p < from+uintptr(len(data))
	}
	d := NewEventDecoder([]Path{{"a"}, {"b"}, {"c"}, {"c", "d"}, {"e"}, {}})
	out := make([]Value, 6)
	if err := d.Decode(data, out); err != nil {
		t.Fatal(err)
	}
	if !within(out[0].Str) || !within(out[3].Str) || !within(out[2].Members[0].Value.Str) {
		t.Error("a string without escapes was copied")
	}
	if within(out[1].Str) || within(out[4].Items[0].Str) {
		t.Error("a string with escapes aliases the record")
	}
	escaped, key := out[1].Str, out[5].Members[4].Name
	other := []byte(`{"b":"\t\t\t\t\t\t\t\t\t\t","zz\u0061":2}`)
	if err := d.Decode(other, make([]Value, 6)); err != nil {
		t.Fatal(err)
	}
	if escaped != "escaped" || key != "k1" || out[4].Items[0].Str != "x\ny" {
		t.Errorf("the next event changed earlier strings: %q, %q, %q", escaped, key, out[4].Items[0].Str)
	}
}

func TestEventDecoder_AnEventLeavesNothingForTheNext(t *testing.T) {
	d := NewEventDecoder([]Path{{"a"}, {"a", "b"}, {"c"}})
	out := make([]Value, 3)
	for _, c := range []struct{ text, a, b, c string }{
		{`{"a":{"b":[1,"x"]},"c":"y"}`, `{"b":["1","x"]}`, `["1","x"]`, `"y"`},
		{`{"a":{"b":{"z":null}}}`, `{"b":{"z":null}}`, `{"z":null}`, `null`},
		{`{"c":true,"a":[]}`, `[]`, `null`, `true`},
		{`{"a":"s","c":{}}`, `"s"`, `null`, `{}`},
		{`{"b":1}`, `null`, `null`, `null`},
	} {
		if err := d.Decode([]byte(c.text), out); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		for i, want := range []string{c.a, c.b, c.c} {
			if got := string(out[i].AppendJSON(nil)); got != want {
				t.Errorf("%s: place %d: got %s, want %s", c.text, i, got, want)
			}
		}
		if err := d.Decode([]byte(`{"x":{"y":{"a":1,"a":2}}}`), out); err == nil {
			t.Error("a duplicate was accepted")
		}
	}
}

func FuzzEventDecoder(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":{"b":{"c":[1,2.50,-0e7]},"a":"x"},"é":"\u00e9"}`, `{"a":1,"\u0061":2}`, `{"a":"\ud83d\ude00","b":"\ud800"}`,
		"{\"a\":\"\xff\"}", `{"a":1e999999999}`, `{"a":[[[[{}]]]]} `, `{"a":"\`, `{"b":{"a":{"a":null}},"":true}`, `[`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := checkEvent(data); err != nil {
			t.Errorf("%q: %v", data, err)
		}
	})
}
