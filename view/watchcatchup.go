package view

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

const (
	// passesMax is how many passes read the table at once; each has two answers of passBytes for each leader in memory.
	passesMax = 4
	passBytes = 2 << 20
	// nearRecords is how far behind a watcher may be without making others wait.
	nearRecords = 10_000
	// likeness is how many times further behind than another a watcher may be and share a pass with it.
	likeness = 4
	// catchUpAgain is when a pass that failed is tried again.
	catchUpAgain = 500 * time.Millisecond
)

// catchUp brings watchers that are behind level with the feeds, until ctx ends. Those who are about as far behind share a
// pass over the table.
func (h *hub) catchUp(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
		for p := h.nextPass(); p != nil; p = h.nextPass() {
			running.Go(func() {
				err := p.run(ctx)
				p.end(ctx, err)
			})
		}
	}
}

// nextPass takes the watcher that has waited longest and those who are about as far behind; nil where there is none, or
// enough passes are running.
func (h *hub) nextPass() *pass {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.waiting) > 0 && !h.waiting[0].waiting {
		h.waiting = h.waiting[1:]
	}
	if len(h.waiting) == 0 || h.passes == passesMax {
		return nil
	}
	behind := h.behind(h.waiting[0])
	p := &pass{hub: h, members: map[*Watcher]struct{}{}, drained: make(chan struct{}, 1), starts: map[int32]int64{}, gathered: map[int32]*gathering{}}
	left := h.waiting[:0]
	for _, w := range h.waiting {
		if !w.waiting {
			continue
		}
		if n := h.behind(w); n > likeness*behind+nearRecords || n < behind/likeness-nearRecords {
			left = append(left, w)
			continue
		}
		w.waiting, w.pass = false, p
		p.members[w] = struct{}{}
		p.reach(w)
	}
	clear(h.waiting[len(left):])
	h.waiting = left
	h.passes++
	h.view.metrics.catchUps.Inc()
	return p
}

// reach has the pass begin early enough for a member. What was cut away before the log's start is missed when the records
// are counted.
func (p *pass) reach(w *Watcher) {
	for i := range w.seats {
		partition := w.first + int32(i)
		s, f := &w.seats[i], &p.hub.feeds[partition]
		if s.live || !f.up {
			continue
		}
		if start, ok := p.starts[partition]; !ok || s.next < start {
			p.starts[partition] = max(s.next, f.start)
		}
	}
}

// behind tells how many offsets a watcher lacks.
func (h *hub) behind(w *Watcher) (n int64) {
	for i := range w.seats {
		if s := &w.seats[i]; !s.live {
			n += max(0, h.feeds[w.first+int32(i)].at.next-s.next)
		}
	}
	return n
}

// pass reads the table once, from the least of its members' places to where the feeds are, and tells the members.
type pass struct {
	hub      *hub
	members  map[*Watcher]struct{} // guarded by hub.mu, as Watcher.pass
	drained  chan struct{}         // holds one: a member that was full takes again
	starts   map[int32]int64       // of the partitions that are still read
	gathered map[int32]*gathering
	state    codecs.State // scratch
}

func (p *pass) signal() {
	select {
	case p.drained <- struct{}{}:
	default:
	}
}

