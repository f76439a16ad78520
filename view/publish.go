package view

import (
	"fmt"
	"time"

	"github.com/tidemark/tidemark/eos"
)

// touchEvery is how often a level partition notes that its local state is young.
const touchEvery = time.Minute

// show publishes the state as it is on disk, which is that of a commit, and then tells those who watch. c is the commit
// where that is known.
func (p *partition) show(c *commit) error {
	snap, err := p.disk.Snapshot()
	if err != nil {
		return err
	}
	pos, _ := snap.Position()
	s := &published{snap: snap, position: pos, turn: p.turn.Load(), since: p.since}
	s.holders.Store(1)
	p.publish(s)
	return p.view.hub.follow(p.number, spot{snap.Next(), pos.Records}, c)
}

// publish makes s what readers see; nil is nothing.
func (p *partition) publish(s *published) {
	p.mu.Lock()
	was := p.current
	p.current = s
	p.mu.Unlock()
	if was != nil {
		was.release()
	}
	if p.view.waiting.Load() > 0 {
		p.view.look()
	}
}

// shows tells whether readers see the state at a spot, and as of when that is.
func (p *partition) shows(at spot, now time.Time) (a AsOf, ok bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.current == nil || at != (spot{p.current.snap.Next(), p.current.position.Records}) {
		return a, false
	}
	return p.asOf(p.current, now), true
}

// hold gives what is published; the caller releases it. It is an *Unavailable while the partition is not complete.
func (p *partition) hold() (*published, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.current == nil {
		return nil, &Unavailable{p.notReady()}
	}
	p.current.holders.Add(1)
	return p.current, nil
}

// reached follows every answer of the partition's leader: the first snapshot is published when loading is complete, and
// being level is noted.
func (p *partition) reached(b *eos.Batch) error {
	if !p.complete {
		return nil
	}
	p.mu.RLock()
	hidden := p.current == nil
	p.mu.RUnlock()
	if hidden {
		if err := p.show(nil); err != nil {
			return err
		}
		p.view.log.Info("complete", "partition", p.number, "table_offset", p.disk.Next())
	}
	if !b.Level() || len(p.pending) > 0 {
		return nil
	}
	p.view.hub.level(b)
	p.levelMu.Lock()
	p.level.table = b.Asked
	p.levelMu.Unlock()
	if b.Asked.Sub(p.touched) < touchEvery {
		return nil
	}
	p.touched = b.Asked
	return p.disk.Touch(b.Asked)
}

func (p *partition) ready() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.current == nil {
		return &Unavailable{p.notReady()}
	}
	return nil
}

func (p *partition) notReady() string {
	g := p.progress.Load()
	switch {
	case g == nil || g.target < 0:
		return fmt.Sprintf("partition %d has not heard from its leader yet", p.number)
	case g.next >= g.target:
		return fmt.Sprintf("partition %d has no commit yet: no processor of the job has started", p.number)
	}
	return fmt.Sprintf("partition %d is loading: table offset %d of %d", p.number, g.next, g.target)
}

// freshness tells how long ago the partition is known to have covered the input's end, and the table's; false is never.
func (p *partition) freshness(now time.Time) (age, tableAge time.Duration, known, tableKnown bool) {
	p.levelMu.Lock()
	defer p.levelMu.Unlock()
	return now.Sub(p.level.input), now.Sub(p.level.table), !p.level.input.IsZero(), !p.level.table.IsZero()
}

// ages is freshness as answers say it.
func (p *partition) ages(now time.Time) (age, tableAge time.Duration) {
	input, table, known, tableKnown := p.freshness(now)
	age, tableAge = NotKnown, NotKnown
	if known {
		age = max(input, 0)
	}
	if tableKnown {
		tableAge = max(table, 0)
	}
	return age, tableAge
}
