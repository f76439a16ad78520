package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// batchIDs is how many IDs a batch asks for.
const batchIDs = 100

// caller asks a service over a connection. Each answer is checked.
type caller interface {
	get(ctx context.Context, id int) error
	batch(ctx context.Context, ids []int) error
}

// session is some callers of a service, each with a connection to itself unless the protocol shares one.
type session struct {
	callers []caller
	close   func() error
}

// contender is a service, asked by one kind of client.
type contender struct {
	name   string
	server *process
	open   func(ctx context.Context, callers int) (*session, error)
}

// kind of load.
type kind struct {
	callers int
	batch   bool
}

func (k kind) String() string {
	what := "one ID a request"
	if k.batch {
		what = fmt.Sprintf("%d IDs a request", batchIDs)
	}
	if k.callers == 1 {
		return what + ", 1 caller"
	}
	return fmt.Sprintf("%s, %d callers", what, k.callers)
}

var kinds = []kind{{1, false}, {16, false}, {1, true}, {16, true}}

// figures are what one measurement came to.
type figures struct {
	perSecond      float64 // IDs
	p50, p99       time.Duration
	client, server float64 // us of CPU per ID
}

// warmUp is left out of the figures.
const warmUp = 200 * time.Millisecond

// measure asks a contender for a while.
func (b *bench) measure(ctx context.Context, c *contender, k kind, seed uint64) (f figures, err error) {
	s, err := c.open(ctx, k.callers)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := b.ask(ctx, s, k, seed, warmUp); err != nil {
		return f, err
	}
	before, err := readClocks(c.server)
	if err != nil {
		return f, err
	}
	took, err := b.ask(ctx, s, k, seed+1, b.slice)
	if err != nil {
		return f, err
	}
	after, err := readClocks(c.server)
	if err != nil {
		return f, err
	}
	reads := float64(len(took))
	if k.batch {
		reads *= batchIDs
	}
	slices.Sort(took)
	f.perSecond = reads / after.at.Sub(before.at).Seconds()
	f.p50, f.p99 = took[len(took)/2], took[len(took)*99/100]
	f.client = float64((after.own - before.own).Nanoseconds()) / 1e3 / reads
	f.server = float64((after.server - before.server).Nanoseconds()) / 1e3 / reads
	return f, nil
}

// clocks are read before and after.
type clocks struct {
	at          time.Time
	own, server time.Duration
}

func readClocks(server *process) (c clocks, err error) {
	if c.server, err = server.cpu(); err != nil {
		return c, err
	}
	c.own, err = ownCPU()
	c.at = time.Now()
	return c, err
}

// ask lets every caller ask for random IDs, and gives how long each request took.
func (b *bench) ask(ctx context.Context, s *session, k kind, seed uint64, length time.Duration) ([]time.Duration, error) {
	var (
		asking sync.WaitGroup
		took   = make([][]time.Duration, len(s.callers))
		errs   = make([]error, len(s.callers))
		end    = time.Now().Add(length)
	)
	for n, c := range s.callers {
		asking.Go(func() {
			random, ids := rand.New(rand.NewPCG(seed, uint64(n))), make([]int, batchIDs)
			for at := time.Now(); at.Before(end) && errs[n] == nil; {
				if k.batch {
					b.distinct(random, ids)
					at = time.Now() // to choose costs nobody's time but ours
					errs[n] = c.batch(ctx, ids)
				} else {
					errs[n] = c.get(ctx, random.IntN(b.ids))
				}
				now := time.Now()
				took[n] = append(took[n], now.Sub(at))
				at = now
			}
		})
	}
	asking.Wait()
	return slices.Concat(took...), errors.Join(errs...)
}

// distinct fills ids with different ones.
func (b *bench) distinct(random *rand.Rand, ids []int) {
	for i := range ids {
		ids[i] = random.IntN(b.ids)
		for slices.Contains(ids[:i], ids[i]) {
			ids[i] = random.IntN(b.ids)
		}
	}
}
