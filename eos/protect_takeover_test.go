package eos

import (
	"context"
	"encoding/binary"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// openOn leaves a transaction open on every partition of a topic, as a marker that comes late does: what is
// committed after it shows only once it has ended.
func (w *world) openOn(topic, transactionalID string) (end func()) {
	w.t.Helper()
	cl := mustClient(w.t, w.kafka, kgo.TransactionalID(transactionalID), kgo.TransactionTimeout(outlasts), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		w.t.Fatalf("begin: %v", err)
	}
	for p := range w.partitions {
		if err := cl.ProduceSync(w.t.Context(), &kgo.Record{Topic: topic, Partition: p, Key: []byte("late")}).FirstErr(); err != nil {
			w.t.Fatalf("write to %s/%d: %v", topic, p, err)
		}
	}
	return func() {
		w.t.Helper()
		if err := cl.EndTransaction(w.t.Context(), kgo.TryAbort); err != nil {
			w.t.Fatalf("abort: %v", err)
		}
	}
}

// committed waits until the group's offsets cover the input.
func (w *world) committed(u *Unit) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	targets, err := u.lastDeliverable(ctx, w.input)
	if err == nil {
		err = u.waitCommitted(ctx, w.input, targets)
	}
	if err != nil {
		w.t.Fatalf("committing: %v", err)
	}
}

// The markers of a commit are written one by one, so the group's offsets can show it before the table does.
// Who takes over then has to wait, although there is nothing more to read.
func TestProtect_ACommitThatTheTableShowsLateIsWaitedFor(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		w := newWorld(t, brokers, 2)
		w.produce(100, 20)
		u, stop := w.run(w.config("a", t.TempDir()))
		w.caughtUp(u)
		show := w.openOn(w.names.Table(), "late-"+w.names.Job)
		w.produce(100, 20)
		w.committed(u) // caughtUp waits for the table to show it
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		ends, err := Ends(t.Context(), w.cl, w.names.Table())
		if err != nil {
			t.Fatalf("ends of the table: %v", err)
		}
		for p, span := range ends {
			if span.LSO == span.HW {
				t.Fatalf("nothing of partition %d is hidden; the test shows nothing", p)
			}
		}
		heir, stop := w.run(w.config("b", t.TempDir()))
		eventually(t, time.Minute, "read all that the table shows", func() bool {
			level := 0
			for _, st := range heir.Status() {
				if st.Recovered == ends[st.Partition].LSO && st.RecoverEnd == st.Recovered {
					level++
				}
			}
			return level == int(w.partitions) || heir.Err() != nil
		})
		show()
		w.caughtUp(heir)
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		w.check()
	})
}

// laneOf is the lane of an owner that is among some transactions, "" if none is.
func laneOf(open kadm.ListedTransactions, owner string) string {
	for lane := range lanes {
		if id := laneID(owner, lane); open[id].State == "Ongoing" {
			return id
		}
	}
	return ""
}

// A process dies with a transaction open that Kafka would leave open for a minute, and starts again.
func TestProtect_AnEarlierLifeOfTheSameNameIsFenced(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		w := newWorld(t, brokers, 2)
		w.produce(100, 20)
		z := w.freezeChild("before EndTxn", 3, "")
		if err := z.cmd.Process.Kill(); err != nil {
			t.Fatalf("kill: %v", err)
		}
		open, err := kadm.NewClient(w.cl).ListTransactions(t.Context(), nil, []string{"Ongoing"})
		if left := laneOf(open, w.names.TransactionalID("zombie")); err != nil || left == "" {
			t.Fatalf("nothing that the zombie left open among %v (%v); the test shows nothing", open.TransactionalIDs(), err)
		}
		start := time.Now()
		cfg := w.config("zombie", t.TempDir())
		shortWaits(&cfg)
		u, stop := w.run(cfg)
		w.caughtUp(u)
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("the takeover took %s, want much less than the timeout of the open transaction", took)
		}
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		w.check()
	})
}

