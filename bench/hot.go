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
	hotRate       = 1000 // events/s of the paced part
	hotSecondsMax = 10
)

// hotBacklog is how many times the window the backlog is.
const hotBacklog = 10

// hotFigures are about one ID that holds many window entries.
type hotFigures struct {
	perSecond   float64 // working off a backlog
	cpuMicros   float64 // per event of the backlog
	bytes       float64 // changelog bytes per event of the backlog
	pacedBytes  float64 // changelog bytes per event at hotRate
	peakRSS     int64
	verdict     string
	entriesHeld int
}

// hotRun is what is sent to the hot ID: a second of event time from each event to the next, so that once the window is
// full each event adds an entry and ends one.
type hotRun struct{ fill, backlog, paced stream }

func newHotRun(entries, seconds int) hotRun {
	s := func(seed uint64, events, first int) stream {
		return stream{Events: events, IDs: 1, Seed: seed, StepMs: 1000, FirstStep: int64(first)}
	}
	return hotRun{
		fill: s(2, entries, 0), backlog: s(3, hotBacklog*entries, entries),
		paced: s(4, hotRate*min(hotSecondsMax, seconds), (1+hotBacklog)*entries),
	}
}

// hot measures one ID with as many entries in its only window as configured: first over a backlog, then at a steady rate.
func (b *bench) hot(ctx context.Context) (f hotFigures, err error) {
	run := newHotRun(b.hotEntries, b.seconds)
	t := task{
		Role: "tidemark", Brokers: b.c.kafka.Brokers, Topic: b.unique("events"), Job: b.unique("job"),
		Dir: filepath.Join(b.dir, "hot"),
	}
	t.Rules = hotJobFile(t.Job, t.Topic, b.hotEntries)
	defer func() { err = errors.Join(err, os.RemoveAll(t.Dir), b.drop(ctx, append(jobTopics(t.Job), t.Topic)...)) }()
	if _, err := b.c.preload(ctx, t.Topic, 1, run.fill); err != nil {
		return f, err
	}
	if _, _, err := b.consume(ctx, t); err != nil {
		return f, fmt.Errorf("fill the window: %w", err)
	}
	if err := b.c.produce(ctx, t.Topic, 1, run.backlog, nil); err != nil {
		return f, err
	}
	if b.profiles != "" {
		t.Profile = filepath.Join(b.profiles, "tidemark-hot.pprof")
	}
	end, took, err := b.consume(ctx, t)
	if err != nil {
		return f, fmt.Errorf("backlog: %w", err)
	}
	all := end.figures(run.backlog.Events, took)
	f.perSecond, f.cpuMicros, f.peakRSS, f.entriesHeld = all.perSecond, all.cpuMicros, all.peakRSS, b.hotEntries+1
	t.Profile = ""
	if err := b.hotPaced(ctx, t, run.paced); err != nil {
		return f, fmt.Errorf("steady rate: %w", err)
	}
	return f, b.hotTable(ctx, t, run, &f)
}

func (b *bench) hotPaced(ctx context.Context, t task, s stream) error {
	c, err := startChild(t)
	if err != nil {
		return err
	}
	if _, err = c.ready(ctx, time.Minute); err == nil {
		_, err = b.paced(ctx, t.Topic, 1, hotRate, s)
	}
	if err != nil {
		return errors.Join(err, c.kill())
	}
	ends, err := b.c.ends(ctx, t.Topic)
	if err == nil {
		_, err = b.c.waitCommitted(ctx, t.Job, t.Topic, ends, c)
	}
	if err != nil {
		return errors.Join(err, c.kill())
	}
	_, err = c.stop()
	return err
}

// hotTable reads the changelog: its bytes by part of the run, and the last state.
func (b *bench) hotTable(ctx context.Context, t task, run hotRun, f *hotFigures) error {
	var (
		filled  = int64(run.fill.Events)
		done    = filled + int64(run.backlog.Events)
		parts   [3]int64 // filling, backlog, steady
		commit  int64    // bytes since the last position record
		last    []byte
		reached int64 // position of the commit before
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
		switch {
		case reached < filled:
			parts[0] += commit
		case reached < done:
			parts[1] += commit
		default:
			parts[2] += commit
		}
		if src := p.Source(t.Topic); src != nil {
			reached = src.Next
		}
		commit = 0
		return nil
	})
	if err != nil {
		return err
	}
	f.bytes = float64(parts[1]) / float64(run.backlog.Events)
	f.pacedBytes = float64(parts[2]) / float64(run.paced.Events)
	refused, err := b.c.refusals(ctx, t.Job)
	if err != nil {
		return err
	}
	f.verdict, err = hotVerdict(t, run, last)
	if len(refused) > 0 {
		f.verdict += fmt.Sprintf("; refused: %v", refused)
	}
	return err
}

// hotVerdict compares the last state with the newest entries of all that was sent.
func hotVerdict(t task, run hotRun, last []byte) (string, error) {
	set, err := rules.Load([]byte(t.Rules))
	if err != nil {
		return "", err
	}
	var st codecs.State
	if err := st.UnmarshalBinary(last, set.Schema()); err != nil {
		return "", err
	}
	var values []int64
	keep := func(_ int, e *event) error {
		values = append(values, e.value)
		return nil
	}
	if err := errors.Join(run.fill.each(keep), run.backlog.each(keep), run.paced.each(keep)); err != nil {
		return "", err
	}
	sum := int64(0)
	for _, v := range values[len(values)-run.fill.Events-1:] {
		sum += v
	}
	if got, want := st.Totals[0].Num.String(), decimalText(sum); got != want || st.Count != uint64(len(values)) {
		return fmt.Sprintf("windowed sum %s, not %s; count %d, not %d", got, want, st.Count, len(values)), nil
	}
	return "OK", nil
}

func (b *bench) printHot(f *hotFigures) {
	b.logf("\nOne ID holding %s window entries\n", thousands(f.entriesHeld))
	b.logf("  backlog of %s events: %s events/s, %.2f us CPU and %.1f changelog bytes per event, peak %.0f MiB",
		thousands(hotBacklog*b.hotEntries), thousands(int(f.perSecond)), f.cpuMicros, f.bytes, mib(f.peakRSS))
	b.logf("  at %s events/s: %.1f changelog bytes per event", thousands(hotRate), f.pacedBytes)
	b.logf("  window and count: %s\n", f.verdict)
}
