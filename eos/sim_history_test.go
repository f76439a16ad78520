//go:build simruntime

package eos

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tidemark/tidemark/internal/sim"
)

func (w *simWorld) count(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *simWorld) isDraining() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.draining
}

// done tells whether the history has had its crashes, or shown that something is wrong.
func (w *simWorld) done() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.crashed+w.freezes/4 >= w.plan.crashes || len(w.finds) > 0
}

// run lives through one history: faults until the crashes are used up, then peace until everything is counted, then the
// comparison.
func (w *simWorld) run() {
	w.c = sim.New(w.plan.cluster)
	for _, topic := range []string{w.input, w.names.Table(), w.names.Loop(), w.names.Flags(), w.names.DeadLetters()} {
		w.c.AddTopic(topic, w.plan.partitions)
	}
	stop := make(chan struct{})
	var slots []*simSlot
	var ghosts, living sync.WaitGroup
	for i := range w.plan.instances {
		s := &simSlot{w: w, name: string(rune('a' + i)), dir: w.newDir(""), stop: make(chan struct{})}
		slots = append(slots, s)
		living.Go(func() { s.live(&ghosts) })
	}
	var weather sync.WaitGroup
	weather.Go(func() { w.produceUntil(stop) })
	weather.Go(func() { w.breakBrokers(stop) })
	began := time.Now()
	for !w.done() {
		time.Sleep(100 * time.Millisecond)
		if time.Since(began) > 4*time.Hour {
			w.find("only %d crashes in 4 hours", w.crashed)
		}
	}
	close(stop)
	weather.Wait()
	w.count(func() { w.draining = true })
	w.c.StopFaults()
	for id := range w.plan.cluster.Brokers {
		w.c.StartBroker(id)
	}
	w.drain()
	for _, s := range slots {
		close(s.stop)
	}
	living.Wait()
	ghosts.Wait()
	w.check()
	for _, s := range slots {
		w.checkLocalState(s)
	}
	w.c.Close()
	time.Sleep(time.Minute) // what sarama leaves behind ends by itself
	if w.lines != nil {
		_ = w.lines.Close()
	}
}

func (w *simWorld) produceUntil(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(w.exponential(w.plan.between)):
			w.produce()
		}
	}
}

func (w *simWorld) breakBrokers(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(w.exponential(w.plan.brokers)):
		}
		w.mu.Lock()
		id, what, back := w.rng.Int32N(w.plan.cluster.Brokers), w.rng.IntN(3), time.Duration(w.rng.ExpFloat64()*5e9)
		w.brokers++
		w.mu.Unlock()
		if what > 0 {
			w.trace(w.c.MoveRole(w.rng))
		} else if w.c.StopBroker(id) {
			w.trace(fmt.Sprintf("broker %d down for %v", id, back))
			time.AfterFunc(back, func() { w.c.StartBroker(id) })
		}
	}
}

// drainMax is far more than a takeover can need: session, transaction timeout and its sweep, several times.
const drainMax = 10 * time.Minute

// drain waits until the group has committed every event.
func (w *simWorld) drain() {
	began := time.Now()
	for !w.level() {
		if w.hasFinds() {
			return
		}
		if time.Since(began) > drainMax {
			w.find("not level with the input %v after the last fault", drainMax)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *simWorld) hasFinds() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.finds) > 0
}

// level asks for the input first: the loop gets its last records with the input's last offsets.
func (w *simWorld) level() bool {
	for _, topic := range []string{w.input, w.names.Loop()} {
		if !w.c.Quiet() {
			return false
		}
		for p := range w.plan.partitions {
			if offset, _ := w.c.Offset(w.names.Group(), topic, p); offset <= w.c.LastCommitted(topic, p) {
				return false
			}
		}
	}
	return w.c.Quiet()
}

