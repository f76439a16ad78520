package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/twmb/franz-go/pkg/kgo"
)

// warmUp is left out of the figures: connections are made, and the first commits are larger.
const warmUp = 3 * time.Second

// sent is one event on its way.
type sent struct {
	scheduled, acked time.Time
	partition        int32
	offset           int64
}

// delays are quantiles of one run, of the time until an event was visible.
type delays struct {
	scheduled50, scheduled99, acked50, acked99 time.Duration
	ack50, ack99                               time.Duration // scheduled until acknowledged: the producer's own part
	get50                                      time.Duration // a request for an ID to the view, afterwards; 0 where it has no HTTP
	steps                                      steps         // of Tidemark's commits
}

// pair is a processor and a view beside it.
type pair struct{ name, processor, view string }

var pairs = []pair{{"stock Goka and its View", "stock", "stock-view"}, {ours, "tidemark", "tidemark-view"}}

// latency measures one rate, in rounds over all pairs.
func (b *bench) latency(ctx context.Context, rate int) (map[string][]delays, error) {
	all := map[string][]delays{}
	for round := range b.latencyRounds {
		for i := range pairs {
			p := pairs[(i+round)%len(pairs)]
			if !strings.Contains(p.name, b.only) {
				continue
			}
			d, err := b.latencyRun(ctx, p, rate)
			if err != nil {
				return nil, fmt.Errorf("latency of %s at %d events/s: %w", p.name, rate, err)
			}
			all[p.name] = append(all[p.name], d)
			b.logf("  round %d  %-27s from schedule p50 %6.1f ms, p99 %6.1f ms", round+1, p.name, ms(d.scheduled50), ms(d.scheduled99))
		}
	}
	return all, nil
}

func (b *bench) latencyRun(ctx context.Context, p pair, rate int) (d delays, err error) {
	t := task{
		Role: p.processor, Brokers: b.c.kafka.Brokers, Topic: b.unique("events"), Job: b.unique("job"),
		Dir: filepath.Join(b.dir, "latency"), Latency: true,
	}
	t.Rules = jobFile(t.Job, t.Topic)
	defer func() { err = errors.Join(err, os.RemoveAll(t.Dir), b.drop(ctx, append(jobTopics(t.Job), t.Topic)...)) }()
	if err := b.c.createTopic(ctx, t.Topic, partitions, false); err != nil {
		return d, err
	}
	if p.processor == "stock" {
		if err := b.stockTopics(ctx, t.Job, partitions); err != nil {
			return d, err
		}
	}
	proc, err := startChild(t)
	if err != nil {
		return d, err
	}
	defer func() {
		end, stopped := proc.stop()
		d.steps = end.Steps
		err = errors.Join(err, stopped)
	}()
	if _, err := proc.ready(ctx, time.Minute); err != nil {
		return d, err
	}
	t.Role = p.view
	view, err := startChild(t)
	if err != nil {
		return d, err
	}
	if _, err := view.ready(ctx, time.Minute); err != nil {
		return d, errors.Join(err, view.kill())
	}
	events, err := b.drive(ctx, t.Topic, rate, proc)
	if err != nil {
		return d, errors.Join(err, view.kill())
	}
	seen, err := view.stop()
	if err != nil {
		return d, err
	}
	d, err = measure(events, seen.Samples)
	d.get50 = time.Duration(seen.GetNs)
	return d, err
}

// drive produces at the rate, and returns when the last event has been committed, and had time to be seen.
func (b *bench) drive(ctx context.Context, topic string, rate int, proc *child) ([]sent, error) {
	s := stream{Events: rate * (b.seconds + int(warmUp/time.Second)), IDs: 10_000, Seed: uint64(rate), StepMs: 10}
	events, err := b.paced(ctx, topic, partitions, rate, s)
	if err != nil {
		return nil, err
	}
	ends, err := b.c.ends(ctx, topic)
	if err != nil {
		return nil, err
	}
	if _, err := b.c.waitCommitted(ctx, proc.task.Job, topic, ends, proc); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	return events, ctx.Err()
}

