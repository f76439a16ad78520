package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/processor"
	"github.com/tidemark/tidemark/rules"
)

func init() { roles["tidemark"] = runTidemark }

// jobFile is the job that every contender does.
func jobFile(job, topic string) string {
	return fmt.Sprintf(`name: %s
input:
  topic: %s
  format: json
  id: "event.id"
  time: "event.time"
totals:
  %s: {sum: "event.value"}
  %s: {min: "event.value"}
  %s: {max: "event.value"}
  %s: {count: true, when: 'event.type == "%s"', window: 10m}
flags:
  %s: {when: "totals.%s >= %d"}
`, job, topic, totalSum, totalMin, totalMax, totalFailures, typeFailed, flagBruteForce, totalFailures, raiseAt)
}

// hotJobFile has one windowed total and nothing else. Entries are kept for the window and as long again, for late events,
// which is more than the default state_bytes_max holds.
func hotJobFile(job, topic string, windowSeconds int) string {
	return fmt.Sprintf(`name: %s
input:
  topic: %s
  format: json
  id: "event.id"
  time: "event.time"
state_bytes_max: 8388608
totals:
  recent: {sum: "event.value", window: %ds}
`, job, topic, windowSeconds)
}

// runTidemark is Tidemark's processor as `tidemark run` runs it.
func runTidemark(ctx context.Context, t *task, ready func(report)) (report, error) {
	set, err := rules.Load([]byte(t.Rules))
	if err != nil {
		return report{}, err
	}
	registry := prometheus.NewRegistry()
	proc, err := processor.New(processor.Config{
		Rules: set, Kafka: &eos.Kafka{Brokers: t.Brokers, ClientID: "bench-tidemark"},
		StateDir: filepath.Join(t.Dir, "tidemark"), Instance: t.Job + "-1",
		Metrics: registry, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return report{}, err
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- proc.Run(runCtx) }()
	if err := waitFor(ctx, done, func() bool { return running(proc.Status()) }); err != nil {
		return report{}, err
	}
	ready(report{})
	select {
	case err = <-done:
		return report{}, errors.Join(errors.New("the processor ended by itself"), err)
	case <-ctx.Done():
		err = <-done
	}
	var end report
	if err == nil {
		end.Steps, err = commitSteps(registry)
	}
	return end, err
}

// steps are the means of what a commit consists of.
type steps struct {
	Cut   float64 `json:"cut"` // seconds, as the others
	Send  float64 `json:"send"`
	End   float64 `json:"end"`
	Flush float64 `json:"flush"`
}

// commitSteps reads the processor's own metrics.
func commitSteps(registry prometheus.Gatherer) (s steps, err error) {
	families, err := registry.Gather()
	if err != nil {
		return s, err
	}
	into := map[string]*float64{"cut": &s.Cut, "send": &s.Send, "end": &s.End, "flush": &s.Flush}
	for _, f := range families {
		if f.GetName() != "tidemark_commit_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			if h := m.GetHistogram(); h.GetSampleCount() > 0 {
				*into[m.GetLabel()[0].GetValue()] = h.GetSampleSum() / float64(h.GetSampleCount())
			}
		}
	}
	return s, nil
}

func running(status []eos.PartitionStatus) bool {
	for i := range status {
		if status[i].State != "running" {
			return false
		}
	}
	return len(status) > 0
}
