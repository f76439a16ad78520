package chaos

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"time"
)

// orderWithin is the patience with an order's step. Commits come many times a second, but none while a broker is away, and a
// takeover waits for the group.
const orderWithin = time.Minute

// stepKinds are the faults that order a process to stop or die at a step: they are none where it does not come by it.
var stepKinds = []string{kindFreezeIn, kindKillIn, kindFreezeTakeover, kindZombie}

// step is one of the steps, by the fault's seed.
func (f *fault) step(steps []string) string { return steps[f.seed%uint64(len(steps))] }

// ordered is an order that was given to the process of a slot.
type ordered struct {
	slot   *slot
	begun  int64 // the length of its log before
	obeyed bool
}

// said tells whether the process has logged something since it was given the order.
func (o *ordered) said(what string) bool {
	log, err := o.slot.logSince(o.begun)
	return err == nil && bytes.Contains(log, []byte(what))
}

// order has the process obey at the step, and returns when it has, or is gone, or has not come by the step for long. The order
// stands when begin begins the process; nil: it is up.
func (r *run) order(ctx context.Context, f fault, s *slot, what, step string, begin func() error) (*ordered, error) {
	begun, err := s.logged()
	if err != nil {
		return nil, err
	}
	o := &ordered{slot: s, begun: begun}
	if err := s.order(what, step); err != nil {
		return nil, err
	}
	if begin != nil {
		if err := begin(); err != nil {
			return nil, err
		}
	}
	waitFor(ctx, orderWithin, func() bool {
		gone := s.pid() == 0 // asked first: the last thing that it does may be to obey
		o.obeyed = o.said("msg=" + obeying)
		return o.obeyed || gone
	})
	if !o.obeyed {
		r.say("  %s has not come by %q", s.task.Instance, step)
		return o, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Obeyed[f.kind]++
	return o, nil
}

// release withdraws an order to stop, and has the process go on that has obeyed it.
func (r *run) release(ctx context.Context, o *ordered) error {
	r.mark(markThaw)
	r.say("  %s thaws", o.slot.task.Instance)
	if err := o.slot.order("", ""); err != nil {
		return err
	}
	if !o.obeyed { // it may at the last moment
		if err := pause(ctx, time.Second); err != nil {
			return nil // the end of the run kills it
		}
	}
	return o.slot.signal(syscall.SIGCONT)
}

// freezeAt freezes the process at the step, for as long as the fault lasts from there on.
func (r *run) freezeAt(ctx context.Context, f fault, s *slot, step string, begin func() error) error {
	o, err := r.order(ctx, f, s, orderStop, step, begin)
	if err != nil {
		return err
	}
	if o.obeyed {
		if err := pause(ctx, f.lasts); err != nil {
			return nil // the end of the run kills it
		}
	}
	return r.release(ctx, o)
}

// killAt has the process kill itself at the step, and kills it where it does not come by the step.
func (r *run) killAt(ctx context.Context, f fault, s *slot, step string) error {
	s.mu.Lock()
	s.meant = true
	s.mu.Unlock()
	_, err := r.order(ctx, f, s, orderKill, step, nil)
	if err != nil {
		return err
	}
	return errors.Join(s.end(syscall.SIGKILL, stopWithin), s.order("", ""))
}