// paced produces the stream at a steady rate by schedule: what falls behind is sent at once, and its delay counts.
func (b *bench) paced(ctx context.Context, topic string, n int32, rate int, s stream) ([]sent, error) {
	cl, err := kgo.NewClient(b.c.kafka.Franz(kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var (
		mu     sync.Mutex
		fault  error
		events = make([]sent, s.Events)
		start  = time.Now().Add(100 * time.Millisecond)
	)
	err = s.each(func(i int, e *event) error {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		key := []byte(idText(e.id))
		rec := &kgo.Record{Topic: topic, Partition: eos.Place(key, n), Key: key, Value: e.appendJSON(make([]byte, 0, 128))}
		cl.Produce(ctx, rec, func(r *kgo.Record, err error) {
			events[i] = sent{scheduled: due, acked: time.Now(), partition: r.Partition, offset: r.Offset}
			if err != nil {
				mu.Lock()
				fault = err
				mu.Unlock()
			}
		})
		return ctx.Err()
	})
	err = errors.Join(err, cl.Flush(ctx))
	mu.Lock()
	defer mu.Unlock()
	return events, errors.Join(err, fault)
}

// measure joins the events with the moments at which the view had come past their offsets.
func measure(events []sent, seen map[int32][]visit) (delays, error) {
	from := events[0].scheduled.Add(warmUp)
	var scheduled, acked, acks []time.Duration
	for i := range events {
		e := &events[i]
		if e.scheduled.Before(from) {
			continue
		}
		visits := seen[e.partition]
		at, _ := slices.BinarySearchFunc(visits, e.offset+1, func(v visit, next int64) int { return int(v.Next - next) })
		if at == len(visits) {
			return delays{}, fmt.Errorf("partition %d: offset %d never became visible", e.partition, e.offset)
		}
		visible := time.Unix(0, visits[at].AtNs)
		scheduled = append(scheduled, visible.Sub(e.scheduled))
		acked = append(acked, visible.Sub(e.acked))
		acks = append(acks, e.acked.Sub(e.scheduled))
	}
	var d delays
	d.scheduled50, d.scheduled99 = quantiles(scheduled)
	d.acked50, d.acked99 = quantiles(acked)
	d.ack50, d.ack99 = quantiles(acks)
	return d, nil
}

func quantiles(d []time.Duration) (p50, p99 time.Duration) {
	if len(d) == 0 {
		return 0, 0
	}
	slices.Sort(d)
	return d[len(d)/2], d[len(d)*99/100]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// printLatency prints the medians of the rounds.
func (b *bench) printLatency(rate int, all map[string][]delays) {
	b.logf("\n%s events/s for %d s, produced until visible in the view, in ms: medians of %d rounds\n", thousands(rate), b.seconds,
		b.latencyRounds)
	b.logf("%-27s %14s %14s %10s %10s %14s %8s", "", "scheduled p50", "scheduled p99", "acked p50", "acked p99", "ack alone p50", "GET p50")
	for _, p := range pairs {
		if len(all[p.name]) == 0 {
			continue
		}
		of := func(pick func(*delays) time.Duration) float64 {
			var values []float64
			for i := range all[p.name] {
				values = append(values, ms(pick(&all[p.name][i])))
			}
			return median(values)
		}
		b.logf("%-27s %14.1f %14.1f %10.1f %10.1f %14.1f %8.2f", p.name,
			of(func(d *delays) time.Duration { return d.scheduled50 }), of(func(d *delays) time.Duration { return d.scheduled99 }),
			of(func(d *delays) time.Duration { return d.acked50 }), of(func(d *delays) time.Duration { return d.acked99 }),
			of(func(d *delays) time.Duration { return d.ack50 }), of(func(d *delays) time.Duration { return d.get50 }))
		seconds := func(pick func(*steps) float64) float64 {
			return of(func(d *delays) time.Duration { return time.Duration(pick(&d.steps) * float64(time.Second)) })
		}
		if p.name == ours {
			b.logf("%-27s cut %.2f, send (offsets, then records) %.2f, end (EndTxn) %.2f, flush (LevelDB) %.2f", "  a commit, means",
				seconds(func(s *steps) float64 { return s.Cut }), seconds(func(s *steps) float64 { return s.Send }),
				seconds(func(s *steps) float64 { return s.End }), seconds(func(s *steps) float64 { return s.Flush }))
		}
	}
	b.logf("")
}