// run reads until all partitions are where the feeds are, or nobody is left.
func (p *pass) run(ctx context.Context) error {
	cfg := &p.hub.view.cfg
	r, err := eos.NewReader(cfg.Kafka, cfg.Names.Table(), maps.Clone(p.starts), eos.ReaderTopicID(p.hub.origin.tableID), eos.ReaderBytes(passBytes))
	if err != nil {
		return err
	}
	defer r.Close()
	for partition := range p.starts {
		p.gathered[partition] = &gathering{}
	}
	for len(p.starts) > 0 && !p.left() {
		polled, cancel := context.WithTimeout(ctx, time.Second) // so that members who left are noticed
		batches, err := r.Poll(polled)
		cancel()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return err
		}
		for i := range batches {
			if err := p.take(ctx, &batches[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// left tells that nobody needs the pass any more.
func (p *pass) left() bool {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	return len(p.members) == 0
}

// take tells the members of the commits in one answer.
func (p *pass) take(ctx context.Context, b *eos.Batch) error {
	cfg := &p.hub.view.cfg
	for _, r := range b.Records {
		if _, ok := p.starts[b.Partition]; !ok {
			return nil
		}
		g := p.gathered[b.Partition]
		g.offsets = append(g.offsets, r.Offset)
		if eos.IsPositionKey(r.Key) {
			pos, err := eos.ParsePosition(r.Value)
			if err != nil {
				return fmt.Errorf("position record %s/%d@%d: %w", r.Topic, b.Partition, r.Offset, err)
			}
			if err := p.tell(ctx, g.end(b.Partition, cfg.Input, r.Offset+1, pos)); err != nil {
				return err
			}
		} else if eos.IsUserKey(r.Key) && partitionOf(string(r.Key), p.hub.origin.partitions) == b.Partition {
			g.add(r.Offset, string(r.Key), r.Value)
		}
	}
	return nil
}

// tell tells every member of a commit. A member whose queue is full leaves, to be caught up by a later pass when it has
// taken something; where all are full, the pass waits for them, as long as nobody waits for the pass.
func (p *pass) tell(ctx context.Context, c *commit) error {
	full, all, err := p.tellOnce(c)
	for err == nil && len(full) > 0 {
		if !all || !p.await(ctx) {
			p.release(full)
			break
		}
		full, all, err = p.tellOnce(c)
	}
	p.told(c)
	return err
}

// told ends the reading of a partition with the commit that its feed stands behind. Nothing more may come of a quiet one, and a
// member that has to wait for another partition would wait for this pass.
func (p *pass) told(c *commit) {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.end.next >= h.feeds[c.asOf.Partition].at.next {
		p.arrive(c.asOf.Partition)
	}
}

// tellOnce gives the members whose queues are full, and whether all are.
func (p *pass) tellOnce(c *commit) (full []*Watcher, all bool, err error) {
	h, partition := p.hub, c.asOf.Partition
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &h.feeds[partition]
	if !f.up || c.end.next > f.at.next {
		p.arrive(partition)
		return nil, false, nil
	}
	if c.flagsOf, err = p.flags(c); err != nil {
		return nil, false, err
	}
	c.stored = func(t *told) ([]byte, error) { return strip(t.value, &p.state, h.view.cfg.Schema) }
	routed, err := h.route(c, true)
	if err != nil {
		return nil, false, err
	}
	tooOld := time.Now().Add(-h.cfg.Horizon).UnixMilli()
	for w := range p.members {
		s := w.seat(partition)
		switch {
		case s == nil || s.live || s.next >= c.end.next:
			continue
		case c.committedMs < tooOld:
			h.gone(w, fmt.Sprintf("what follows the place is older than %s", h.cfg.Horizon))
			continue
		}
		if _, isFull := h.pass(w, s, c, routed[w.subject]); isFull {
			full = append(full, w)
		} else if w.pass == p && s.next >= f.at.next {
			h.seatAll(w)
		}
	}
	return full, len(full) == len(p.members), nil
}

// arrive ends the reading of a partition whose feed has been reached: every member has been told of all before it.
func (p *pass) arrive(partition int32) {
	h := p.hub
	delete(p.starts, partition)
	for w := range p.members {
		if s := w.seat(partition); s != nil && !s.live && h.feeds[partition].up {
			h.seatAll(w)
		}
	}
}

// await waits until a member takes again; false is that others wait for the pass, or that it is to end.
func (p *pass) await(ctx context.Context) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-p.drained:
			return true
		case <-tick.C:
			h := p.hub
			h.mu.Lock()
			contended, left := len(h.waiting) > 0 && h.passes == passesMax, len(p.members) == 0
			h.mu.Unlock()
			if contended || left {
				return false
			}
		}
	}
}

// release lets members go that are full; they wait again when they have taken something.
func (p *pass) release(full []*Watcher) {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range full {
		if w.pass != p {
			continue
		}
		delete(p.members, w)
		w.pass = nil
		h.seatAll(w)
	}
}

// flags gives what tells the flags of the IDs of a commit. Which flags it cleared, the log does not say, and the view
// remembers (clears.go).
func (p *pass) flags(c *commit) (func(*told) (was, is []bool, err error), error) {
	h, partition := p.hub, c.asOf.Partition
	flags := h.view.cfg.Schema.Flags
	cleared := make(map[int64][]bool)
	for i, flag := range flags {
		s := h.subjects[subjectKey{withFlag, flag}]
		if s == nil || s.catching == 0 || len(c.told) == 0 {
			continue
		}
		offsets, err := h.view.all()[partition].clearedBetween(flag, c.told[0].offset, c.told[len(c.told)-1].offset)
		if err != nil {
			return nil, err
		}
		for _, offset := range offsets {
			if cleared[offset] == nil {
				cleared[offset] = make([]bool, len(flags))
			}
			cleared[offset][i] = true
		}
	}
	return func(t *told) (was, is []bool, err error) {
		if t.value != nil {
			if err := p.state.UnmarshalBinary(t.value, h.view.cfg.Schema); err != nil {
				return nil, nil, err
			}
			is = raised(&p.state)
		}
		return cleared[t.offset], is, nil
	}, nil
}

// end lets the members go on: to wait for another pass, where they are not level.
func (p *pass) end(ctx context.Context, err error) {
	h := p.hub
	if err != nil && ctx.Err() == nil {
		h.view.log.Warn("reading the table for watchers that resume; it is tried again", "cause", err)
		select {
		case <-ctx.Done():
		case <-time.After(catchUpAgain):
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passes--
	for w := range p.members {
		w.pass = nil
		h.seatAll(w)
	}
	h.signal()
}
