package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// config of a run of the benchmark.
type config struct {
	events         int
	ids            []int
	rounds         int
	seconds        int // of each run at a given rate
	rates          []int
	latencyRounds  int
	recoveryIDs    int
	recoveryRounds int
	hotEntries     int
	parts          map[string]bool // what is measured; empty means everything
	only           string          // part of the names of the contenders of the speed and latency runs
	profiles       string          // a directory for CPU profiles, "" for none
}

func (c *config) wants(part string) bool { return len(c.parts) == 0 || c.parts[part] }

// bench is one run of the benchmark.
type bench struct {
	config
	c   *cluster
	dir string
	out io.Writer
	// Both make names unique: on a broker that was there before, and within the run.
	mark string
	n    int
}

// contender is one way of doing the job.
type contender struct {
	name string
	task task
}

var contenders = []contender{
	{"sarama, read only", task{Role: "raw"}},
	{"sarama, read and decode", task{Role: "raw", Decode: true}},
	{"stock Goka, encoding/json", task{Role: "stock", JSON: true}},
	{baseline, task{Role: "stock"}},
	{"stock Goka, own storage", task{Role: "stock", Gather: true}},
	{ours, task{Role: "tidemark"}},
}

const (
	baseline = "stock Goka, our codecs"
	ours     = "Tidemark"
)

// figures are what one run of a contender came to.
type figures struct {
	perSecond float64 // from the moment that consuming began
	fromStart float64 // from the start of the process
	cpuMicros float64 // per event
	peakRSS   int64
	changelog float64 // bytes of keys and values per event
	verdict   string
	ok        bool
}

// contest measures every contender over one number of IDs, in rounds.
func (b *bench) contest(ctx context.Context, ids int) (map[string][]figures, error) {
	s := stream{Events: b.events, IDs: ids, Seed: uint64(ids), StepMs: 10}
	topic := b.unique("events")
	began := time.Now()
	want, err := b.c.preload(ctx, topic, partitions, s)
	if err != nil {
		return nil, err
	}
	b.logf("%s events over %s IDs are preloaded (%.1fs)", thousands(b.events), thousands(ids), time.Since(began).Seconds())
	all := map[string][]figures{}
	for round := range b.rounds {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			if !strings.Contains(c.name, b.only) {
				continue
			}
			f, err := b.run(ctx, c.task, topic, want, fmt.Sprintf("%s-%d", c.task.Role, ids))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			all[c.name] = append(all[c.name], f)
			b.logf("  round %d  %-27s %9s events/s  %6.2f us CPU/event  %5.0f MiB  %s", round+1, c.name,
				thousands(int(f.perSecond)), f.cpuMicros, mib(f.peakRSS), f.verdict)
		}
	}
	return all, b.drop(ctx, topic)
}

// run lets one contender do the whole topic.
func (b *bench) run(ctx context.Context, t task, topic string, want expectation, profile string) (f figures, err error) {
	t.Brokers, t.Topic, t.Job, t.Dir = b.c.kafka.Brokers, topic, b.unique("job"), filepath.Join(b.dir, "state")
	switch t.Role {
	case "raw":
		return b.runRaw(ctx, t)
	case "tidemark":
		t.Rules = jobFile(t.Job, topic)
	case "stock":
		if err := b.stockTopics(ctx, t.Job, partitions); err != nil {
			return f, err
		}
	}
	if b.profiles != "" {
		t.Profile = filepath.Join(b.profiles, profile+".pprof")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.Dir), b.drop(ctx, jobTopics(t.Job)...)) }()
	end, took, err := b.consume(ctx, t)
	if err != nil {
		return f, err
	}
	f = end.figures(b.events, took)
	v, err := check(ctx, b.c, &t, want)
	if err != nil {
		return f, err
	}
	f.verdict, f.ok, f.changelog = v.String(), v.ok(), float64(v.bytes)/float64(b.events)
	return f, nil
}

// times of a run.
type times struct{ ready, end time.Time }

// consume runs a child until it has committed everything that is in its topic now.
func (b *bench) consume(ctx context.Context, t task) (end outcome, took times, err error) {
	ends, err := b.c.ends(ctx, t.Topic)
	if err != nil {
		return end, took, err
	}
	c, err := startChild(t)
	if err != nil {
		return end, took, err
	}
	r, err := c.ready(ctx, time.Minute)
	if err == nil {
		took.ready = time.Unix(0, r.AtNs)
		took.end, err = b.c.waitCommitted(ctx, t.Job, t.Topic, ends, c)
	}
	if err != nil {
		return end, took, errors.Join(err, c.kill())
	}
	end, err = c.stop()
	return end, took, err
}

func (b *bench) runRaw(ctx context.Context, t task) (f figures, err error) {
	c, err := startChild(t)
	if err != nil {
		return f, err
	}
	r, err := c.ready(ctx, time.Minute)
	if err != nil {
		return f, errors.Join(err, c.kill())
	}
	// It ends by itself, and its input stays open until then.
	end, err := c.wait()
	if err != nil {
		return f, err
	}
	f = end.figures(b.events, times{time.Unix(0, r.AtNs), time.Unix(0, end.LastNs)})
	f.ok, f.verdict = end.Count == int64(b.events), "all read"
	if !f.ok {
		f.verdict = fmt.Sprintf("%d of %d read", end.Count, b.events)
	}
	return f, nil
}

func (o *outcome) figures(events int, took times) figures {
	n := float64(events)
	return figures{
		perSecond: n / took.end.Sub(took.ready).Seconds(), fromStart: n / took.end.Sub(o.started).Seconds(),
		cpuMicros: float64(o.cpu.Nanoseconds()) / 1e3 / n, peakRSS: o.PeakRSS,
	}
}

// stockTopics makes what Goka would make itself, with a wait of a second for each.
func (b *bench) stockTopics(ctx context.Context, job string, n int32) error {
	return errors.Join(b.c.createTopic(ctx, job+"-table", n, true), b.c.createTopic(ctx, job+"-flags", n, false))
}

func jobTopics(job string) []string {
	return []string{job + "-table", job + "-flags", job + "-loop", job + "-dead-letters"}
}

// drop deletes topics, those that there are.
func (b *bench) drop(ctx context.Context, topics ...string) error {
	_, err := b.c.adm.DeleteTopics(ctx, topics...)
	return err
}

func (b *bench) unique(what string) string {
	b.n++
	return fmt.Sprintf("bench-%s-%s-%d", b.mark, what, b.n)
}

func (b *bench) logf(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format+"\n", args...) }
