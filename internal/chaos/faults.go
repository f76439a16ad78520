package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"
)

// moreFaults is how many follow at once where the planned ones are done and something is still awaited.
const moreFaults = 10

// injectAll does the faults of the plan, and more for as long as there were too few token reads: all of them happen among faults.
// It gives up when none comes for a while after a round, and the report tells.
func (r *run) injectAll(ctx context.Context) error {
	err := r.inject(ctx, plan(&r.cfg))
	for more := r.cfg; err == nil && r.tally != nil; {
		before := r.tally.count()
		if before >= r.cfg.TokenReads {
			return nil
		}
		more.Seed, more.Faults = more.Seed+1, moreFaults
		if err = r.inject(ctx, plan(&more)); !waitFor(ctx, drainWithin, func() bool { return r.tally.count() > before }) {
			return err
		}
	}
	return err
}

// inject does faults and returns when every processor that belongs there is up again, and every broker.
func (r *run) inject(ctx context.Context, faults []fault) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var doing sync.WaitGroup
	defer doing.Wait()
	begin := func(do func() error) {
		doing.Go(func() {
			if err := do(); err != nil {
				stop(err)
			}
		})
	}
	for i, f := range faults {
		if err := pause(ctx, f.wait); err != nil {
			return context.Cause(ctx)
		}
		if err := r.begin(ctx, i+1, f, begin); err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
	doing.Wait()
	return context.Cause(ctx)
}

// begin begins a fault when its victim may have it.
func (r *run) begin(ctx context.Context, n int, f fault, begin func(func() error)) error {
	switch f.kind {
	case kindLeader, kindGroup, kindTransaction, kindController:
		return r.beginBroker(ctx, n, f, begin)
	case kindMore, kindFewer:
		f.kind = r.towards(f.kind)
	}
	among := r.slots
	if strings.HasPrefix(f.kind, ofViews) {
		among = r.views
	}
	s, err := r.victim(ctx, among, f.choice, f.kind == kindMore)
	if err != nil {
		return err
	}
	if err := r.settled(ctx); err != nil {
		s.op.Unlock()
		return err
	}
	as := f.kind
	if back(as) && r.wanted() == 1 {
		as += markAlone
	}
	r.mark(as)
	r.say("fault %d: %s: %s (pid %d) for %v", n, f.kind, s.task.Instance, s.pid(), f.lasts.Round(time.Millisecond))
	begin(func() error {
		defer s.op.Unlock()
		return r.do(ctx, f, s)
	})
	return nil
}

// back tells the kinds that are an end and a start at once.
func back(kind string) bool { return kind == kindRestart || kind == kindKillBack }

// wanted is how many processors there are to be.
func (r *run) wanted() (n int) {
	for _, s := range r.slots {
		if s.wanted.Load() {
			n++
		}
	}
	return n
}

// towards is the kind of scaling that is possible.
func (r *run) towards(kind string) string {
	switch r.wanted() {
	case 1:
		return kindMore
	case len(r.slots):
		return kindFewer
	default:
		return kind
	}
}

// victim waits for a processor that may have a fault, and locks it: an idle place where one more is asked for, else one that
// has none now, while another is up too, unless it is the only one.
func (r *run) victim(ctx context.Context, among []*slot, choice int, idle bool) (*slot, error) {
	for {
		var free []*slot
		wanted := 0
		for _, s := range among {
			if s.wanted.Load() == idle {
				continue
			}
			wanted++
			if s.op.TryLock() {
				free = append(free, s)
			}
		}
		var chosen *slot
		if len(free) > 1 || len(free) == wanted && wanted > 0 {
			chosen = free[choice%len(free)]
		}
		for _, s := range free {
			if s != chosen {
				s.op.Unlock()
			}
		}
		if chosen != nil {
			return chosen, nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// do does one fault to a locked slot. An error means that the harness failed, not the processor.
func (r *run) do(ctx context.Context, f fault, s *slot) error {
	s.harmed.Store(true)
	defer s.harmed.Store(false)
	switch f.kind {
	case kindCut, kindCutLink, kindDelay, kindHalfOpen, kindViewCut:
		return r.doNetwork(ctx, f, s)
	case kindZombie:
		return r.doZombie(ctx, f, s)
	case kindDiskFull, kindDiskSlow:
		return r.doDisk(ctx, f, s)
	case kindFreeze, kindViewFreeze:
		return errors.Join(s.signal(syscall.SIGSTOP), r.thaw(ctx, f, s))
	case kindFreezeIn:
		return r.freezeAt(ctx, f, s, f.step(commitSteps), nil)
	case kindMore:
		s.wanted.Store(true)
		return s.start(r.endedByItself(s))
	}
	if err := r.putDown(ctx, f, s); err != nil {
		return err
	}
	if f.kind == kindFewer {
		s.wanted.Store(false)
		return nil
	}
	if f.kind == kindFreezeTakeover {
		r.say("  %s starts again, to freeze at %q", s.task.Instance, f.step(takeoverSteps))
		return r.freezeAt(ctx, f, s, f.step(takeoverSteps), func() error { return s.start(r.endedByItself(s)) })
	}
	if err := pause(ctx, f.lasts); err != nil {
		return nil
	}
	if !back(f.kind) {
		r.mark(markRestart)
	}
	r.say("  %s starts again", s.task.Instance)
	return s.start(r.endedByItself(s))
}

// putDown ends the process as the fault has it, and does to its local state what belongs to the fault.
func (r *run) putDown(ctx context.Context, f fault, s *slot) error {
	var err error
	switch f.kind {
	case kindTerm, kindRestart, kindViewRestart, kindFewer, kindFreezeTakeover:
		err = s.end(syscall.SIGTERM, stopWithin)
	case kindKillIn:
		err = r.killAt(ctx, f, s, f.step(commitSteps))
	default:
		err = s.end(syscall.SIGKILL, stopWithin)
	}
	if err != nil {
		r.blame(err)
	}
	switch f.kind {
	case kindForget, kindViewForget:
		if err := s.forget(); err != nil {
			return fmt.Errorf("delete local state: %w", err)
		}
	case kindDamage, kindViewDamage:
		what, err := s.damage(f.seed)
		if err != nil {
			return fmt.Errorf("damage local state: %w", err)
		}
		r.say("  %s: %s", s.task.Instance, what)
	}
	return nil
}

// thaw lets a frozen process go on when it is time.
func (r *run) thaw(ctx context.Context, f fault, s *slot) error {
	if err := pause(ctx, f.lasts); err != nil {
		return nil // the end of the run kills it
	}
	r.mark(markThaw)
	r.say("  %s thaws", s.task.Instance)
	return s.signal(syscall.SIGCONT)
}

// endedByItself says what to do when a process of the slot ends without having been told to: that is a fault of Tidemark's, but
// goes on; stock Goka may.
func (r *run) endedByItself(s *slot) func(error) {
	return func(cause error) {
		err := fmt.Errorf("%s ended by itself: %v", s.task.Instance, cause)
		r.say("%v", err)
		if s.mayEnd.Load() {
			return // the fault starts it again
		}
		r.mu.Lock()
		r.report.OwnEnds++
		r.mu.Unlock()
		if r.cfg.Subject != Stock {
			r.blame(err)
		}
		time.Sleep(time.Second)
		s.op.Lock()
		defer s.op.Unlock()
		if r.over.Load() || s.pid() != 0 || !s.wanted.Load() {
			return
		}
		r.mark(markRestart)
		if err := s.start(r.endedByItself(s)); err != nil {
			r.blame(err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
