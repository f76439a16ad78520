package processor

import (
	"context"
	"errors"
	"time"

	"github.com/tidemark/tidemark/eos"
)

// loopTrimInterval is how often applied loop records are deleted.
const loopTrimInterval = 30 * time.Second

// watch does what happens beside the events: it trims the loop, and, if asked for, waits until the job
// is caught up, whereupon it returns. Its error ends Run.
func (p *Processor) watch(ctx context.Context) error {
	trimmed := make(chan struct{})
	defer func() { <-trimmed }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(trimmed)
		p.trimLoop(ctx)
	}()
	if !p.cfg.UntilCaughtUp {
		<-ctx.Done()
		return nil
	}
	for {
		err := p.unit.WaitCaughtUp(ctx)
		var stop *eos.FailStop
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			p.log.Info("caught up: every input record that was there at the start is committed")
			return nil
		case errors.As(err, &stop):
			return err
		}
		p.log.Warn("cannot tell yet whether the job is caught up", "cause", err)
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

func (p *Processor) trimLoop(ctx context.Context) {
	for pause(ctx, loopTrimInterval) {
		if err := p.unit.TrimLoop(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("trimming the loop topic; it is tried again", "cause", err)
		}
	}
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
