package guard

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// client is whom limits count for.
type client struct {
	rate     *rate.Limiter // nil: none
	failures *rate.Limiter
	requests atomic.Int64 // under way
	checks   atomic.Int64 // of an address: its tokens that wait for the issuer
}

// clients is a table of them with a bound. Who is forgotten has nothing left to be held against: nobody gets new allowances
// by pushing others, or himself, out of the table. When it is full of clients at work, the next ones share one entry.
type clients[K comparable] struct {
	limits *Limits

	mu    sync.Mutex // guards the fields below
	all   map[K]*client
	rest  *client
	swept time.Time
}

func newClients[K comparable](limits *Limits) *clients[K] {
	c := &clients[K]{limits: limits, all: map[K]*client{}}
	c.rest = c.newClient()
	return c
}

func (c *clients[K]) newClient() *client {
	one := &client{failures: rate.NewLimiter(rate.Limit(c.limits.ClientFailures), max(1, int(5*c.limits.ClientFailures)))}
	if c.limits.ClientRate > 0 {
		one.rate = rate.NewLimiter(rate.Limit(c.limits.ClientRate), c.limits.ClientBurst)
	}
	return one
}

func (c *clients[K]) of(key K, now time.Time) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.all[key]; known != nil {
		return known
	}
	if len(c.all) >= c.limits.ClientsMax && !c.sweep(now) {
		return c.rest
	}
	fresh := c.newClient()
	c.all[key] = fresh
	return fresh
}

// sweepEvery bounds what a full table costs.
const sweepEvery = time.Second

// sweep forgets those who are as if they had never come, and tells whether there is room.
func (c *clients[K]) sweep(now time.Time) bool {
	if now.Sub(c.swept) < sweepEvery {
		return false
	}
	c.swept = now
	for key, one := range c.all {
		if one.requests.Load() == 0 && one.checks.Load() == 0 && full(one.failures, now) && full(one.rate, now) {
			delete(c.all, key)
		}
	}
	return len(c.all) < c.limits.ClientsMax
}

func full(l *rate.Limiter, now time.Time) bool {
	return l == nil || l.TokensAt(now) >= float64(l.Burst())
}
