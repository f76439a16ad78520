package processor

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tidemark/tidemark/eos"
)

const (
	loopTrimInterval = 30 * time.Second // how often applied loop records are deleted
	endsInterval     = time.Second      // how often the ends of the sources are looked up, for the lag
)

// watch does what happens beside the events: it trims the loop, looks up the ends of the sources, and, if asked for, waits until the job
// is caught up, whereupon it returns and says so. Its error ends Run.
func (p *Processor) watch(ctx context.Context) (caughtUp bool, err error) {
	var regular sync.WaitGroup
	defer regular.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	regular.Go(func() {
		cancel(p.every(ctx, loopTrimInterval, "trimming the loop topic", p.unit.TrimLoop))
	})
	regular.Go(func() {
		cancel(p.every(ctx, endsInterval, "looking up the ends of the sources", p.unit.RefreshEnds))
	})
	if !p.cfg.UntilCaughtUp {
		<-ctx.Done()
		return false, stopOf(ctx)
	}
	for {
		err := p.unit.WaitCaughtUp(ctx)
		var stop *eos.FailStop
		switch {
		case ctx.Err() != nil:
			return false, stopOf(ctx)
		case err == nil:
			p.log.Info("caught up: every input record that was there at the start is committed")
			return true, nil
		case errors.As(err, &stop):
			return false, err
		}
		p.log.Warn("cannot tell yet whether the job is caught up", "cause", err)
		if !pause(ctx, time.Second) {
			return false, stopOf(ctx)
		}
	}
}

// stopOf is the fail-stop for which ctx ended, nil if there is none.
func stopOf(ctx context.Context) error {
	var stop *eos.FailStop
	if errors.As(context.Cause(ctx), &stop) {
		return stop
	}
	return nil
}

// every does it again and again until ctx ends, or until it answers a fail-stop, which is the error.
func (p *Processor) every(ctx context.Context, interval time.Duration, what string, do func(context.Context) error) error {
	for pause(ctx, interval) {
		err := do(ctx)
		var stop *eos.FailStop
		switch {
		case errors.As(err, &stop):
			return stop
		case err != nil && ctx.Err() == nil:
			p.log.Warn(what+"; it is tried again", "cause", err)
		}
	}
	return nil
}

// pause waits; it tells whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