// A process is thrown out of the group after it has read the offsets, and does not hear of it. When it goes on, the
// table is further than they. That is a takeover like another, and nothing that a person has to mend.
func TestProtect_AnOwnerThatIsOvertakenInItsRecoveryJoinsAgain(t *testing.T) {
	w := newWorld(t, startFake(t), 2)
	w.produce(100, 20)
	first, stop := w.run(w.config("first", t.TempDir()))
	w.caughtUp(first)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	cfg := w.config("a", t.TempDir())
	cfg.SessionTimeout = 4 * time.Minute // so that its heartbeats tell it nothing for a minute
	var log logText
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	fetched, overtaken := make(chan struct{}), make(chan struct{})
	var once sync.Once
	cfg.Trace = func(step string) {
		if step == "offsets fetched" {
			once.Do(func() {
				close(fetched)
				<-overtaken
			})
		}
	}
	a, stopA := w.run(cfg)
	<-fetched
	w.expel(a, "a")
	heir, stop := w.run(w.config("heir", t.TempDir()))
	w.produce(100, 20)
	w.caughtUp(heir)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	close(overtaken)
	w.produce(100, 20)
	w.caughtUp(a)
	if err := stopA(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if !strings.Contains(log.String(), errOvertaken.Error()) {
		t.Errorf("it was never overtaken; the test shows nothing:\n%s", log.String())
	}
	w.check()
}

// expel throws the members of an instance's name out of the group, as the session timeout does.
func (w *world) expel(u *Unit, instance string) {
	w.t.Helper()
	ids, err := u.admin.members(w.t.Context(), w.names.Group(), instance)
	if err != nil || len(ids) != 1 {
		w.t.Fatalf("members called %q: %q, %v; want one", instance, ids, err)
	}
	if err := u.admin.expel(w.t.Context(), w.names.Group(), ids[0], "a test wants it"); err != nil {
		w.t.Fatalf("throw %q out of the group: %v", instance, err)
	}
}

// A transaction without offsets hides none, so only its transactional.id tells the next life of it. Left open, it holds back those who
// read committed until its timeout, which is minutes here.
func TestProtect_WhatAnEarlierLifeLeftOpenIsEnded(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		w, dir := newWorld(t, brokers, 2), t.TempDir()
		w.produce(100, 20)
		for life := range 2 {
			u, stop := w.run(w.config("a", dir))
			w.caughtUp(u)
			if err := stop(); err != nil {
				t.Fatalf("stop of life %d: %v", life, err)
			}
			if life == 0 {
				w.openOn(w.names.Table(), laneID(w.names.TransactionalID("a"), 0)) // and dies
				w.produce(100, 20)
			}
		}
		w.check()
	})
}

// Who dies before his first event must still be found by the next owner, so each takeover names the owner at once.
func TestProtect_ATakeoverNamesItsOwnerInOffsetsAndTable(t *testing.T) {
	w := newWorld(t, startFake(t), 2)
	w.produce(100, 20)
	for _, instance := range []string{"a", "b"} {
		u, stop := w.run(w.config(instance, t.TempDir()))
		w.caughtUp(u)
		owner := w.names.TransactionalID(instance)
		fetched, err := kadm.NewClient(w.cl).FetchOffsets(t.Context(), w.names.Group())
		if err != nil {
			t.Fatalf("fetch offsets: %v", err)
		}
		named := 0
		fetched.Offsets().Each(func(o kadm.Offset) {
			if meta, err := ParseOffsetMetadata(o.Metadata); err != nil || meta.Owner != owner {
				t.Errorf("offset of %s/%d: metadata %q (%v), want the owner %q", o.Topic, o.Partition, o.Metadata, err, owner)
			}
			named++
		})
		if want := int(2 * w.partitions); named != want { // input and loop
			t.Errorf("%d offsets, want %d", named, want)
		}
		for p, pos := range w.positions() {
			if pos.Owner != owner {
				t.Errorf("position record of partition %d is by %q, want %q", p, pos.Owner, owner)
			}
		}
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
	}
	w.check()
}

