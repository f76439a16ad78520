package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// budget bounds retries: a fraction of the requests, and a burst. It is a token bucket into which each request puts a little
// and from which each retry takes one, as in Finagle's RetryBudget.
type budget struct {
	ratio, most float64

	mu   sync.Mutex // guards left
	left float64
}

func (b *budget) deposit() {
	b.mu.Lock()
	b.left = min(b.left+b.ratio, b.most)
	b.mu.Unlock()
}

func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// backoff is how long to wait before the n-th retry, 1 being the first: exponential, with full jitter, so that clients which
// failed together do not come back together.
func backoff(n int, first, most time.Duration) time.Duration {
	ceiling := most
	if n < 30 && first<<(n-1) < most {
		ceiling = first << (n - 1)
	}
	return time.Duration(rand.Int64N(int64(ceiling))) + 1
}

const (
	backoffFirst = 50 * time.Millisecond
	backoffMax   = 2 * time.Second
	// waitMax is how long a retry waits at most for the time that a view named.
	waitMax = 30 * time.Second
)

// pause waits, unless the context ends within that time: then it is false at once.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
