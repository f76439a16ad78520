package eos

import (
	"context"
	"fmt"
)

// RefreshEnds looks up how far the sources of the owned partitions reach, for Status. A consumer learns of that only with
// the records it gets: not that an open transaction holds more back, and not that the tail is but markers and aborted
// records, at which it would seem to wait for ever. The tail is read only where nothing has moved since the call before.
//
// It is a *FailStop where input and loop no longer have the same number of partitions: somebody added some, and keys live
// elsewhere since.
func (u *Unit) RefreshEnds(ctx context.Context) error {
	input, err := u.admin.ends(ctx, u.cfg.Input)
	if err != nil {
		return err
	}
	loop, err := u.admin.ends(ctx, u.cfg.Names.Loop())
	if err != nil {
		return err
	}
	if len(input) != len(loop) {
		stop := failStop(fmt.Sprintf("input %s has %d partitions now, but the job was made for %d", u.cfg.Input, len(input), len(loop)),
			"partitions cannot be taken away again: give the job a new name so that it computes its state anew over all partitions")
		u.setFatal(stop)
		return stop
	}
	u.mu.Lock()
	s := u.session
	u.mu.Unlock()
	if s == nil {
		return nil
	}
	for _, p := range s.ordered {
		if err := u.refreshEnd(ctx, p, u.cfg.Input, input[p.id]); err != nil {
			return err
		}
		if err := u.refreshEnd(ctx, p, u.cfg.Names.Loop(), loop[p.id]); err != nil {
			return err
		}
	}
	return nil
}

// tail is what RefreshEnds has found out about a source: below lso, nothing is to be delivered from end on.
type tail struct {
	lso, end int64
	next     int64 // of the source, when it was looked at last
}

func (u *Unit) refreshEnd(ctx context.Context, p *partition, topic string, span Span) error {
	p.mu.Lock()
	if !p.running { // its sources are still being placed, without the lock
		p.mu.Unlock()
		return nil
	}
	src := p.source(topic)
	next, seen := src.next, src.tail
	p.mu.Unlock()
	switch {
	case seen.lso == span.LSO:
	case next < span.LSO && next == seen.next:
		last, ok, err := LastDeliverable(ctx, u.cfg.Kafka, topic, p.id, Span{Start: max(next, span.Start), LSO: span.LSO, HW: span.HW})
		if err != nil {
			return fmt.Errorf("find the end of %s/%d: %w", topic, p.id, err)
		}
		seen.lso, seen.end = span.LSO, next
		if ok {
			seen.end = last + 1
		}
	default:
		seen.lso, seen.end = -1, span.LSO
	}
	seen.next = next
	p.mu.Lock()
	defer p.mu.Unlock()
	src = p.source(topic)
	src.tail, src.highWater = seen, max(seen.end, src.next)
	return nil
}
