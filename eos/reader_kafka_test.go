package eos

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestReader_OnKafka(t *testing.T) {
	k := mustReal(t)
	t.Run("transactions", func(t *testing.T) { testReaderTransactions(t, k, "rd2-transactions") })
	t.Run("last deliverable", func(t *testing.T) { testLastDeliverable(t, k, "rd2-last") })
	t.Run("topics created", func(t *testing.T) { testTopicsCreated(t, k, "rd2-job-a") })
	t.Run("topic faults", func(t *testing.T) { testTopicFaults(t, k, "rd2-job-b") })
	t.Run("topics race", func(t *testing.T) { testTopicsRace(t, k, "rd2-job-c") })
	t.Run("bounds", func(t *testing.T) { testReaderBounds(t, k, "rd2-bounds") })
	t.Run("recreated", func(t *testing.T) { testReaderRecreated(t, k, "rd2-recreated") })
	t.Run("compacted tail", func(t *testing.T) { testCompactedTail(t, k, "rd2-compacted") })
}

// testCompactedTail lets compaction empty the end of the log: the records are gone, the offsets stay.
func testCompactedTail(t *testing.T, k *Kafka, topic string) {
	mustTopic(t, k, topic, 2, map[string]string{
		"cleanup.policy": "compact", "segment.ms": "200", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01",
		"max.compaction.lag.ms": "300", "delete.retention.ms": "0", "min.compaction.lag.ms": "0",
	})
	w := mustWriter(t, k, topic)
	produce := func(p int32, key string, value []byte) {
		t.Helper()
		if err := w.cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		w.cl.Produce(within(t), &kgo.Record{Topic: topic, Partition: p, Key: []byte(key), Value: value}, nil)
		if err := w.cl.Flush(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := w.cl.EndTransaction(within(t), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
	}
	plain := mustClient(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	// Records without a producer ID leave nothing behind when they are compacted away (a producer's last batch stays).
	send := func(p int32, key string, value []byte) {
		t.Helper()
		if err := mustPlainProduce(t, plain, &kgo.Record{Topic: topic, Partition: p, Key: []byte(key), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t)
	produce(0, "keep", []byte("kept"))
	for i := range 20 {
		send(0, fmt.Sprint("gone", i), []byte("x"))
		send(0, fmt.Sprint("gone", i), nil)
		produce(1, "only", fmt.Append(nil, i))
	}
	spans := stable(t, plain, topic)
	for { // until the cleaner has been there: reading delivers few records and still gets to the end
		got, next := readLevel(t, k, topic, map[int32]int64{0: 0, 1: 0})
		if next[0] < spans[0].LSO || next[1] < spans[1].LSO || len(got[0]) == 0 || got[0][0] != "kept" {
			t.Fatalf("got %v up to %v, want kept first, and the end %+v", got, next, spans)
		}
		if len(got[0]) == 1 && len(got[1]) == 1 {
			t.Logf("after compaction: %v up to %v, spans %+v", got, next, spans)
			break
		}
		// The cleaner looks at segments that are rolled, and a segment is rolled by the next record.
		send(0, "roll", nil)
		produce(1, "only", []byte("last"))
		spans = stable(t, plain, topic)
		t.Logf("%v %v", len(got[0]), len(got[1]))
		if ctx.Err() != nil {
			t.Fatal("the cleaner never came")
		}
	}
}

func mustPlainProduce(t testing.TB, cl *kgo.Client, r *kgo.Record) error {
	t.Helper()
	return cl.ProduceSync(within(t), r).FirstErr()
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