// check compares everything that is committed with what must be.
func (w *simWorld) check() {
	got := map[string]*simTotals{}
	for p := range w.plan.partitions {
		w.checkTable(p, got)
	}
	for _, id := range slices.Sorted(maps.Keys(w.want)) {
		have, want := got[id], w.want[id]
		if have == nil {
			w.find("%s is not in the table, want %d events", id, want.count)
		} else if *have != *want {
			w.find("%s has count %d, sum %x, xor %x; want %d, %x, %x", id, have.count, have.sum, have.xor, want.count, want.sum, want.xor)
		}
	}
	if len(got) > len(w.want) {
		w.find("the table has %d IDs, want %d", len(got), len(w.want))
	}
	seen := map[uint64]int{}
	for p := range w.plan.partitions {
		for _, r := range w.c.Committed(w.names.Flags(), p) {
			seen[binary.BigEndian.Uint64(r.Value)]++
		}
	}
	lost, doubled := 0, 0
	for hash := range w.deliver {
		switch n := seen[hash]; {
		case n == 0:
			lost++
		case n > 1:
			doubled++
		}
	}
	if lost > 0 || doubled > 0 || len(seen) > len(w.deliver) {
		w.find("outputs: %d lost, %d doubled, %d of %d", lost, doubled, len(seen), len(w.deliver))
	}
}

// checkTable folds a partition of the table into got, and looks at its order: versions of an ID and positions never go
// back, each commit is one further than the one before, and the last one agrees with the group's offsets.
func (w *simWorld) checkTable(p int32, got map[string]*simTotals) {
	last := &Position{}
	for _, r := range w.c.Committed(w.names.Table(), p) {
		if !IsPositionKey(r.Key) {
			t, err := decodeTotals(r.Value)
			if err != nil {
				w.find("table %d@%d: %v", p, r.Offset, err)
				continue
			}
			if was := got[string(r.Key)]; was != nil && was.count >= t.count {
				w.find("table %d@%d: %s goes from version %d to %d", p, r.Offset, r.Key, was.count, t.count)
			}
			got[string(r.Key)] = t
			continue
		}
		pos, err := ParsePosition(r.Value)
		if err != nil {
			w.find("table %d@%d: %v", p, r.Offset, err)
			continue
		}
		if pos.Seq != last.Seq+1 {
			w.find("table %d@%d: commit %d follows commit %d", p, r.Offset, pos.Seq, last.Seq)
		}
		for _, src := range pos.Sources {
			if was := last.Source(src.Topic); was != nil && was.Next > src.Next {
				w.find("table %d@%d: position of %s goes from %d to %d", p, r.Offset, src.Topic, was.Next, src.Next)
			}
		}
		last = pos
	}
	for _, src := range last.Sources {
		offset, meta := w.c.Offset(w.names.Group(), src.Topic, p)
		m, err := ParseOffsetMetadata(meta)
		if offset != src.Next || err != nil || m.Seq != last.Seq {
			w.find("%s/%d: the group has offset %d of %q, the last position record %d of commit %d", src.Topic, p, offset, meta, src.Next, last.Seq)
		}
	}
}

// checkLocalState compares what an instance left on its disk with the table up to there.
func (w *simWorld) checkLocalState(s *simSlot) {
	for p := range w.plan.partitions {
		if err := w.compareDisk(s, p); err != nil {
			w.find("local state of %s, partition %d: %v", s.name, p, err)
		}
	}
}

func (w *simWorld) compareDisk(s *simSlot, p int32) error {
	dir := filepath.Join(s.dir, fmt.Sprintf("partition-%d", p))
	if _, err := os.Stat(dir); err != nil {
		return nil // it never owned the partition
	}
	records := w.c.Committed(w.names.Table(), p)
	if len(records) == 0 {
		return nil
	}
	id := DiskID{TableID: w.c.TopicID(w.names.Table()), Topic: w.names.Table(), Partition: p, Generation: 1, Digest: "d", Layout: "processor"}
	d, err := OpenDisk(dir, id, 0, time.Now(), DiskWriteBuffer(64<<10), DiskCache(64<<10))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	want := map[string][]byte{}
	for _, r := range records {
		if r.Offset < d.Next() && !IsPositionKey(r.Key) {
			want[string(r.Key)] = r.Value
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got, err := d.Get([]byte(key)); err != nil || !bytes.Equal(got, want[key]) {
			return fmt.Errorf("%s is %x (%v), want %x as of offset %d", key, got, err, want[key], d.Next())
		}
	}
	return nil
}