// positions are the last position records of the table. It fails where one does not seal its commit: it is
// the last record, counts those before it, and follows the one before.
func (w *world) positions() map[int32]Position {
	w.t.Helper()
	last, records, unsealed := map[int32]Position{}, map[int32]uint64{}, map[int32]int{}
	for _, r := range w.readAll(w.names.Table()) {
		records[r.Partition]++
		unsealed[r.Partition]++
		if !IsPositionKey(r.Key) {
			continue
		}
		unsealed[r.Partition] = 0
		pos, err := ParsePosition(r.Value)
		if err != nil {
			w.t.Fatalf("position record at %d of partition %d: %v", r.Offset, r.Partition, err)
		}
		before := last[r.Partition]
		if pos.Seq != before.Seq+1 || pos.Records != records[r.Partition] || pos.Partition != r.Partition {
			w.t.Errorf("partition %d at %d: commit %d of partition %d with %d records, want commit %d with %d",
				r.Partition, r.Offset, pos.Seq, pos.Partition, pos.Records, before.Seq+1, records[r.Partition])
		}
		for _, src := range before.Sources {
			if now := pos.Source(src.Topic); now == nil || now.Next < src.Next {
				w.t.Errorf("partition %d: commit %d goes back from %+v to %+v", r.Partition, pos.Seq, src, now)
			}
		}
		last[r.Partition] = *pos
	}
	for p, n := range unsealed {
		if n > 0 {
			w.t.Errorf("partition %d ends with %d records that no position record seals", p, n)
		}
	}
	return last
}

func TestProtect_APositionRecordSealsEachCommit(t *testing.T) {
	w := newWorld(t, startFake(t), 2)
	w.produce(1000, 50)
	cfg := w.config("a", t.TempDir())
	cfg.BatchRecordsMax, cfg.CatchUpLag = 20, 1<<40
	for range 2 { // the second goes on from local state
		u, stop := w.run(cfg)
		for range 5 {
			w.produce(100, 50)
			w.caughtUp(u)
		}
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
	}
	for p, pos := range w.positions() {
		if pos.Seq < 5 {
			t.Errorf("partition %d: %d commits, want several", p, pos.Seq)
		}
	}
	w.check()
}

// forgettingCodec has deletions: a nil value is a tombstone.
type forgettingCodec struct{ sumCodec }

func (c forgettingCodec) Encode(key string, v any, write func(key, value []byte)) error {
	if v == nil {
		write([]byte(key), nil)
		return nil
	}
	return c.sumCodec.Encode(key, v, write)
}

// forgettingHandler adds up, and deletes the key where a record says 0.
func forgettingHandler(names Names) func(int32) Handler {
	return func(p int32) Handler {
		add := sumHandler(names)(p)
		return func(w *Work, msg *sarama.ConsumerMessage) error {
			if binary.BigEndian.Uint64(msg.Value) == 0 {
				w.Put(string(msg.Key), nil)
				return nil
			}
			return add(w, msg)
		}
	}
}

// Local state that others went on from meanwhile is continued from its offset: what they changed and deleted
// is in it afterwards, whether it was read back or flushed.
func TestProtect_LocalStateCatchesUpWithWhatOthersDid(t *testing.T) {
	w := newWorld(t, startFake(t), 1)
	config := func(instance, dir string) Config {
		cfg := w.config(instance, dir)
		cfg.Codec, cfg.NewHandler = forgettingCodec{}, forgettingHandler(w.names)
		return cfg
	}
	write := func(key string, value uint64) {
		t.Helper()
		r := &kgo.Record{Topic: w.input, Key: []byte(key), Value: binary.BigEndian.AppendUint64(nil, value)}
		if err := w.cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatalf("produce: %v", err)
		}
	}
	dirs := map[string]string{"a": t.TempDir(), "b": t.TempDir()}
	turn := func(instance string, fresh bool, work func()) {
		t.Helper()
		work()
		u, stop := w.run(config(instance, dirs[instance]))
		w.caughtUp(u)
		if rebuilt := u.Status()[0].Rebuilt; (rebuilt != "") != fresh {
			t.Errorf("%s: local state was begun anew: %q, want anew: %t", instance, rebuilt, fresh)
		}
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
	}
	turn("a", true, func() { write("kept", 1); write("deleted", 10); write("again", 100) })
	turn("b", true, func() { write("kept", 2); write("deleted", 0); write("again", 0) })
	turn("a", false, func() { write("kept", 4); write("again", 200) })
	turn("b", false, func() { write("kept", 8); write("deleted", 20) })
	got := map[string]uint64{}
	for _, r := range w.readAll(w.names.Table()) {
		if delete(got, string(r.Key)); r.Value != nil && !IsPositionKey(r.Key) {
			got[string(r.Key)] = binary.BigEndian.Uint64(r.Value)
		}
	}
	for key, want := range map[string]uint64{"kept": 15, "deleted": 20, "again": 200} {
		if got[key] != want {
			t.Errorf("%q is %d, want %d", key, got[key], want)
		}
	}
}
