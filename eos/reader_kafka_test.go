package eos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestReader_OnKafka(t *testing.T) {
	k := mustReal(t)
	for name, test := range map[string]func(*testing.T, *Kafka, string){
		"transactions":     testReaderTransactions,
		"last deliverable": testLastDeliverable,
		"topics created":   testTopicsCreated,
		"topic faults":     testTopicFaults,
		"topics race":      testTopicsRace,
		"bounds":           testReaderBounds,
		"recreated":        testReaderRecreated,
		"compacted tail":   testCompactedTail,
	} {
		t.Run(name, func(t *testing.T) { test(t, k, kafkatest.TopicName(t)) })
	}
}

// testCompactedTail lets compaction remove the last records that a reader would be given: the records are gone, their offsets
// stay. The segment that is written to is never compacted, so the end of each log is an aborted transaction.
func testCompactedTail(t *testing.T, k *Kafka, topic string) {
	mustTopic(t, k, topic, 2, map[string]string{
		"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01",
		"max.compaction.lag.ms": "100", "delete.retention.ms": "0", "min.compaction.lag.ms": "0",
	})
	w := mustWriter(t, k, topic)
	produce := func(commit kgo.TransactionEndTry, records ...*kgo.Record) {
		t.Helper()
		if err := w.cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := w.cl.ProduceSync(within(t), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := w.cl.EndTransaction(within(t), commit); err != nil {
			t.Fatal(err)
		}
	}
	record := func(p int32, key, value string) *kgo.Record {
		return &kgo.Record{Topic: topic, Partition: p, Key: []byte(key), Value: []byte(value)}
	}
	// Records without a producer ID leave nothing behind when they are compacted away (a producer's last batch stays).
	plain := mustClient(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableIdempotentWrite())
	produce(kgo.TryCommit, record(0, "keep", "kept"))
	for i := range 20 {
		gone := fmt.Sprint("gone", i)
		mustPlainProduce(t, plain, record(0, gone, "x"), &kgo.Record{Topic: topic, Partition: 0, Key: []byte(gone)})
		produce(kgo.TryCommit, record(1, "only", fmt.Sprint(i)))
	}
	ctx := within(t)
	for { // until the cleaner has been there: reading delivers one record of each and still gets to the end
		spans := stable(t, plain, topic)
		got, next := readLevel(t, k, topic, map[int32]int64{0: 0, 1: 0})
		if next[0] < spans[0].LSO || next[1] < spans[1].LSO || len(got[0]) == 0 || got[0][0] != "kept" || !slices.Contains(got[1], "19") {
			t.Fatalf("got %v up to %v, want kept, 19, and the end %+v", got, next, spans)
		}
		if len(got[0]) == 1 && len(got[1]) == 1 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the cleaner never came: got %v up to %v", got, next)
		}
		// The cleaner looks at segments that are rolled, and a segment is rolled by the next record.
		produce(kgo.TryAbort, record(0, "roll", ""), record(1, "roll", ""))
	}
}

func mustPlainProduce(t testing.TB, cl *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	if err := cl.ProduceSync(within(t), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func testReaderBounds(t *testing.T, k *Kafka, topic string) {
	mustTopic(t, k, topic, 1, nil)
	w := mustWriter(t, k, topic)
	w.transaction(9, true, 0)
	trim := kadm.Offsets{}
	trim.AddOffset(topic, 0, 4, -1)
	if _, err := kadm.NewClient(w.cl).DeleteRecords(within(t), trim); err != nil {
		t.Fatal(err)
	}
	for start, want := range map[int64]string{0: "deleted before they were read", 3: "outside [4, 10]", 11: "truncated"} {
		r, err := NewReader(k, topic, map[int32]int64{0: start})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Poll(within(t))
		r.Close()
		var stop *FailStop
		if !errors.Is(err, ErrTruncated) || !errors.As(err, &stop) || !strings.Contains(err.Error(), want) {
			t.Errorf("from %d: got %v, want ErrTruncated with %q", start, err, want)
		}
	}
	if got, next := readLevel(t, k, topic, map[int32]int64{0: 4}); len(got[0]) != 5 || next[0] != 10 {
		t.Errorf("from the start: got %d records up to %d, want 5 up to 10", len(got[0]), next[0])
	}
}
