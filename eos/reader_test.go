package eos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mustFake starts the fake broker and answers how to reach it.
func mustFake(t testing.TB, options ...kfake.Opt) (*kfake.Cluster, *Kafka) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, &Kafka{Brokers: c.ListenAddrs(), ClientID: "test"}
}

func mustClient(t testing.TB, k *Kafka, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(k.Franz(options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func mustTopic(t testing.TB, k *Kafka, topic string, partitions int32, configs map[string]string) {
	t.Helper()
	settings := map[string]*string{}
	for name, value := range configs {
		settings[name] = &value
	}
	adm := kadm.NewClient(mustClient(t, k))
	if _, err := adm.CreateTopic(within(t), partitions, 1, settings, topic); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool {
		found, err := adm.ListTopics(within(t), topic)
		return err == nil && found.Error() == nil && len(found[topic].Partitions) == int(partitions)
	})
}

// await waits until a condition holds.
func await(t testing.TB, holds func() bool) {
	t.Helper()
	ctx := within(t)
	for !holds() {
		if ctx.Err() != nil {
			t.Fatal("what was waited for did not come")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// stable waits until no transaction is open, markers included, and gives the topic's bounds.
func stable(t testing.TB, cl *kgo.Client, topic string) map[int32]Span {
	t.Helper()
	var spans map[int32]Span
	await(t, func() bool {
		var err error
		if spans, err = Ends(within(t), cl, topic); err != nil {
			t.Fatal(err)
		}
		for _, s := range spans {
			if s.LSO < s.HW {
				return false
			}
		}
		return true
	})
	return spans
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// writer writes transactions into one topic and remembers what a read_committed reader must see.
type writer struct {
	t         testing.TB
	cl        *kgo.Client
	topic     string
	count     int
	committed map[int32][]string
}

func mustWriter(t testing.TB, k *Kafka, topic string) *writer {
	cl := mustClient(t, k, kgo.TransactionalID("writer-"+topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	return &writer{t: t, cl: cl, topic: topic, committed: map[int32][]string{}}
}

// transaction writes n records to each of the partitions.
func (w *writer) transaction(n int, commit bool, partitions ...int32) {
	w.t.Helper()
	if err := w.cl.BeginTransaction(); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range partitions {
		for range n {
			w.count++
			value := fmt.Sprintf("%d-%t", w.count, commit)
			r := &kgo.Record{Topic: w.topic, Partition: p, Key: []byte(fmt.Sprint("k", w.count%10)), Value: []byte(value)}
			w.cl.Produce(within(w.t), r, nil)
			if commit {
				w.committed[p] = append(w.committed[p], value)
			}
		}
	}
	if err := w.cl.Flush(within(w.t)); err != nil {
		w.t.Fatal(err)
	}
	if err := w.cl.EndTransaction(within(w.t), kgo.TransactionEndTry(commit)); err != nil {
		w.t.Fatal(err)
	}
}

// readLevel reads from the starts until every partition is at the last stable offset, which must come to be ends.
func readLevel(t testing.TB, k *Kafka, topic string, starts map[int32]int64, options ...ReaderOption) (map[int32][]string, map[int32]int64) {
	t.Helper()
	r, err := NewReader(k, topic, starts, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spans, err := Ends(within(t), r.cl, topic)
	if err != nil {
		t.Fatal(err)
	}
	values, next := map[int32][]string{}, maps.Clone(starts)
	level := func() bool {
		for p := range starts {
			if next[p] < spans[p].LSO {
				return false
			}
		}
		return true
	}
	for !level() {
		batches, err := r.Poll(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			for _, rec := range b.Records {
				if rec.Attrs.IsControl() || rec.Offset < next[b.Partition] || rec.Offset >= b.Next {
					t.Fatalf("partition %d: record at %d (control %t) between positions %d and %d", b.Partition, rec.Offset, rec.Attrs.IsControl(), next[b.Partition], b.Next)
				}
				values[b.Partition] = append(values[b.Partition], string(rec.Value))
			}
			if b.Next < next[b.Partition] || b.Next > b.HighWatermark {
				t.Fatalf("partition %d: next %d after %d, high watermark %d", b.Partition, b.Next, next[b.Partition], b.HighWatermark)
			}
			next[b.Partition] = b.Next
		}
	}
	return values, next
}

func TestReader_DeliversCommittedAloneAndReachesTheEnd(t *testing.T) {
	_, k := mustFake(t)
	testReaderTransactions(t, k, "committed-alone")
}

func testReaderTransactions(t *testing.T, k *Kafka, topic string) {
	mustTopic(t, k, topic, 3, nil)
	w := mustWriter(t, k, topic)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		w.transaction(1+rng.IntN(20), rng.IntN(3) > 0, int32(rng.IntN(2)), 2)
	}
	w.transaction(3, false, 0, 1, 2) // the tail is aborted
	starts := map[int32]int64{0: 0, 1: 0, 2: 0}
	spans := stable(t, w.cl, topic)
	got, next := readLevel(t, k, topic, starts)
	for p := range starts {
		if !slices.Equal(got[p], w.committed[p]) {
			t.Errorf("partition %d: got %d records, want %d\n%v\n%v", p, len(got[p]), len(w.committed[p]), got[p], w.committed[p])
		}
		if next[p] != spans[p].HW {
			t.Errorf("partition %d: next is %d at the end, want %d", p, next[p], spans[p].HW)
		}
		testEveryStart(t, k, topic, p, spans[p], w.committed[p])
	}
}

// testEveryStart begins at many offsets: what is read is always a suffix, and each offset has one.
func testEveryStart(t *testing.T, k *Kafka, topic string, p int32, span Span, want []string) {
	t.Helper()
	before := len(want) + 1
	for start := span.Start; start <= span.HW; start += max(1, span.HW/16) {
		got, _ := readLevel(t, k, topic, map[int32]int64{p: start})
		if n := len(got[p]); n >= before && start > span.Start || !slices.Equal(got[p], want[len(want)-n:]) {
			t.Fatalf("partition %d from %d: got %v, want a suffix of %v", p, start, got[p], want)
		}
		before = len(got[p]) + 1
	}
}

func TestReader_OpenTransactionHoldsBackAndIsLevelAtTheLastStableOffset(t *testing.T) {
	_, k := mustFake(t)
	mustTopic(t, k, "open", 1, nil)
	w := mustWriter(t, k, "open")
	w.transaction(5, true, 0)
	if err := w.cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	w.cl.Produce(within(t), &kgo.Record{Topic: "open", Value: []byte("pending")}, nil)
	if err := w.cl.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	got, next := readLevel(t, k, "open", map[int32]int64{0: 0})
	if len(got[0]) != 5 || next[0] != 6 {
		t.Errorf("got %d records up to %d, want 5 up to 6: the open transaction must not show", len(got[0]), next[0])
	}
	r, err := NewReader(k, "open", map[int32]int64{0: next[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	batches, err := r.Poll(within(t))
	if err != nil || len(batches) != 1 || !batches[0].Level() || batches[0].HighWatermark != 7 || batches[0].LSO != 6 {
		t.Fatalf("level with an open transaction: got %+v, %v", batches, err)
	}
	if err := w.cl.EndTransaction(within(t), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	for {
		batches, err := r.Poll(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(batches[0].Records) == 1 && string(batches[0].Records[0].Value) == "pending" {
			return
		}
		if next := batches[0].Next; next > 7 {
			t.Fatalf("passed the committed record: next %d", next)
		}
	}
}

func TestReader_StopsWhereTheLogDoesNotHoldThePosition(t *testing.T) {
	_, k := mustFake(t)
	testReaderBounds(t, k, "short")
}

func TestReader_RefusesARecreatedTopic(t *testing.T) {
	_, k := mustFake(t)
	testReaderRecreated(t, k, "again")
}

func testReaderRecreated(t *testing.T, k *Kafka, topic string) {
	mustTopic(t, k, topic, 1, nil)
	w := mustWriter(t, k, topic)
	w.transaction(3, true, 0)
	r, err := NewReader(k, topic, map[int32]int64{0: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Poll(within(t)); err != nil {
		t.Fatal(err)
	}
	id := r.TopicID()
	if _, err := kadm.NewClient(w.cl).DeleteTopic(within(t), topic); err != nil {
		t.Fatal(err)
	}
	mustTopic(t, k, topic, 1, nil)
	for err == nil {
		_, err = r.Poll(within(t))
	}
	if !errors.Is(err, ErrRecreated) {
		t.Errorf("under the reader: got %v, want ErrRecreated", err)
	}
	r2, err := NewReader(k, topic, map[int32]int64{0: 0}, ReaderTopicID(id))
	if err != nil {
		t.Fatal(err)
	}
	defer r2.Close()
	if _, err = r2.Poll(within(t)); !errors.Is(err, ErrRecreated) {
		t.Errorf("with the old ID: got %v, want ErrRecreated", err)
	}
}

func TestReader_RefusesATopicOrPartitionThatIsMissing(t *testing.T) {
	_, k := mustFake(t)
	mustTopic(t, k, "again", 1, nil)
	r3, err := NewReader(k, "again", map[int32]int64{7: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer r3.Close()
	if _, err := r3.Poll(within(t)); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("partition 7 of 1: got %v, want ErrUnknownTopic", err)
	}
	r4, err := NewReader(k, "never-made", map[int32]int64{0: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer r4.Close()
	r4.missing = time.Now().Add(-time.Hour)
	if _, err := r4.Poll(within(t)); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("a topic that does not exist: got %v, want ErrUnknownTopic", err)
	}
}

func TestReader_GoesOnWhenPartitionsMoveToAnotherBroker(t *testing.T) {
	c, k := mustFake(t, kfake.NumBrokers(3))
	mustTopic(t, k, "moving", 2, nil)
	w := mustWriter(t, k, "moving")
	r, err := NewReader(k, "moving", map[int32]int64{0: 0, 1: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := map[int32][]string{}
	for round := range int32(12) {
		w.transaction(10, true, 0, 1)
		for len(got[0]) < len(w.committed[0]) || len(got[1]) < len(w.committed[1]) {
			batches, err := r.Poll(within(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range batches {
				for _, rec := range b.Records {
					got[b.Partition] = append(got[b.Partition], string(rec.Value))
				}
			}
		}
		for p := range int32(2) {
			if err := c.MoveTopicPartition("moving", p, (round+p)%3); err != nil {
				t.Fatal(err)
			}
		}
	}
	for p := range int32(2) {
		if !slices.Equal(got[p], w.committed[p]) {
			t.Errorf("partition %d: got %v, want %v", p, got[p], w.committed[p])
		}
	}
}

func TestReader_SmallAnswersStillGiveEveryPartitionItsTurn(t *testing.T) {
	_, k := mustFake(t)
	mustTopic(t, k, "turns", 8, nil)
	w := mustWriter(t, k, "turns")
	starts := map[int32]int64{}
	for p := range int32(8) {
		starts[p] = 0
	}
	for range 5 {
		w.transaction(20, true, 0, 1, 2, 3, 4, 5, 6, 7)
	}
	got, _ := readLevel(t, k, "turns", starts, ReaderBytes(300))
	for p := range starts {
		if !slices.Equal(got[p], w.committed[p]) {
			t.Errorf("partition %d: got %d records, want %d", p, len(got[p]), len(w.committed[p]))
		}
	}
}

func TestReader_PollEndsWithItsContextAndSaysWhy(t *testing.T) {
	c, k := mustFake(t)
	mustTopic(t, k, "away", 1, nil)
	c.Close()
	r, err := NewReader(k, "away", map[int32]int64{0: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("stopped by the test")
	go func() {
		for r.Trouble() == nil && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(stop)
	}()
	if _, err := r.Poll(ctx); !errors.Is(err, stop) || !strings.Contains(err.Error(), "read away") {
		t.Errorf("got %v, want the cause and the trouble", err)
	}
}

func TestLastDeliverable_LooksBehindMarkersAndAbortedRecords(t *testing.T) {
	_, k := mustFake(t)
	testLastDeliverable(t, k, "last")
}

func testLastDeliverable(t *testing.T, k *Kafka, topic string) {
	mustTopic(t, k, topic, 1, nil)
	w := mustWriter(t, k, topic)
	check := func(want int64, wantOK bool) {
		t.Helper()
		spans := stable(t, w.cl, topic)
		got, ok, err := LastDeliverable(within(t), k, topic, 0, spans[0])
		if err != nil || ok != wantOK || got != want {
			t.Errorf("span %+v: got %d, %t, %v, want %d, %t", spans[0], got, ok, err, want, wantOK)
		}
	}
	check(0, false)
	w.transaction(4, false, 0) // 0..3, marker 4
	check(0, false)
	w.transaction(2, true, 0) // 5, 6, marker 7
	check(6, true)
	for range 30 {
		w.transaction(7, false, 0)
	}
	check(6, true)
	w.transaction(1, true, 0)
	check(8+30*8, true)
}
