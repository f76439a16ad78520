package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recovered is one recovery from nothing.
type recovered struct {
	took      time.Duration // from the start of the process until it consumes
	megabytes float64       // keys and values of the changelog
}

func (r *recovered) rate() float64 { return r.megabytes / r.took.Seconds() }

// recovery fills a table with many IDs by each processor, and then, in rounds, deletes the local state and starts again.
func (b *bench) recovery(ctx context.Context) (map[string][]recovered, error) {
	s := stream{Events: b.recoveryIDs, IDs: b.recoveryIDs, Seed: 5, StepMs: 10, EachID: true}
	topic := b.unique("events")
	if _, err := b.c.preload(ctx, topic, partitions, s); err != nil {
		return nil, err
	}
	all := map[string][]recovered{}
	tasks := map[string]task{}
	for _, p := range pairs {
		t := task{Role: p.processor, Brokers: b.c.kafka.Brokers, Topic: topic, Job: b.unique("job"), Dir: filepath.Join(b.dir, "recovery-"+p.processor)}
		t.Rules = jobFile(t.Job, topic)
		if p.processor == "stock" {
			t.Rules = ""
			if err := b.stockTopics(ctx, t.Job, partitions); err != nil {
				return nil, err
			}
		}
		if _, _, err := b.consume(ctx, t); err != nil {
			return nil, fmt.Errorf("fill the table of %s: %w", p.name, err)
		}
		tasks[p.name] = t
	}
	for round := range b.recoveryRounds {
		for i := range pairs {
			p := pairs[(i+round)%len(pairs)]
			r, err := b.recover(ctx, tasks[p.name])
			if err != nil {
				return nil, fmt.Errorf("recovery of %s: %w", p.name, err)
			}
			all[p.name] = append(all[p.name], r)
			b.logf("  round %d  %-27s %6.2f s  %6.1f MB  %6.1f MB/s", round+1, p.name, r.took.Seconds(), r.megabytes, r.rate())
		}
	}
	return all, b.dropTasks(ctx, topic, tasks)
}

// recover starts the processor without local state.
func (b *bench) recover(ctx context.Context, t task) (recovered, error) {
	var r recovered
	if err := os.RemoveAll(t.Dir); err != nil {
		return r, err
	}
	size, err := b.c.readTable(ctx, t.Job+"-table", func(*kgo.Record) error { return nil })
	if err != nil {
		return r, err
	}
	r.megabytes = float64(size) / 1e6
	if b.profiles != "" {
		t.Profile = filepath.Join(b.profiles, t.Role+"-recovery.pprof")
	}
	c, err := startChild(t)
	if err != nil {
		return r, err
	}
	said, err := c.ready(ctx, 10*time.Minute)
	if err != nil {
		return r, errors.Join(err, c.kill())
	}
	r.took = time.Unix(0, said.AtNs).Sub(c.started)
	_, err = c.stop()
	return r, err
}

func (b *bench) dropTasks(ctx context.Context, topic string, tasks map[string]task) error {
	err := b.drop(ctx, topic)
	for _, t := range tasks {
		err = errors.Join(err, os.RemoveAll(t.Dir), b.drop(ctx, jobTopics(t.Job)...))
	}
	return err
}

func (b *bench) printRecovery(all map[string][]recovered) {
	b.logf("\nRecovery of %s IDs from nothing, process start until it consumes: medians of %d rounds\n", thousands(b.recoveryIDs), b.recoveryRounds)
	b.logf("%-27s %9s %9s %9s %6s", "", "seconds", "MB", "MB/s", "ratio")
	for _, p := range pairs {
		var seconds, size, rates, ratios []float64
		for i, r := range all[p.name] {
			seconds, size, rates = append(seconds, r.took.Seconds()), append(size, r.megabytes), append(rates, r.rate())
			base := all[pairs[0].name]
			if i < len(base) {
				ratios = append(ratios, r.rate()/base[i].rate())
			}
		}
		b.logf("%-27s %9.2f %9.1f %9.1f %6.2f", p.name, median(seconds), median(size), median(rates), median(ratios))
	}
	b.logf("")
}
