package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// The kinds of faults.
const (
	kindKill   = "kill -9"
	kindForget = "kill -9, state deleted"
	kindFreeze = "freeze"
	kindTerm   = "SIGTERM"
)

// What follows a fault; marks of the log alone.
const (
	markRestart = "restart"
	markThaw    = "thaw"
)

// fault is one fault as the seed has it.
type fault struct {
	kind   string
	wait   time.Duration // since the fault before it
	lasts  time.Duration // down or frozen
	choice int           // of the processor among those that may have it
}

// plan draws the faults. Every kind comes in turn, so that short runs have all of them.
func plan(cfg *Config) []fault {
	rng := rand.New(rand.NewPCG(cfg.Seed, 2))
	between := func(low, high time.Duration) time.Duration { return low + time.Duration(rng.Int64N(int64(high-low))) }
	var kinds []string
	faults := make([]fault, cfg.Faults)
	for i := range faults {
		if len(kinds) == 0 {
			kinds = []string{kindKill, kindFreeze, kindTerm, kindKill, kindFreeze, kindForget}
			rng.Shuffle(len(kinds), func(a, b int) { kinds[a], kinds[b] = kinds[b], kinds[a] })
		}
		f := fault{kind: kinds[0], wait: between(cfg.Every*4/10, cfg.Every*16/10), choice: rng.IntN(1 << 20)}
		kinds = kinds[1:]
		switch f.kind {
		case kindFreeze:
			f.lasts = between(cfg.Session*12/10, cfg.Session*22/10)
		case kindTerm:
			f.lasts = between(0, cfg.Session)
		default: // before the group has noticed, or after
			f.lasts = between(0, cfg.Session*2)
		}
		faults[i] = f
	}
	return faults
}

// inject does the faults and returns when every processor is up again.
func (r *run) inject(ctx context.Context) error {
	var doing sync.WaitGroup
	failed := make(chan error, r.cfg.Faults)
	defer doing.Wait()
	for i, f := range plan(&r.cfg) {
		if err := pause(ctx, f.wait); err != nil {
			return err
		}
		if r.cfg.Settle {
			if err := r.settled(ctx); err != nil {
				return err
			}
		}
		s, err := r.victim(ctx, f.choice)
		if err != nil {
			return err
		}
		r.mark(f.kind)
		r.say("fault %d: %s of %s (pid %d) for %v", i+1, f.kind, s.task.Instance, s.pid(), f.lasts.Round(time.Millisecond))
		doing.Go(func() {
			defer s.op.Unlock()
			if err := r.do(ctx, f, s); err != nil {
				failed <- err
			}
		})
	}
	doing.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// victim waits for a processor that may have a fault, and locks it: one that has none now, while another is up too, unless it
// is the only one.
func (r *run) victim(ctx context.Context, choice int) (*slot, error) {
	for {
		var free []*slot
		for _, s := range r.slots {
			if s.op.TryLock() {
				free = append(free, s)
			}
		}
		var chosen *slot
		if len(free) > 1 || len(free) == len(r.slots) {
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
	if f.kind == kindFreeze {
		if err := s.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		if err := pause(ctx, f.lasts); err != nil {
			return nil // the end of the run kills it
		}
		r.mark(markThaw)
		r.say("  %s thaws", s.task.Instance)
		return s.signal(syscall.SIGCONT)
	}
	sig := syscall.SIGKILL
	if f.kind == kindTerm {
		sig = syscall.SIGTERM
	}
	if err := s.end(sig, stopWithin); err != nil {
		r.blame(err)
	}
	if f.kind == kindForget {
		if err := s.forget(); err != nil {
			return fmt.Errorf("delete local state: %w", err)
		}
	}
	if err := pause(ctx, f.lasts); err != nil {
		return nil
	}
	r.mark(markRestart)
	r.say("  %s starts again", s.task.Instance)
	return s.start(r.endedByItself(s))
}

// endedByItself says what to do when a process of the slot ends without having been told to: that is a fault of Tidemark's, but
// goes on; stock Goka may.
func (r *run) endedByItself(s *slot) func(error) {
	return func(cause error) {
		err := fmt.Errorf("%s ended by itself: %v", s.task.Instance, cause)
		r.say("%v", err)
		r.mu.Lock()
		r.report.OwnEnds++
		r.mu.Unlock()
		if r.cfg.Subject == Tidemark {
			r.blame(err)
		}
		time.Sleep(time.Second)
		s.op.Lock()
		defer s.op.Unlock()
		if r.over.Load() || s.pid() != 0 {
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
