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

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
)

const (
	freshIDs   = 10_000
	partitions = 4
	// lookEvery is how exactly it is known when something became visible; what is reported is never too early.
	lookEvery = time.Millisecond
)

// pipeline is a way from events to a service that is asked.
type pipeline struct {
	name string
	// start gives what tells up to which offset each partition is visible, by a read of the service.
	start func(ctx context.Context, j *job) (positions func(context.Context) ([partitions]int64, error), stop func() error, err error)
}

// sent is an event on its way.
type sent struct {
	acked     time.Time
	partition int32
	offset    int64
}

// visit is a moment at which a service was seen to show everything below an offset.
type visit struct {
	at   time.Time
	next int64
}

// fresh measures the time from an event's acknowledgement until a read has it.
func (b *bench) fresh(ctx context.Context) error {
	var pipelines []pipeline
	for _, bin := range b.binaries {
		pipelines = append(pipelines, pipeline{bin.name, bin.pipeline})
	}
	pipelines = append(pipelines, pipeline{"a consumer and Redis", b.redisPipeline}, pipeline{"a consumer and Postgres", b.postgresPipeline})
	all := map[string][][2]float64{}
	for round := range b.rounds {
		for i := range pipelines {
			p := pipelines[(i+round)%len(pipelines)]
			if !b.wants(p.name) {
				continue
			}
			p50, p99, err := b.freshness(ctx, p, fmt.Sprintf("fresh-%d-%d", round, (i+round)%len(pipelines)))
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			all[p.name] = append(all[p.name], [2]float64{p50, p99})
		}
	}
	b.logf("\n%d events/s for %s, acknowledged until a read has it, in ms: medians of %d rounds", b.rate, b.length, b.rounds)
	for _, p := range pipelines {
		var p50, p99 []float64
		for _, f := range all[p.name] {
			p50, p99 = append(p50, f[0]), append(p99, f[1])
		}
		if len(p50) > 0 {
			b.logf("%-36s p50 %6.1f  p99 %6.1f", p.name, median(p50), median(p99))
		}
	}
	return nil
}

func (b *bench) freshness(ctx context.Context, p pipeline, name string) (p50, p99 float64, err error) {
	j, err := b.job(name)
	if err != nil {
		return 0, 0, err
	}
	if _, err := j.do(ctx, b.binaries[len(b.binaries)-1], nil, "topics", "--create", "--partitions", fmt.Sprint(partitions)); err != nil {
		return 0, 0, err
	}
	if _, err := b.paced(ctx, j, probeIDs(), time.Second); err != nil { // so that each partition has something to show
		return 0, 0, err
	}
	positions, stop, err := p.start(ctx, j)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	var (
		seen     [partitions][]visit
		looking  sync.WaitGroup
		lookErr  error
		end, fin = context.WithCancel(ctx)
	)
	looking.Go(func() { lookErr = look(end, positions, &seen) })
	events, err := b.paced(ctx, j, nil, b.length)
	if err == nil {
		select {
		case <-time.After(2 * time.Second): // what is not visible by then is reported as missing
		case <-ctx.Done():
		}
	}
	fin()
	looking.Wait()
	if err := errors.Join(err, lookErr); err != nil {
		return 0, 0, err
	}
	return delays(events[len(events)/10:], &seen)
}

// look asks a service over and over up to where it is.
func look(ctx context.Context, positions func(context.Context) ([partitions]int64, error), seen *[partitions][]visit) error {
	for tick := time.NewTicker(lookEvery); ; {
		next, err := positions(ctx)
		if ctx.Err() != nil {
			tick.Stop()
			return nil
		} else if err != nil {
			return err
		}
		now := time.Now()
		for p, n := range next {
			if of := seen[p]; len(of) == 0 || of[len(of)-1].next < n {
				seen[p] = append(of, visit{now, n})
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// delays are quantiles in ms. An event that was visible before its acknowledgement arrived counts as 0.
func delays(events []sent, seen *[partitions][]visit) (p50, p99 float64, err error) {
	took := make([]time.Duration, len(events))
	for i, e := range events {
		visits := seen[e.partition]
		at, _ := slices.BinarySearchFunc(visits, e.offset+1, func(v visit, next int64) int { return int(v.next - next) })
		if at == len(visits) {
			return 0, 0, fmt.Errorf("offset %d of partition %d never became visible", e.offset, e.partition)
		}
		took[i] = max(0, visits[at].at.Sub(e.acked))
	}
	slices.Sort(took)
	return micros(took[len(took)/2]) / 1e3, micros(took[len(took)*99/100]) / 1e3, nil
}

// paced produces events at the rate, by schedule, for the IDs in turn; nil is all.
func (b *bench) paced(ctx context.Context, j *job, ids []string, length time.Duration) ([]sent, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(j.brokers...), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var (
		mu     sync.Mutex // guards fault
		fault  error
		events = make([]sent, int(length.Seconds()*float64(b.rate)))
		start  = time.Now()
	)
	for i := range events {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(b.rate))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		id := idText(i * 7919 % freshIDs)
		if ids != nil {
			id = ids[i%len(ids)]
		}
		value := fmt.Appendf(nil, `{"id":%q,"type":"accepted_password","time":%q,"value":%d.%02d}`, id, due.UTC().Format(time.RFC3339Nano), i%1000, i%97)
		cl.Produce(ctx, &kgo.Record{Topic: j.name + "-events", Key: []byte(id), Value: value}, func(r *kgo.Record, err error) {
			events[i] = sent{time.Now(), r.Partition, r.Offset}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				fault = err
			}
		})
	}
	err = cl.Flush(ctx)
	mu.Lock()
	defer mu.Unlock()
	return events, errors.Join(err, fault)
}

// probeIDs are IDs of each partition.
func probeIDs() []string {
	ids := make([]string, partitions)
	for n, found := 0, 0; found < partitions; n++ {
		if p := eos.Place([]byte(idText(n)), partitions); ids[p] == "" {
			ids[p] = idText(n)
			found++
		}
	}
	return ids
}

// pipeline is `tidemark run`, and `tidemark view` in a process beside it.
func (bin binary) pipeline(ctx context.Context, j *job) (func(context.Context) ([partitions]int64, error), func() error, error) {
	run, err := startProcess("tidemark run", nil, bin.path, "run", "--job", j.file, "--brokers", strings.Join(j.brokers, ","),
		"--state", filepath.Join(j.dir, "run"))
	if err != nil {
		return nil, nil, err
	}
	v, err := j.view(ctx, bin, filepath.Join(j.dir, "view"))
	if err != nil {
		return nil, nil, errors.Join(err, run.stop())
	}
	c, probes := newPositions(v), probeIDs()
	positions := func(context.Context) (next [partitions]int64, err error) {
		for p, id := range probes {
			if next[p], err = c.of(id); err != nil {
				return next, err
			}
		}
		return next, nil
	}
	stop := func() error { c.close(); return errors.Join(v.stop(), run.stop()) }
	err = run.await(ctx, time.Minute, func() error { _, err := positions(ctx); return err })
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return positions, stop, nil
}

// startConsumer starts this program as the consumer.
func startConsumer(j *job, store, url string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startProcess("the consumer", nil, self, consumerArgument, strings.Join(j.brokers, ","), j.name, store, url)
}
