package processor

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kgo"
)

// rekeyJob takes the time from the record and knows the raw key by nothing but the dead letters.
const rekeyJob = `name: NAME
input: {topic: NAME-events, id: event.id}
totals:
  sum: {sum: event.value}
flags:
  first: {when: "totals.sum >= 1"}
`

const rekeyPartitions = 4

// strayRecords are events of 50 IDs as all sorts of producers place them.
func strayRecords(rng *rand.Rand, n int) []*kgo.Record {
	var out []*kgo.Record
	for i := range n {
		id := fmt.Sprint("id-", rng.IntN(50))
		value, key := "1", []byte(nil)
		switch rng.IntN(4) {
		case 0: // no key
		case 1:
			key = []byte("order-4711") // a key that is something else
		case 2:
			key = []byte(id) // another partitioner
		case 3:
			key = []byte{} // empty is not null
		}
		if i%25 == 0 {
			value = `"no number"`
		}
		out = append(out, &kgo.Record{
			Partition: int32(rng.IntN(rekeyPartitions)), Key: key, Value: event(id, value, ""),
			Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)), Headers: []kgo.RecordHeader{{Key: "trace", Value: fmt.Append(nil, i)}},
		})
	}
	return out
}

func idOf(r *kgo.Record) string {
	var id string
	if _, err := fmt.Sscanf(string(r.Value), `{"id":%q`, &id); err != nil {
		panic(err)
	}
	return id
}

func TestProcessor_StrayEventsAreCountedOnceUnderTheirOrigin(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		j := mustJob(t, brokers, rekeyJob, rekeyPartitions)
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		records := strayRecords(rand.New(rand.NewPCG(seed, 0)), 1000)
		j.mustWrite(j.mustClient(kgo.RecordPartitioner(kgo.ManualPartitioner())), records...)
		stray := 0
		for _, r := range records {
			if home(idOf(r), rekeyPartitions) != r.Partition {
				stray++
			}
		}
		metrics := j.mustRun()
		if got := metrics["tidemark_events_rekeyed_total"]; got != float64(stray) {
			t.Errorf("got %v re-keyed events counted, want %d", got, stray)
		}
		j.checkStray(records)
		if err := os.RemoveAll(j.dir); err != nil {
			t.Fatal(err)
		}
		if again := j.mustRun(); again["tidemark_events_applied_total"]+again["tidemark_events_rekeyed_total"]+again["tidemark_events_refused_total"] != 0 {
			t.Errorf("a second run counted again: %v", again)
		}
		j.checkStray(records)
	})
}

// checkStray asks for each event once, whichever way it went, under the position that it was written to.
func (j *job) checkStray(records []*kgo.Record) {
	j.t.Helper()
	type sum struct {
		n           int
		first, last int64
	}
	want, origin := map[string]*sum{}, map[string]*kgo.Record{}
	dead := j.deadLetters()
	refused := 0
	for i, r := range records {
		at := place(r.Topic, r.Partition, r.Offset)
		origin[at] = r
		if i%25 == 0 {
			refused++
			checkRefused(j.t, badCase{name: at, reason: "rule", record: r}, dead[at])
			continue
		}
		id, ms := idOf(r), r.Timestamp.UnixMilli()
		if want[id] == nil {
			want[id] = &sum{first: ms, last: ms}
		}
		w := want[id]
		w.n, w.first, w.last = w.n+1, min(w.first, ms), max(w.last, ms)
	}
	if len(dead) != refused {
		j.t.Errorf("got %d dead letters, want %d", len(dead), refused)
	}
	states := j.table()
	for id, w := range want {
		st := states[id]
		if st == nil || st.Count != uint64(w.n) || st.FirstMs != w.first || st.LastMs != w.last {
			j.t.Errorf("%s: got %+v, want %+v", id, st, w)
			continue
		}
		why := st.Flags[0].Why
		if r := origin[place(why.Topic, why.Partition, why.Offset)]; r == nil || idOf(r) != id || r.Timestamp.UnixMilli() != why.TimeMs {
			j.t.Errorf("%s: got why %+v, want the position and the time of one of its events in the input", id, why)
		}
	}
	if len(states) != len(want) {
		j.t.Errorf("got %d IDs, want %d", len(states), len(want))
	}
}

// looped is an event on its way through the loop.
func (j *job) looped(id string) *kgo.Record {
	re := codecs.Rekeyed{ID: id, Topic: j.rules.Job().Input.Topic, Partition: away(id, j.partitions), Offset: 5, TimestampMs: 1_700_000_000_000, Value: event(id, "1", "")}
	key, value, headers := re.Encode()
	r := &kgo.Record{Topic: j.names.Loop(), Partition: home(id, j.partitions), Key: key, Value: value}
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r
}

// What Tidemark did not write into the loop is refused like any other bad record.
func TestProcessor_ForeignRecordsInTheLoopAreRefused(t *testing.T) {
	j := mustJob(t, mustFake(t), rekeyJob, rekeyPartitions)
	j.mustRun()
	cl := j.mustClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	good := j.looped("good")
	forged := j.looped("forged")
	forged.Headers[0].Value = []byte("2")
	noOffset := j.looped("no-offset")
	noOffset.Headers[3].Value = []byte("12x")
	astray := j.looped("astray")
	astray.Partition = (astray.Partition + 1) % rekeyPartitions
	bad := []*kgo.Record{
		{Topic: j.names.Loop(), Key: []byte("k"), Value: event("k", "1", "")},
		{Topic: j.names.Loop()},
		{Topic: j.names.Loop(), Partition: 3, Value: []byte("{")},
		forged, noOffset, astray,
	}
	if err := cl.ProduceSync(t.Context(), append(bad, good)...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	j.mustRun()
	if states := j.table(); len(states) != 1 || states["good"] == nil {
		t.Errorf("got %v, want the good one alone", states)
	}
	dead := j.deadLetters()
	for _, r := range bad {
		checkRefused(t, badCase{name: place(r.Topic, r.Partition, r.Offset), reason: "loop", record: r}, dead[place(r.Topic, r.Partition, r.Offset)])
	}
	if len(dead) != len(bad) {
		t.Errorf("got %d dead letters, want %d", len(dead), len(bad))
	}
}

// The offsets of a commit can be seen before the records of the same commit in the loop: their markers are written one by one.
func TestProcessor_IsNotCaughtUpWhileTheLoopIsOpen(t *testing.T) {
	j := mustJob(t, kafkatest.Shared(t), rekeyJob, rekeyPartitions)
	j.mustRun()
	cl := j.mustClient(kgo.TransactionalID(j.names.Job+"-late"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), j.looped("late")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- j.try(nil) }()
	select {
	case err := <-ended:
		t.Errorf("caught up while an event was on its way: %v", err)
	case <-time.After(time.Second): // without the wait it ends within 200 ms
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("run: %v", err)
	}
	if st := j.table()["late"]; st == nil || st.Count != 1 {
		t.Errorf("got %+v, want the event that was on its way", st)
	}
}
