package chaos

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/twmb/franz-go/pkg/kadm"
)

// oneStays ends all processors but the first. Those of stock Goka can keep each other out for ever where the machine is slow: each
// joins the group alone, while the other has lost its place and waits some seconds to join again.
func (r *run) oneStays() {
	for _, s := range r.slots[1:] {
		s.wanted.Store(false)
		s.op.Lock()
		if err := s.end(syscall.SIGTERM, stopWithin); err != nil {
			r.blame(err)
		}
		s.op.Unlock()
	}
}

// drain waits until the group has committed everything that lies in the input and the loop.
func (r *run) drain(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, drainWithin)
	defer stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	left, err := "", error(nil)
	for {
		// The loop is looked at after the input is done: only then does nothing come into it any more.
		if left, err = r.left(ctx, r.rules.Job().Input.Topic); err == nil && left == "" {
			if r.cfg.Subject == Stock {
				return nil
			}
			if left, err = r.left(ctx, r.names.Loop()); err == nil && left == "" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not drained within %v: %s: %w", drainWithin, left, err)
		case <-tick.C:
		}
	}
}

// left names a partition in which something is left, "" if there is none.
func (r *run) left(ctx context.Context, topic string) (string, error) {
	ends, err := eos.Ends(ctx, r.client, topic)
	if err != nil {
		return "", err
	}
	adm := kadm.NewClient(r.client)
	offsets, err := adm.FetchOffsets(ctx, r.names.Group())
	if err != nil {
		return "", err
	}
	for p, span := range ends {
		o, ok := offsets.Lookup(topic, p)
		if ok && o.At >= span.LSO {
			continue
		}
		last, some, err := eos.LastDeliverable(ctx, r.kafka, topic, p, span)
		if err != nil {
			return "", err
		}
		if some && (!ok || o.At <= last) {
			return fmt.Sprintf("%s/%d is committed to %d of %d", topic, p, o.At, last+1), nil
		}
	}
	return "", nil
}
