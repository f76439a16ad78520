package chaos

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"time"
)

// zombieWithin is the patience with a takeover, and with what comes of a commit afterwards.
const zombieWithin = 30 * time.Second

// answeredByKafka is a refusal that came from a broker. A commit that ended for another reason may not have been sent.
var answeredByKafka = regexp.MustCompile(`cause="[^"]*(PRODUCER_FENCED|INVALID_PRODUCER_EPOCH|INVALID_PRODUCER_ID_MAPPING|INVALID_TXN_STATE|` +
	`ILLEGAL_GENERATION|UNKNOWN_MEMBER_ID|FENCED_INSTANCE_ID|TRANSACTION_ABORTABLE)`)

// doZombie stops a process with a request of its commit ready, lets another take over and commit, and has the first go on: its
// request reaches a broker after its successor's Setup, and must be refused.
func (r *run) doZombie(ctx context.Context, f fault, s *slot) error {
	z := zombieSteps[f.seed%uint64(len(zombieSteps))]
	o, err := r.order(ctx, f, s, orderStop, z.step, nil)
	if err != nil {
		return err
	}
	since := time.Now()
	taken := o.obeyed && waitFor(ctx, zombieWithin, func() bool { return r.takenOver(s, since) })
	if err := r.release(ctx, o); err != nil {
		return err
	}
	if !taken || !waitFor(ctx, zombieWithin, func() bool { return o.said(zombieSent) }) {
		r.say("  %s: no zombie, stopped %t, taken over %t", s.task.Instance, o.obeyed, taken)
		return nil
	}
	log, err := s.logSince(o.begun)
	if err != nil {
		return err
	}
	accepted := bytes.Contains(log, []byte("outcome="+zombieAccepted))
	if !accepted && !answeredByKafka.Match(log) {
		r.say("  %s: its commit at %q ended before it was sent", s.task.Instance, z.step)
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Zombies[z.step]++
	if accepted {
		r.report.ZombiesAccepted++
		r.report.blame(fmt.Errorf("%s: a commit stopped %s was accepted after another had taken over", s.task.Instance, z.step))
	}
	return nil
}

// takenOver tells whether every partition has a commit since then, by another than the slot's process: what was the process's own
// by then, in its very first commit too, no other could commit before its own Setup.
func (r *run) takenOver(s *slot, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, owner := range r.owners {
		if owner == r.names.TransactionalID(s.task.Instance) || !r.commits[p].After(since) {
			return false
		}
	}
	return len(r.owners) == r.cfg.Partitions
}

// waitFor asks until the answer is yes, and says whether it came.
func waitFor(ctx context.Context, patience time.Duration, yes func() bool) bool {
	for deadline := time.Now().Add(patience); !yes(); {
		if time.Now().After(deadline) || pause(ctx, 20*time.Millisecond) != nil {
			return false
		}
	}
	return true
}
