package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
)

// makeCallers makes those who read what was just acknowledged, and those who watch.
func (r *run) makeCallers() {
	if r.cfg.Readers == 0 && r.cfg.Watchers == 0 {
		return
	}
	for _, v := range r.views {
		r.clients = append(r.clients, newClient(v, r.cfg.Readers+4*r.cfg.Watchers))
	}
	if r.cfg.Readers > 0 {
		// Twice as many as there have to be: not every event finds a reader that has time.
		r.acks = newAcks(1+2*r.cfg.TokenReads/r.cfg.Events, r.cfg.Readers)
		r.tally = newTally(r.blame)
	}
	r.makeWatchers(r.cfg.Watchers)
}

// read starts the readers, each with a course of its own.
func (r *run) read(ctx context.Context, reading *sync.WaitGroup) {
	for i := range r.cfg.Readers {
		rd := &reader{clients: r.clients, acks: r.acks, input: &r.input, tally: r.tally, rng: rand.New(rand.NewPCG(r.cfg.Seed, 1<<20+uint64(i)))}
		reading.Go(func() { rd.run(ctx) })
	}
}

// readSoFar is the part of a line of progress that tells of token reads.
func (r *run) readSoFar() string {
	if r.tally == nil {
		return ""
	}
	return fmt.Sprintf(", %d token reads", r.tally.count())
}
