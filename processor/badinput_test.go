package processor

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kgo"
)

// badJob counts, sums and remembers a scalar, so that types and sizes matter.
const badJob = `name: NAME
input: {topic: NAME-events, id: event.id, time: event.time}
totals:
  sum:    {sum: event.value}
  newest: {last: event.note}
flags:
  big: {when: "totals.sum >= 100"}
`

// badCase is one record; an empty reason means that it is good and counted.
type badCase struct {
	name, reason string
	id           string // of the state that a good one counts in
	record       *kgo.Record
}

func raw(text string) *kgo.Record { return &kgo.Record{Key: []byte("raw"), Value: []byte(text)} }

func value(b []byte) *kgo.Record { return &kgo.Record{Key: []byte("v"), Value: b} }

func event(id, value, more string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"time":"2024-05-01T10:00:00Z","value":%s%s}`, id, value, more)
}

// badCases is every kind of input that a producer may send by mistake or on purpose.
func badCases() []badCase {
	soon := time.Now().Add(25 * time.Hour).UTC().Format(time.RFC3339)
	at := func(text string) []byte { return fmt.Appendf(nil, `{"id":"at","time":%s,"value":1}`, text) }
	deep := strings.Repeat(`[`, 100_000) + strings.Repeat(`]`, 100_000)
	long := strings.Repeat("x", 1025)
	return append(oddCases(), []badCase{
		{name: "broken JSON", reason: "json", record: raw(`{"id":"a","time":`)},
		{name: "empty value", reason: "json", record: value([]byte{})},
		{name: "an array", reason: "json", record: raw(`[1,2]`)},
		{name: "a number", reason: "json", record: raw(`12`)},
		{name: "null as JSON", reason: "json", record: raw(`null`)},
		{name: "two objects", reason: "json", record: raw(`{"id":"a"}{"id":"b"}`)},
		{name: "a BOM", reason: "json", record: raw("\ufeff" + string(event("bom", "1", "")))},
		{name: "NaN", reason: "json", record: value(event("a", "NaN", ""))},
		{name: "minus infinity", reason: "json", record: value(event("a", "-Infinity", ""))},
		{name: "leading zero", reason: "json", record: value(event("a", "01", ""))},
		{name: "duplicate key", reason: "duplicate_key", record: value(event("a", "1", `,"value":2`))},
		{name: "duplicate key, escaped", reason: "duplicate_key", record: value(event("a", "1", `,"v\u0061lue":2`))},
		{name: "duplicate key deep inside", reason: "duplicate_key", record: value(event("a", "1", `,"x":[{"y":{"z":1,"z":1}}]`))},
		{name: "400 digits", reason: "number", record: value(event("a", strings.Repeat("7", 400), ""))},
		{name: "1e999999999", reason: "number", record: value(event("a", "1e999999999", ""))},
		{name: "1e-999999999", reason: "number", record: value(event("a", "1e-999999999", ""))},
		{name: "an exponent beyond 64 bits", reason: "number", record: value(event("a", "1e99999999999999999999", ""))},
		{name: "a number that no rule asks for", reason: "number", record: value(event("a", "1", `,"other":1e35`))},
		{name: "text where a number belongs", reason: "rule", record: value(event("a", `"12"`, ""))},
		{name: "bool where a number belongs", reason: "rule", record: value(event("a", `true`, ""))},
		{name: "object where a number belongs", reason: "rule", record: value(event("a", `{}`, ""))},
		{name: "list where a scalar belongs", reason: "rule", record: value(event("a", `1`, `,"note":[1]`))},
		{name: "a state beyond its limit", reason: "state_bytes_max", record: value(event("a", "1", `,"note":"`+strings.Repeat("n", 950_000)+`"`))},
		{name: "not UTF-8", reason: "utf8", record: raw("{\"id\":\"\xff\",\"value\":1}")},
		{name: "an encoded surrogate half", reason: "utf8", record: raw("{\"id\":\"\xed\xa0\x80\",\"value\":1}")},
		{name: "deeply nested", reason: "depth", record: value(event("a", "1", `,"x":`+deep))},
		{name: "deeply nested, unclosed", reason: "depth", record: raw(`{"a":` + strings.Repeat(`{"a":`, 50_000))},
		{name: "tombstone", reason: "tombstone", record: &kgo.Record{Key: []byte("neighbour-0")}},
		{name: "tombstone without key", reason: "tombstone", record: &kgo.Record{}},
		{name: "no ID", reason: "id", record: raw(`{"value":1}`)},
		{name: "null ID", reason: "id", record: raw(`{"id":null}`)},
		{name: "ID is a number", reason: "id", record: raw(`{"id":7}`)},
		{name: "ID is an object", reason: "id", record: raw(`{"id":{"id":"a"}}`)},
		{name: "empty ID", reason: "id", record: value(event("", "1", ""))},
		{name: "ID of 1,025 bytes", reason: "id", record: value(event(long, "1", ""))},
		{name: "no time", reason: "time", record: raw(`{"id":"a","value":1}`)},
		{name: "time is a bool", reason: "time", record: value(at(`true`))},
		{name: "time is no time", reason: "time", record: value(at(`"yesterday"`))},
		{name: "time of 1 MB", reason: "time", record: value(at(`"` + strings.Repeat("9", 900_000) + `"`))},
		{name: "year 10000", reason: "time", record: value(at(`253402300800000`))},
		{name: "before the year 1", reason: "time", record: value(at(`-62135596800001`))},
		{name: "time beyond 64 bits", reason: "time", record: value(at(`9223372036854775808`))},
		{name: "half a millisecond before the year 1", reason: "time", record: value(at(`-62135596800000.5`))},
		{name: "ahead of max_ahead", reason: "max_ahead", record: value(at(`"` + soon + `"`))},
		{name: "broken, 1 MB", reason: "json", record: raw(strings.Repeat("{", 1_000_000))},
		{name: "broken, 1 MB of text", reason: "json", record: raw(`{"id":"` + strings.Repeat("a", 1_000_000))},
		{name: "ID of 1 MB", reason: "id", record: value(event(strings.Repeat("k", 990_000), "1", ""))},
		{name: "a key of 900 KB", reason: "json", record: &kgo.Record{Key: bytes.Repeat([]byte("k"), 900_000), Value: []byte("{")}},
		{name: "a key that is not UTF-8", reason: "json", record: &kgo.Record{Key: []byte("\xff\xfe\x00"), Value: []byte("{")}},
		{name: "an empty key", reason: "json", record: &kgo.Record{Key: []byte{}, Value: []byte("{")}},
	}...)
}

// oddCases look bad and are not, and what else goes with odd headers.
func oddCases() []badCase {
	long := strings.Repeat("x", 1025)
	return []badCase{
		{name: "ID __offset", id: "__offset", record: value(event("__offset", "1", ""))},
		{name: "ID with NUL", id: "a\x00b", record: raw(`{"id":"a\u0000b","time":1714557600000,"value":1}`)},
		{name: "ID that is NUL", id: "\x00", record: raw(`{"id":"\u0000","time":1714557600000,"value":1}`)},
		{name: "ID of 1,024 bytes", id: long[:1024], record: value(event(long[:1024], "1", ""))},
		{name: "1 in 35 digits", id: "digits", record: value(event("digits", "10000000000000000000000000000000000e-34", ""))},
		{name: "half a millisecond", id: "half", record: raw(`{"id":"half","time":1714557600000.5,"value":1}`)},
		{name: "1 MB of what nobody asks for", id: "wide", record: value(event("wide", "1", `,"x":"`+strings.Repeat("w", 990_000)+`"`))},
		{name: "a thousand headers", id: "headers", record: &kgo.Record{Key: []byte("headers"), Value: event("headers", "1", ""), Headers: hostileHeaders()}},
		{name: "a thousand headers, broken", reason: "json", record: &kgo.Record{Key: []byte("h"), Value: []byte("{"), Headers: hostileHeaders()}},
		{name: "a header of 900 KB, broken", reason: "json", record: &kgo.Record{Value: []byte("{"), Headers: []kgo.RecordHeader{{Key: "h", Value: bytes.Repeat([]byte("h"), 900_000)}}}},
	}
}

// hostileHeaders imitate those of dead letters and re-keyed events, with names that repeat or are none.
func hostileHeaders() []kgo.RecordHeader {
	h := []kgo.RecordHeader{
		{Key: "tidemark.format", Value: []byte("99")},
		{Key: "tidemark.topic", Value: []byte("elsewhere")},
		{Key: "tidemark.partition", Value: []byte("-7")},
		{Key: "tidemark.offset", Value: []byte("x")},
		{Key: "tidemark.key", Value: []byte("forged")},
		{Key: "tidemark.cut.size", Value: []byte("NaN")},
		{Key: "", Value: nil},
		{Key: "\xff", Value: []byte{}},
	}
	for i := range 1000 {
		h = append(h, kgo.RecordHeader{Key: "same", Value: fmt.Append(nil, i)})
	}
	return h
}

// testBadInput writes every case between good neighbours, and asks for all of them.
func testBadInput(t *testing.T, brokers []string, partitions int32, codec kgo.CompressionCodec) {
	j := mustJob(t, brokers, badJob, partitions)
	cl := j.mustClient(kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(1_048_000))
	cases := badCases()
	want := map[string]int{}
	var records []*kgo.Record
	for i, c := range cases {
		id := fmt.Sprint("neighbour-", i%7)
		records = append(records, &kgo.Record{Key: []byte(id), Value: event(id, "1", "")}, c.record)
		want[id]++
		if c.reason == "" {
			want[c.id]++
		}
	}
	j.mustWrite(cl, records...)
	metrics := j.mustRun()

	states := j.table()
	for id, n := range want {
		if st := states[id]; st == nil || st.Count != uint64(n) {
			t.Errorf("ID %.40q: got %+v, want count %d", id, st, n)
		} else if got := j.total(st, "sum"); got != fmt.Sprint(n) {
			t.Errorf("ID %.40q: got sum %s, want %d", id, got, n)
		}
	}
	if len(states) != len(want) {
		t.Errorf("got %d IDs, want %d", len(states), len(want))
	}
	dead := j.deadLetters()
	refused := 0
	for _, c := range cases {
		d := dead[place(c.record.Topic, c.record.Partition, c.record.Offset)]
		if c.reason == "" {
			if d != nil {
				t.Errorf("%s: refused: %s: %.200s", c.name, d.Reason, d.Detail)
			}
			continue
		}
		refused++
		checkRefused(t, c, d)
	}
	if len(dead) != refused || metrics["tidemark_events_refused_total"] != float64(refused) {
		t.Errorf("got %d dead letters, %v counted, want %d", len(dead), metrics["tidemark_events_refused_total"], refused)
	}
}

// checkRefused asks for the record as it arrived, with the reason.
func checkRefused(t *testing.T, c badCase, d *codecs.DeadLetter) {
	t.Helper()
	r := c.record
	switch {
	case d == nil:
		t.Errorf("%s: dropped silently", c.name)
		return
	case d.Reason != c.reason:
		t.Errorf("%s: got reason %s (%.200s), want %s", c.name, d.Reason, d.Detail, c.reason)
	case len(d.Detail) == 0 || len(d.Detail) > 1000:
		t.Errorf("%s: got a detail of %d bytes: %.200s", c.name, len(d.Detail), d.Detail)
	}
	if !same(d.Key, r.Key) || !same(d.Value, r.Value) || d.Cut {
		t.Errorf("%s: got key %.40q, value of %d bytes, cut %v, want %.40q, %d bytes, whole", c.name, d.Key, len(d.Value), d.Cut, r.Key, len(r.Value))
	}
	if d.TimestampMs != r.Timestamp.UnixMilli() {
		t.Errorf("%s: got timestamp %d, want %d", c.name, d.TimestampMs, r.Timestamp.UnixMilli())
	}
	if len(d.Headers) != len(r.Headers) {
		t.Errorf("%s: got %d headers, want %d", c.name, len(d.Headers), len(r.Headers))
		return
	}
	for i, h := range r.Headers {
		if got := d.Headers[i]; got.Key != h.Key || !bytes.Equal(got.Value, h.Value) {
			t.Errorf("%s: header %d: got %q=%.40q, want %q=%.40q", c.name, i, got.Key, got.Value, h.Key, h.Value)
		}
	}
}

// same compares bytes; nil is another thing than nothing in them.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func TestProcessor_BadInputIsRefusedWholeAndStopsNothing(t *testing.T) {
	for _, partitions := range []int32{1, 4} {
		t.Run(fmt.Sprintf("fake/%d", partitions), func(t *testing.T) {
			testBadInput(t, mustFake(t), partitions, kgo.ZstdCompression())
		})
		t.Run(fmt.Sprintf("kafka/%d", partitions), func(t *testing.T) {
			testBadInput(t, kafkatest.Shared(t), partitions, kgo.GzipCompression())
		})
	}
}
