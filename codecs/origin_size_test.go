package codecs

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// wireBytes is what the record takes in a batch.
func wireBytes(key, value []byte, headers []Header) int {
	r := kmsg.Record{TimestampDelta64: 1 << 40, OffsetDelta: 1 << 30, Key: key, Value: value}
	for _, h := range headers {
		r.Headers = append(r.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
	}
	r.Length = int32(len(r.AppendTo(nil)))
	return len(r.AppendTo(nil))
}

func TestRecordBytes_BoundsWhatABatchHolds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		headers := make([]Header, rng.IntN(100))
		for i := range headers {
			headers[i] = Header{Key: string(make([]byte, rng.IntN(200))), Value: make([]byte, rng.IntN(200))}
		}
		key, value := make([]byte, rng.IntN(20_000)), make([]byte, rng.IntN(20_000))
		if got, want := RecordBytes(key, value, headers), wireBytes(key, value, headers); got < want {
			t.Fatalf("got %d bytes for %d on the wire", got, want)
		}
	}
}

func TestDeadLetter_NeverTakesMoreThanItMay(t *testing.T) {
	const most = 400_000
	big := bytes.Repeat([]byte("b"), 1_000_000)
	for name, d := range map[string]DeadLetter{
		"value":                  {Value: big},
		"key":                    {Key: big},
		"header":                 {Headers: []Header{{"h", big}}},
		"header name":            {Headers: []Header{{string(big), nil}}},
		"empty headers":          {Headers: make([]Header, most/2)},
		"half in headers":        {Value: big, Key: big, Headers: []Header{{"h", big[:most/2-200]}}},
		"just enough in headers": {Headers: make([]Header, most/12-50)},
	} {
		d.Reason, d.Topic = ReasonJSON, "in"
		key, value, headers := d.Encode(most)
		if got := wireBytes(key, value, headers); got > most {
			t.Errorf("%s: got %d bytes, want at most %d", name, got, most)
		}
		back, err := DecodeDeadLetter(key, value, headers)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if whole := len(back.Headers) == len(d.Headers) && len(back.Key) == len(d.Key) && len(back.Value) == len(d.Value); back.Cut == whole {
			t.Errorf("%s: got cut %v, %d headers, want it marked where something is missing", name, back.Cut, len(back.Headers))
		}
	}
}
