package codecs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var ownHeaders = []Header{{"trace", []byte{1, 0xff}}, {"empty", nil}, {"trace", []byte("again")}}

func TestDeadLetter_ComesBackAsItArrived(t *testing.T) {
	for _, want := range []DeadLetter{
		{Reason: "json", Detail: "not JSON", Topic: "in", Partition: 3, Offset: 1 << 40, TimestampMs: -1, Key: []byte("k"), Value: []byte("{"), Headers: ownHeaders},
		{Reason: "tombstone", Topic: "in"},
		{Reason: "id", Topic: "in", Key: []byte{}, Value: []byte{0xff}},
	} {
		got, err := DecodeDeadLetter(want.Encode(1 << 20))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("comes back changed (-want +got):\n%s", diff)
		}
	}
}

func TestDeadLetter_OfADeadLetterKeepsTheInnerHeaders(t *testing.T) {
	inner := DeadLetter{Reason: "json", Detail: "inner", Topic: "in", Partition: 1, Offset: 5, Value: bytes.Repeat([]byte("x"), 3<<20), Headers: ownHeaders}
	key, value, headers := inner.Encode(1 << 20)
	outer := DeadLetter{Reason: "number", Detail: "outer", Topic: "in-dead-letters", Partition: 2, Offset: 6, Key: key, Value: value, Headers: headers}
	got, err := DecodeDeadLetter(outer.Encode(1 << 20))
	if err != nil || got.Cut {
		t.Fatalf("the outer one: %v, cut %v", err, got.Cut)
	}
	if diff := cmp.Diff(&outer, got); diff != "" {
		t.Errorf("the outer one changed (-want +got):\n%s", diff)
	}
	again, err := DecodeDeadLetter(got.Key, got.Value, got.Headers)
	if err != nil || again.Reason != "json" || again.Offset != 5 || !again.Cut || again.CutSize != 3<<20 {
		t.Errorf("the inner one: %+v (%v)", again, err)
	}
}

func TestDeadLetter_OfATooLargeRecordIsCutAndMarked(t *testing.T) {
	const limit = 8 << 20
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	sum := sha256.Sum256(value)
	large := DeadLetter{Reason: "json", Topic: "in", Key: []byte("k"), Value: value, Headers: ownHeaders}
	key, kept, headers := large.Encode(limit)
	if n := RecordBytes(key, kept, headers); n > limit {
		t.Errorf("%d bytes, want at most %d", n, limit)
	}
	got, err := DecodeDeadLetter(key, kept, headers)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Cut || got.CutSize != 16<<20 || got.CutSHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("marked cut %v, size %d, SHA-256 %s; want 16 MiB and %x", got.Cut, got.CutSize, got.CutSHA256, sum)
	}
	if !bytes.Equal(got.Value, value[:64<<10]) || string(got.Key) != "k" {
		t.Errorf("%d bytes and key %q are kept, want 64 KiB and the key", len(got.Value), got.Key)
	}
	if diff := cmp.Diff(ownHeaders, got.Headers); diff != "" {
		t.Errorf("headers changed (-want +got):\n%s", diff)
	}

	// Control: what just fits is whole, one byte more is not.
	small := DeadLetter{Reason: "json", Topic: "in", Value: value[:1<<20]}
	k, v, h := small.Encode(1 << 30)
	fits := RecordBytes(k, v, h)
	for _, c := range []struct {
		max int
		cut bool
	}{{fits, false}, {fits - 1, true}} {
		got, err := DecodeDeadLetter(small.Encode(c.max))
		if err != nil || got.Cut != c.cut {
			t.Errorf("%d bytes within %d: cut %v (%v), want %v", fits, c.max, got.Cut, err, c.cut)
		}
	}
}

func TestRekeyed_ComesBackAndTellsANullKeyFromAnEmptyOne(t *testing.T) {
	for _, want := range []Rekeyed{
		{ID: "a", Topic: "in", Partition: 7, Offset: 9, TimestampMs: 1, Key: []byte("other"), Value: []byte("{}"), Headers: ownHeaders},
		{ID: "é", Topic: "in", Key: nil, Value: []byte("{}")},
		{ID: "é", Topic: "in", Key: []byte{}, Value: []byte("{}")},
	} {
		key, value, headers := want.Encode()
		for i := range headers { // as Kafka gives an empty header back
			if len(headers[i].Value) == 0 {
				headers[i].Value = nil
			}
		}
		got, err := DecodeRekeyed(key, value, headers)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("comes back changed (-want +got):\n%s", diff)
		}
	}
}

func TestOrigin_UnknownFormatsAndBrokenHeaders(t *testing.T) {
	good := func(change string, to string) []Header {
		r := Rekeyed{ID: "a", Topic: "in"}
		_, _, headers := r.Encode()
		for i := range headers {
			if headers[i].Key == change {
				headers[i].Value = []byte(to)
			}
		}
		return headers
	}
	for _, c := range []struct {
		name    string
		headers []Header
		want    error
	}{
		{"whole", good("", ""), nil},
		{"none", nil, ErrMalformed},
		{"others", ownHeaders, ErrMalformed},
		{"format 2", good(headerFormat, "2"), ErrFormat},
		{"format of many bytes", good(headerFormat, string(make([]byte, 1000))), ErrFormat},
		{"partition", good(headerPartition, "4294967296"), ErrMalformed},
		{"offset", good(headerOffset, "x"), ErrMalformed},
		{"timestamp", good(headerTimestamp, ""), ErrMalformed},
		{"cut", good("", "")[:2], ErrMalformed},
	} {
		_, err := DecodeRekeyed([]byte("a"), nil, c.headers)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("re-keyed, %s: got %v, want %v", c.name, err, c.want)
		}
		_, err = DecodeDeadLetter(nil, nil, c.headers)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("dead letter, %s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("json", "detail", "in", int32(1), int64(2), int64(3), []byte("k"), []byte("v"), "tidemark.format", []byte("1"), uint16(100))
	f.Add("", "", "", int32(-1), int64(-1), int64(-1), []byte{}, bytes.Repeat([]byte("v"), 70_000), "tidemark.cut.size", []byte("x"), uint16(1000))
	f.Add("", "", "t", int32(0), int64(0), int64(0), []byte{}, []byte{}, "h", []byte{}, uint16(60000))
	f.Fuzz(func(t *testing.T, reason, detail, topic string, partition int32, offset, ms int64, key, value []byte, name string, header []byte, limit uint16) {
		headers := []Header{{name, header}}
		_, _ = DecodeDeadLetter(key, value, headers)
		_, _ = DecodeRekeyed(key, value, headers)
		d := DeadLetter{Reason: reason, Detail: detail, Topic: topic, Partition: partition, Offset: offset, TimestampMs: ms, Key: key, Value: value, Headers: headers}
		got, err := DecodeDeadLetter(d.Encode(int(limit)))
		if err != nil {
			t.Fatal(err)
		}
		if !got.Cut {
			if diff := cmp.Diff(&d, got); diff != "" {
				t.Errorf("dead letter (-want +got):\n%s", diff)
			}
		} else if got.CutSize != int64(len(value)) || !bytes.HasPrefix(value, got.Value) || got.Reason != reason || got.Offset != offset {
			t.Errorf("cut wrongly: %+v", got)
		}
		r := Rekeyed{ID: "id", Topic: topic, Partition: partition, Offset: offset, TimestampMs: ms, Key: key, Value: value, Headers: headers}
		back, err := DecodeRekeyed(r.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&r, back); diff != "" {
			t.Errorf("re-keyed (-want +got):\n%s", diff)
		}
	})
}
