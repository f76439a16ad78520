package client

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// endpoint is a view that may be asked.
type endpoint struct {
	url string
	rpc tidemarkv1connect.ViewClient

	begun    time.Time    // what avoid is counted from
	failures atomic.Int32 // since it last answered
	avoid    atomic.Int64 // until then others are asked first; 0 is never
}

// avoided is for how long others are still to be asked first.
func (v *endpoint) avoided() time.Duration {
	if until := v.avoid.Load(); until != 0 {
		return max(time.Duration(until)-time.Since(v.begun), 0)
	}
	return 0
}

// How long a view is passed over that cannot be reached: longer with each failure.
const (
	avoidFirst = 100 * time.Millisecond
	avoidMax   = 10 * time.Second
)

// well notes that a view has answered.
func (v *endpoint) well() {
	if v.avoid.Load() != 0 {
		v.failures.Store(0)
		v.avoid.Store(0)
	}
}

// note notes a failure. What is the request's fault, or says nothing of other requests, is none of the view's.
func (v *endpoint) note(e *Error) {
	var d time.Duration
	switch e.kind {
	case ErrUnreachable, ErrInternal:
		n := v.failures.Add(1)
		d = avoidFirst<<min(n-1, 10) + backoff(1, avoidFirst, avoidFirst)
	case ErrNotReady, ErrTooOld, ErrLate, ErrRateLimited:
		d = max(e.RetryAfter, time.Second)
	default:
		v.well()
		return
	}
	v.avoid.Store(int64(time.Since(v.begun) + min(d, avoidMax)))
}

// pick gives the view to ask: the next in turn that is well and not among tried; else the one that is to be well first.
func (c *Client) pick(tried []*endpoint) *endpoint {
	if len(c.views) == 1 {
		return c.views[0]
	}
	begin := int(c.next.Add(1) % uint32(len(c.views)))
	var best *endpoint
	var least time.Duration
	for i := range c.views {
		v := c.views[(begin+i)%len(c.views)]
		rank := v.avoided()
		if slices.Contains(tried, v) { // after all others
			rank += time.Hour
		}
		if best == nil || rank < least {
			best, least = v, rank
		}
		if least == 0 {
			break
		}
	}
	return best
}

// call is what one request asks of the loop of attempts.
type call[Res any] struct {
	on *endpoint // nil: any
	// wait is what the view is asked to wait, beyond the time of an attempt.
	wait time.Duration
	do   func(context.Context, tidemarkv1connect.ViewClient) (*Res, error)
	// again tells whether a failure may be followed by another attempt.
	again func(*Error) bool
}

// ask makes a request, and again, on another view where there is one, when that may help and the budget has it. asked is
// when the attempt began that was answered.
func ask[Res any](ctx context.Context, c *Client, q *call[Res]) (res *Res, by *endpoint, asked time.Time, err error) {
	c.budget.deposit()
	var tried []*endpoint
	for attempt := 1; ; attempt++ {
		if by = q.on; by == nil {
			by = c.pick(tried)
		}
		asked = time.Now()
		res, err := attemptOn(ctx, c, by, q)
		if err == nil {
			by.well()
			return res, by, asked, nil
		}
		failure := failureOf(ctx, by, err)
		by.note(failure)
		if failure.kind == ErrWrongPartition {
			c.partitions.Store(0) // as far as the client knows it
		}
		if !q.again(failure) || attempt >= c.cfg.AttemptsMax || !c.budget.take() {
			return nil, by, asked, failure
		}
		tried = append(tried, by)
		if !pause(ctx, c.delay(q.on, tried, failure, attempt)) {
			return nil, by, asked, failure
		}
	}
}

func attemptOn[Res any](ctx context.Context, c *Client, v *endpoint, q *call[Res]) (*Res, error) {
	limit := c.cfg.Timeout + q.wait
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > limit {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return q.do(ctx, v.rpc)
}

// delay is how long to wait before the next attempt: not at all where another view is well.
func (c *Client) delay(on *endpoint, tried []*endpoint, e *Error, attempt int) time.Duration {
	if on == nil {
		for _, v := range c.views {
			if v.avoided() == 0 && !slices.Contains(tried, v) {
				return 0
			}
		}
	}
	d := backoff(attempt, backoffFirst, backoffMax)
	if e.RetryAfter > 0 {
		d += min(e.RetryAfter, waitMax)
	}
	return d
}

// readAgain tells what a read may be asked again for: nothing that it asks changes anything.
func readAgain(e *Error) bool {
	switch e.kind {
	case ErrUnreachable, ErrNotReady, ErrTooOld, ErrRateLimited, ErrInternal:
		return e.RetryAfter <= waitMax
	}
	return false // also ErrLate: its time is used up
}
