package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	hotRate    = 1000 // events/s of the paced part
	hotSeconds = 10
)

// hotFigures are about one ID that holds many window entries.
type hotFigures struct {
	perSecond   float64 // working off a backlog
	bytes       float64 // changelog bytes per event then
	pacedBytes  float64 // changelog bytes per event at hotRate
	cpuMicros   float64 // per event, over everything
	peakRSS     int64
	verdict     string
	entriesHeld int
}

// hot measures one ID with as many entries in its only window as configured: an entry a second of event time, so that
// once the window is full each event adds one and ends one.
func (b *bench) hot(ctx context.Context) (f hotFigures, err error) {
	n := b.hotEntries
	s := stream{Events: 3 * n, IDs: 1, Seed: 3, StepMs: 1000}
	t := task{Role: "tidemark", Brokers: b.c.kafka.Brokers, Topic: b.unique("events"), Job: b.unique("job"), Dir: filepath.Join(b.dir, "hot")}
	t.Rules = hotJobFile(t.Job, t.Topic, n)
	if b.profiles != "" {
		t.Profile = filepath.Join(b.profiles, "tidemark-hot.pprof")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.Dir), b.drop(ctx, append(jobTopics(t.Job), t.Topic)...)) }()
	want, err := b.c.preload(ctx, t.Topic, 1, s)
	if err != nil {
		return f, err
	}
	c, err := startChild(t)
	if err != nil {
		return f, err
	}
	full, done, err := b.hotRun(ctx, c, t, n)
	if err != nil {
		return f, errors.Join(err, c.kill())
	}
	end, err := c.stop()
	if err != nil {
		return f, err
	}
	f.perSecond = float64(2*n) / done.Sub(full).Seconds()
	f.cpuMicros = float64(end.cpu.Nanoseconds()) / 1e3 / float64(s.Events+hotRate*hotSeconds)
	f.peakRSS, f.entriesHeld = end.PeakRSS, n+1
	return f, b.hotTable(ctx, t, s, want, &f)
}

// hotRun waits until the window is full, until the backlog is done, and then sends more at a steady rate.
func (b *bench) hotRun(ctx context.Context, c *child, t task, n int) (full, done time.Time, err error) {
	if _, err = c.ready(ctx, time.Minute); err != nil {
		return full, done, err
	}
	if full, err = b.c.waitCommitted(ctx, t.Job, t.Topic, map[int32]int64{0: int64(n)}, c); err != nil {
		return full, done, err
	}
	if done, err = b.c.waitCommitted(ctx, t.Job, t.Topic, map[int32]int64{0: int64(3 * n)}, c); err != nil {
		return full, done, err
	}
	more := stream{Events: hotRate * hotSeconds, IDs: 1, Seed: 4, StepMs: 1000, FirstStep: int64(3 * n)}
	if _, err = b.paced(ctx, t.Topic, 1, hotRate, more); err != nil {
		return full, done, err
	}
	_, err = b.c.waitCommitted(ctx, t.Job, t.Topic, map[int32]int64{0: int64(3*n + more.Events)}, c)
	return full, done, err
}

// hotTable reads the changelog: its bytes by part of the run, and the last state, whose window must hold exactly the
// newest entries.
func (b *bench) hotTable(ctx context.Context, t task, s stream, want expectation, f *hotFigures) error {
	var (
		n       = int64(b.hotEntries)
		parts   [3]int64 // filling, backlog, paced
		commit  int64    // bytes since the last position record
		last    []byte
		reached int64
		filled  int64
	)
	_, err := b.c.readTable(ctx, t.Job+"-table", func(r *kgo.Record) error {
		commit += int64(len(r.Key) + len(r.Value))
		if eos.IsUserKey(r.Key) {
			last = r.Value
		}
		if !eos.IsPositionKey(r.Key) {
			return nil
		}
		p, err := eos.ParsePosition(r.Value)
		if err != nil {
			return err
		}
		next := int64(0)
		if src := p.Source(t.Topic); src != nil {
			next = src.Next
		}
		switch {
		case reached < n:
			parts[0] += commit
			filled = next
		case reached < 3*n:
			parts[1] += commit
		default:
			parts[2] += commit
		}
		reached, commit = next, 0
		return nil
	})
	if err != nil {
		return err
	}
	f.bytes = float64(parts[1]) / float64(3*n-filled)
	f.pacedBytes = float64(parts[2]) / (hotRate * hotSeconds)
	f.verdict, err = hotVerdict(t, s, want, last)
	return err
}

func hotVerdict(t task, s stream, want expectation, last []byte) (string, error) {
	set, err := rules.Load([]byte(t.Rules))
	if err != nil {
		return "", err
	}
	var st codecs.State
	if err := st.UnmarshalBinary(last, set.Schema()); err != nil {
		return "", err
	}
	// The expectation holds the whole stream; the window holds the newest entries of both streams.
	var values []int64
	keep := func(_ int, e *event) error {
		values = append(values, e.value)
		return nil
	}
	more := stream{Events: hotRate * hotSeconds, IDs: 1, Seed: 4, StepMs: 1000}
	if err := errors.Join(s.each(keep), more.each(keep)); err != nil {
		return "", err
	}
	sum := int64(0)
	for _, v := range values[len(values)-s.Events/3-1:] {
		sum += v
	}
	count := want[idText(0)].count + int64(more.Events)
	if got, exp := st.Totals[0].Num.String(), decimalText(sum); got != exp || st.Count != uint64(count) {
		return fmt.Sprintf("windowed sum %s, not %s; count %d, not %d", got, exp, st.Count, count), nil
	}
	return "OK", nil
}

func (b *bench) printHot(f *hotFigures) {
	b.logf("\nOne ID holding %s window entries\n", thousands(f.entriesHeld))
	b.logf("  backlog of %s events: %s events/s, %.1f changelog bytes per event", thousands(2*b.hotEntries), thousands(int(f.perSecond)), f.bytes)
	b.logf("  at %s events/s: %.1f changelog bytes per event", thousands(hotRate), f.pacedBytes)
	b.logf("  %.2f us CPU per event over all, peak %.0f MiB; window and count: %s\n", f.cpuMicros, mib(f.peakRSS), f.verdict)
}
