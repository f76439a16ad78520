package processor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kgo"
)

// largeCase is a record of many bytes: counted, refused whole, or refused cut.
type largeCase struct {
	name, reason string
	id           string // counted under it
	cut          bool
	headersGone  bool
	squeeze      bool // compressed by its producer; otherwise as large on the wire as it is
	record       *kgo.Record
}

// away is a partition on which the ID does not live.
func away(id string, partitions int32) int32 {
	return (eos.Place([]byte(id), partitions) + 1) % partitions
}

func home(id string, partitions int32) int32 { return eos.Place([]byte(id), partitions) }

func largeCases(partitions int32) []largeCase {
	text := bytes.Repeat([]byte("0123456789abcdef"), 625_000)
	wide := func(id string, n int) []byte { return event(id, "1", `,"x":"`+string(text[:n])+`"`) }
	h := func(n int) []kgo.RecordHeader { return []kgo.RecordHeader{{Key: "h", Value: text[:n]}} }
	zeros := func(n int) []byte { return bytes.Repeat([]byte("0"), n) }
	return []largeCase{
		{name: "10 MB, good, at home", id: "home", record: &kgo.Record{Partition: home("home", partitions), Value: wide("home", 9_900_000)}},
		{name: "10 MB, good, away", reason: "too_large", cut: true, record: &kgo.Record{Partition: away("away", partitions), Value: wide("away", 9_900_000)}},
		{name: "8 MB, good, away", id: "loop", record: &kgo.Record{Partition: away("loop", partitions), Value: wide("loop", 8_000_000)}},
		{name: "10 MB, broken", reason: "json", cut: true, record: &kgo.Record{Key: []byte("k"), Value: text[:9_900_000]}},
		{name: "8 MB, broken", reason: "json", record: &kgo.Record{Key: []byte("k"), Value: text[:8_000_000], Headers: h(10)}},
		{name: "a key of 9 MB, broken", reason: "json", cut: true, record: &kgo.Record{Key: text[:9_000_000], Value: []byte("{")}},
		{name: "a header of 9 MB, broken", reason: "json", cut: true, headersGone: true, record: &kgo.Record{Value: []byte("{"), Headers: h(9_000_000)}},
		{name: "a header of 3 MB and a value of 6 MB, broken", reason: "json", cut: true, record: &kgo.Record{Value: text[:6_000_000], Headers: h(3_000_000)}},
		{name: "a header of 9 MB, good, at home", id: "headed", record: &kgo.Record{Partition: home("headed", partitions), Value: event("headed", "1", ""), Headers: h(9_000_000)}},

		// Small on the wire only; a topic's limit holds for what is compressed.
		{name: "12 MB of zeros", squeeze: true, reason: "json", cut: true, record: &kgo.Record{Value: zeros(12_000_000)}},
		{name: "25 MB, good, at home", squeeze: true, id: "bomb", record: &kgo.Record{Partition: home("bomb", partitions), Value: event("bomb", "1", `,"x":"`+string(zeros(25_000_000))+`"`)}},
		{
			name: "value and headers beyond what the loop carries", squeeze: true, reason: "too_large", cut: true, headersGone: true,
			record: &kgo.Record{Partition: away("both", partitions), Value: event("both", "1", `,"x":"`+string(zeros(8_000_000))+`"`), Headers: []kgo.RecordHeader{{Key: "h", Value: zeros(9_000_000)}}},
		},
		{
			name: "value and key beyond what the loop carries", squeeze: true, reason: "too_large", cut: true,
			record: &kgo.Record{Partition: away("key", partitions), Key: zeros(9_000_000), Value: event("key", "1", `,"x":"`+string(zeros(8_000_000))+`"`)},
		},
	}
}

func TestProcessor_RecordsThatFitNowhereAreRefusedCut(t *testing.T) {
	const partitions = 4
	j := mustJob(t, kafkatest.Shared(t), badJob, partitions, "max.message.bytes=10485760")
	options := func(codec kgo.CompressionCodec) []kgo.Opt {
		return []kgo.Opt{
			kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(60_000_000), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		}
	}
	plain, squeezing := j.mustClient(options(kgo.NoCompression())...), j.mustClient(options(kgo.Lz4Compression())...)
	cases := largeCases(partitions)
	for i, c := range cases {
		id := fmt.Sprint("n", i)
		j.mustWrite(plain, &kgo.Record{Partition: home(id, partitions), Value: event(id, "1", "")})
		if c.squeeze {
			j.mustWrite(squeezing, c.record)
		} else {
			j.mustWrite(plain, c.record)
		}
	}
	j.mustRun()

	states, dead := j.table(), j.deadLetters()
	for i, c := range cases {
		if st := states[fmt.Sprint("n", i)]; st == nil || st.Count != 1 {
			t.Errorf("the event before %s: got %+v, want it counted once", c.name, st)
		}
		d := dead[place(c.record.Topic, c.record.Partition, c.record.Offset)]
		if c.reason != "" {
			checkLarge(t, c, d)
		} else if st := states[c.id]; st == nil || st.Count != 1 || d != nil {
			t.Errorf("%s: got %+v, refused %v, want it counted once", c.name, st, d != nil)
		}
	}
}

func checkLarge(t *testing.T, c largeCase, d *codecs.DeadLetter) {
	t.Helper()
	r := c.record
	if d == nil {
		t.Errorf("%s: dropped silently", c.name)
		return
	}
	headers := len(r.Headers)
	if c.headersGone {
		headers = 0
	}
	if d.Reason != c.reason || d.Cut != c.cut || len(d.Headers) != headers {
		t.Errorf("%s: got reason %s (%.100s), cut %v, %d headers, want %s, %v, %d", c.name, d.Reason, d.Detail, d.Cut, len(d.Headers), c.reason, c.cut, headers)
	}
	key, value := r.Key, r.Value
	if c.cut {
		key, value = key[:min(len(key), codecs.CutBytes)], value[:min(len(value), codecs.CutBytes)]
		sum := sha256.Sum256(r.Value)
		if d.CutSize != int64(len(r.Value)) || d.CutSHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: got size %d, SHA-256 %s, want %d, %x", c.name, d.CutSize, d.CutSHA256, len(r.Value), sum)
		}
	}
	if !same(d.Key, key) || !same(d.Value, value) {
		t.Errorf("%s: got a key of %d and a value of %d bytes, want the first %d and %d of the record", c.name, len(d.Key), len(d.Value), len(key), len(value))
	}
}
