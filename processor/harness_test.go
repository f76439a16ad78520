package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/rules"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mustFake starts an embedded broker for this test alone.
func mustFake(t testing.TB) []string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatalf("kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

// mustJob is a job of the test's own with an input topic. NAME in the job file becomes its name, and NAME-events is its input.
func mustJob(t *testing.T, brokers []string, file string, partitions int32, configs ...string) *job {
	t.Helper()
	name := fmt.Sprintf("t%x", rand.Uint64())
	rs, err := rules.Load([]byte(strings.ReplaceAll(file, "NAME", name)))
	if err != nil {
		t.Fatalf("load the job file: %v", err)
	}
	kafkatest.MustTopic(t, brokers, rs.Job().Input.Topic, partitions, configs...)
	return &job{
		t: t, kafka: &eos.Kafka{Brokers: brokers}, rules: rs, partitions: partitions, dir: t.TempDir(),
		names: eos.Names{Job: name, Generation: 1},
	}
}

func (j *job) mustClient(options ...kgo.Opt) *kgo.Client {
	j.t.Helper()
	cl, err := kgo.NewClient(j.kafka.Franz(options...)...)
	if err != nil {
		j.t.Fatalf("client: %v", err)
	}
	j.t.Cleanup(cl.Close)
	return cl
}

// mustWrite writes records to the input; afterwards they know their positions.
func (j *job) mustWrite(cl *kgo.Client, records ...*kgo.Record) {
	j.t.Helper()
	for _, r := range records {
		r.Topic = j.rules.Job().Input.Topic
	}
	for _, res := range cl.ProduceSync(j.t.Context(), records...) {
		if res.Err != nil {
			j.t.Fatalf("produce key %.40q, %d bytes: %v", res.Record.Key, len(res.Record.Value), res.Err)
		}
	}
}

// config is that of a processor which ends when it is caught up.
func (j *job) config() Config {
	cfg := Config{Rules: j.rules, Kafka: j.kafka, StateDir: filepath.Join(j.dir, "0"), Instance: "p0", UntilCaughtUp: true}
	if os.Getenv("EOS_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return cfg
}

// try runs one processor until it is caught up and answers its error.
func (j *job) try(change func(*Config)) error {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	cfg := j.config()
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		return err
	}
	return errors.Join(p.Run(ctx), ctx.Err())
}

// mustRun runs one processor until it is caught up and answers its metrics.
func (j *job) mustRun() map[string]float64 {
	j.t.Helper()
	registry := prometheus.NewRegistry()
	if err := j.try(func(c *Config) { c.Metrics = registry }); err != nil {
		j.t.Fatalf("run: %v", err)
	}
	return gather(j.t, registry)
}

// gather sums counters by name, and by name with label where there is one.
func gather(t testing.TB, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatalf("gather: %v", err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			out[f.GetName()] += v
			for _, l := range m.Label {
				out[f.GetName()+" "+l.GetValue()] += v
			}
		}
	}
	return out
}

// records reads what is committed in a topic.
func (j *job) records(topic string) []*kgo.Record {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	ends, err := eos.Ends(ctx, j.mustClient(), topic)
	if err != nil {
		j.t.Fatalf("ends: %v", err)
	}
	starts := map[int32]int64{}
	for p, span := range ends {
		starts[p] = span.Start
	}
	r, err := eos.NewReader(j.kafka, topic, starts)
	if err != nil {
		j.t.Fatalf("reader: %v", err)
	}
	defer r.Close()
	var out []*kgo.Record
	for len(ends) > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			j.t.Fatalf("read %s: %v", topic, err)
		}
		for _, b := range batches {
			if span, ok := ends[b.Partition]; ok {
				out = append(out, b.Records...)
				if b.Next >= span.LSO {
					delete(ends, b.Partition)
				}
			}
		}
	}
	return out
}

// place names a record by its position.
func place(topic string, partition int32, offset int64) string {
	return fmt.Sprintf("%s/%d@%d", topic, partition, offset)
}

// deadLetters by the positions of the records that were refused.
func (j *job) deadLetters() map[string]*codecs.DeadLetter {
	j.t.Helper()
	out := map[string]*codecs.DeadLetter{}
	for _, r := range j.records(j.names.DeadLetters()) {
		var headers []codecs.Header
		for _, h := range r.Headers {
			headers = append(headers, codecs.Header{Key: h.Key, Value: h.Value})
		}
		d, err := codecs.DecodeDeadLetter(r.Key, r.Value, headers)
		if err != nil {
			j.t.Fatalf("dead letter at %d: %v", r.Offset, err)
		}
		at := place(d.Topic, d.Partition, d.Offset)
		if out[at] != nil {
			j.t.Errorf("%s: refused twice", at)
		}
		out[at] = d
	}
	return out
}

// total is the number of a total by name.
func (j *job) total(st *codecs.State, name string) string {
	j.t.Helper()
	i := slices.Index(j.rules.Schema().Totals, name)
	if i < 0 {
		j.t.Fatalf("no total %s", name)
	}
	return st.Totals[i].Num.String()
}
