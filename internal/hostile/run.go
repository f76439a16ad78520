// Package hostile sends a view what no client should, for a time, while a well-behaved client measures what it notices of it. The
// view is a process of its own, as `tidemark view` runs it, with its guard, on real TLS; its table is made by a processor of its
// own. It knows the view from outside alone.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Config of a run.
type Config struct {
	Binary string // the program, tidemark
	// For is how long it is hostile. Where by then something was not turned away once, because the machine has little left for
	// the attackers, it goes on for four times as long at most.
	For    time.Duration
	Calm   time.Duration // how long it is calm before and afterwards, for comparison
	P99Max time.Duration // of the well-behaved client under attack, which shares the machine with attackers and view
	Limits Limits        // of the view; each field's zero value is its default
	// MemoryMiBMax bounds what the view takes; 0: it must be flat, which minutes show and seconds, in which the heap still grows to
	// its size, do not.
	MemoryMiBMax float64
	Log          io.Writer // what happens, as it happens
}

// Limits of the view under attack, low enough to be reached by one machine, and by one that has other work if they are lower.
type Limits struct {
	Connections int // of one address (default 150)
	Rate        int // requests a second of one client (default 200)
	Failures    int // wrong tokens a second of one address (default 10)
	Watchers    int // of one client (default 20)
}

func (l *Limits) fill() {
	for _, n := range []struct {
		field *int
		value int
	}{{&l.Connections, 150}, {&l.Rate, 200}, {&l.Failures, 10}, {&l.Watchers, 20}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
}

// Run is hostile to a view, and reports. The error is that it could not be; what did not hold is in the report.
func Run(ctx context.Context, cfg Config) (r *Report, err error) {
	dir, err := os.MkdirTemp("", "tidemark-hostile-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg.Limits.fill()
	s, err := startSubject(ctx, cfg.Binary, dir, cfg.Limits)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	good, err := newCaller(ctx, s)
	if err != nil {
		return nil, err
	}
	defer good.close()
	fmt.Fprintf(cfg.Log, "calm for %v, then hostile for %v\n", cfg.Calm, cfg.For)
	r = &Report{p99Max: cfg.P99Max, memoryMax: cfg.MemoryMiBMax}
	if r.calm, err = good.measure(ctx, cfg.Calm); err != nil {
		return nil, err
	}
	if err := r.underAttack(ctx, cfg, s, good); err != nil {
		return nil, err
	}
	if err := s.settled(ctx); err != nil {
		r.fault("%v", err)
	}
	if r.after, err = good.measure(ctx, cfg.Calm); err != nil {
		return nil, err
	}
	r.refused, err = s.refused(ctx)
	return r, err
}

// underAttack runs all attacks while the good client goes on, and looks at the view's memory.
func (r *Report) underAttack(ctx context.Context, cfg Config, s *subject, good *caller) (err error) {
	attacking, cease := context.WithCancel(ctx)
	defer cease()
	var hostile, watching sync.WaitGroup
	for i := range attacks {
		a := &attacks[i]
		count := &tally{name: a.name}
		r.tallies = append(r.tallies, count)
		for n := range a.sides {
			hostile.Go(func() { a.run(attacking, s, count, n) })
		}
	}
	watching.Go(func() { r.memory.follow(attacking, s, cfg.Log) })
	r.during, err = good.measure(ctx, cfg.For)
	for longer := 0; err == nil && longer < 3; longer++ {
		if refused, err := s.refused(ctx); err == nil { // else that call fell victim to the attacks
			if r.refused = refused; len(r.idle()) == 0 {
				break
			}
		}
		fmt.Fprintf(cfg.Log, "going on: %q\n", r.idle())
		var more *measurement
		if more, err = good.measure(ctx, cfg.For); err == nil {
			r.during.add(more)
		}
	}
	cease()
	hostile.Wait()
	watching.Wait()
	return err
}

// every calls f at most so often until the context ends.
func every(ctx context.Context, pause time.Duration, f func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
