package processor

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/rules"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// job is a real data set under a name of its own on one broker.
type job struct {
	t          *testing.T
	kafka      *eos.Kafka
	rules      *rules.RuleSet
	names      eos.Names
	partitions int32
	dir        string
	set        string
}

// newJob loads the data set's job file, renamed so that tests do not meet on a shared broker.
func newJob(t *testing.T, brokers []string, set string, partitions int32) *job {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", "testdata", set, "job.yaml"))
	if err != nil {
		t.Fatalf("job file: %v", err)
	}
	name := fmt.Sprintf("t%x", rand.Uint64())
	stem := strings.ReplaceAll(set, "_", "-")
	src = bytes.ReplaceAll(src, []byte(stem), []byte(name))
	rs, err := rules.Load(src)
	if err != nil {
		t.Fatalf("load %s: %v", set, err)
	}
	return &job{
		t: t, kafka: &eos.Kafka{Brokers: brokers}, rules: rs, partitions: partitions, dir: t.TempDir(), set: set,
		names: eos.Names{Job: rs.Job().Name, Generation: 1},
	}
}

// onBoth runs a test on the embedded broker and on a real Kafka.
func onBoth(t *testing.T, test func(*testing.T, []string)) {
	t.Run("embedded", func(t *testing.T) { test(t, startFake(t)) })
	t.Run("kafka", func(t *testing.T) { test(t, kafkatest.Shared(t)) })
}

func startFake(t *testing.T) []string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatalf("kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func readLines(t *testing.T, path string) [][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("gzip: %v", err)
	}
	var lines [][]byte
	sc := bufio.NewScanner(z)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		lines = append(lines, bytes.Clone(sc.Bytes()))
	}
	if sc.Err() != nil {
		t.Fatalf("read %s: %v", path, sc.Err())
	}
	return lines
}

// produce writes the events from line from up to line to, keyed by ID unless unkeyed.
func (j *job) produce(from, to int, unkeyed bool) {
	j.t.Helper()
	cl, err := kgo.NewClient(j.kafka.Franz()...)
	if err != nil {
		j.t.Fatalf("client: %v", err)
	}
	defer cl.Close()
	topic := j.rules.Job().Input.Topic
	_, err = kadm.NewClient(cl).CreateTopic(j.t.Context(), j.partitions, 1, nil, topic)
	if err != nil && !strings.Contains(err.Error(), "TOPIC_ALREADY_EXISTS") {
		j.t.Fatalf("create %s: %v", topic, err)
	}
	lines := readLines(j.t, filepath.Join("..", "testdata", j.set, "events.ndjson.gz"))
	to = min(to, len(lines))
	applier := j.rules.NewApplier()
	for start := from; start < to; start += 5000 {
		var batch []*kgo.Record
		for _, line := range lines[start:min(start+5000, to)] {
			r := &kgo.Record{Topic: topic, Value: line}
			if !unkeyed {
				id, refusal := applier.Read(&rules.Record{Value: line, TimestampMs: time.Now().UnixMilli()})
				if refusal != nil {
					j.t.Fatalf("line %s: %v", line, refusal)
				}
				r.Key = []byte(id)
			}
			batch = append(batch, r)
		}
		if err := cl.ProduceSync(j.t.Context(), batch...).FirstErr(); err != nil {
			j.t.Fatalf("produce: %v", err)
		}
	}
}

// run starts n processors and waits until they are caught up; with fresh set, without local state.
func (j *job) run(n int, fresh bool) {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), 3*time.Minute)
	defer cancel()
	done := make(chan error, n)
	for i := range n {
		dir := filepath.Join(j.dir, fmt.Sprint(i))
		if fresh {
			if err := os.RemoveAll(dir); err != nil {
				j.t.Fatalf("remove: %v", err)
			}
		}
		cfg := Config{Rules: j.rules, Kafka: j.kafka, StateDir: dir, Instance: fmt.Sprint("p", i), UntilCaughtUp: true}
		if os.Getenv("EOS_LOG") != "" {
			cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("p", i)
		}
		p, err := New(cfg)
		if err != nil {
			j.t.Fatalf("new: %v", err)
		}
		go func() { done <- p.Run(ctx) }()
	}
	for range n {
		if err := <-done; err != nil {
			j.t.Fatalf("run: %v", err)
		}
	}
	if ctx.Err() != nil {
		j.t.Fatalf("not caught up in time")
	}
}

// table reads the committed states.
func (j *job) table() map[string]*codecs.State {
	j.t.Helper()
	cl, err := kgo.NewClient(j.kafka.Franz()...)
	if err != nil {
		j.t.Fatalf("client: %v", err)
	}
	defer cl.Close()
	ends, err := eos.Ends(j.t.Context(), cl, j.names.Table())
	if err != nil {
		j.t.Fatalf("ends: %v", err)
	}
	starts := map[int32]int64{}
	for p, span := range ends {
		starts[p] = span.Start
	}
	r, err := eos.NewReader(j.kafka, j.names.Table(), starts)
	if err != nil {
		j.t.Fatalf("reader: %v", err)
	}
	defer r.Close()
	states := map[string]*codecs.State{}
	for len(ends) > 0 {
		batches, err := r.Poll(j.t.Context())
		if err != nil {
			j.t.Fatalf("read table: %v", err)
		}
		for _, b := range batches {
			for _, rec := range b.Records {
				if !eos.IsUserKey(rec.Key) {
					continue
				}
				st := &codecs.State{}
				if err := st.UnmarshalBinary(rec.Value, j.rules.Schema()); err != nil {
					j.t.Fatalf("state of %q: %v", rec.Key, err)
				}
				states[string(rec.Key)] = st
			}
			if span, ok := ends[b.Partition]; ok && b.Next >= span.LSO {
				delete(ends, b.Partition)
			}
		}
	}
	return states
}

type oracleLine struct {
	ID      string  `json:"id"`
	Count   uint64  `json:"count"`
	Sum     string  `json:"sum"`
	Min     *string `json:"min"`
	Max     *string `json:"max"`
	FirstMs int64   `json:"first_ms"`
	LastMs  int64   `json:"last_ms"`
	Flags   map[string]struct {
		Line int64  `json:"line"`
		Time string `json:"time"`
	} `json:"flags"`
}

// checkOracle compares every ID. Totals that a job does not have are not compared.
func (j *job) checkOracle() {
	j.t.Helper()
	states := j.table()
	lines := readLines(j.t, filepath.Join("..", "testdata", j.set, "oracle.ndjson.gz"))
	if len(states) != len(lines) {
		j.t.Errorf("table has %d IDs, the oracle %d", len(states), len(lines))
	}
	for _, line := range lines {
		var want oracleLine
		if err := json.Unmarshal(line, &want); err != nil {
			j.t.Fatalf("oracle: %v", err)
		}
		st := states[want.ID]
		if st == nil {
			j.t.Errorf("%s: missing", want.ID)
			continue
		}
		if got, exp := j.summary(st), j.want(&want); got != exp {
			j.t.Errorf("%s:\n got %s\nwant %s", want.ID, got, exp)
		}
	}
}

func (j *job) summary(st *codecs.State) string {
	sc := j.rules.Schema()
	out := fmt.Sprintf("count %d first %d last %d", st.Count, st.FirstMs, st.LastMs)
	for i, name := range sc.Totals {
		if name == "sum" || name == "min" || name == "max" {
			text := "null"
			if st.Totals[i].Kind == codecs.Number {
				text = st.Totals[i].Num.String()
			}
			out += " " + name + " " + text
		}
	}
	for i, name := range sc.Flags {
		if st.Flags[i].Raised {
			out += fmt.Sprintf(" %s %s", name, codecs.AppendTime(nil, st.Flags[i].Why.TimeMs))
			if j.partitions == 1 {
				out += fmt.Sprintf(" @%d", st.Flags[i].Why.Offset)
			}
		}
	}
	return out
}

func (j *job) want(o *oracleLine) string {
	sc := j.rules.Schema()
	out := fmt.Sprintf("count %d first %d last %d", o.Count, o.FirstMs, o.LastMs)
	text := func(s *string) string {
		if s == nil {
			return "null"
		}
		return *s
	}
	all := map[string]string{"sum": o.Sum, "min": text(o.Min), "max": text(o.Max)}
	for _, name := range sc.Totals {
		if v, ok := all[name]; ok {
			out += " " + name + " " + v
		}
	}
	for _, name := range sc.Flags {
		if f, ok := o.Flags[name]; ok {
			out += fmt.Sprintf(" %s %s", name, f.Time)
			if j.partitions == 1 {
				out += fmt.Sprintf(" @%d", f.Line)
			}
		}
	}
	return out
}

func TestProcessor_EqualsTheOraclesOfRealData(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		for _, set := range []string{"ssh_auth", "hurdat2_storms", "nab_metrics"} {
			for _, partitions := range []int32{1, 4} {
				t.Run(fmt.Sprintf("%s/%d", set, partitions), func(t *testing.T) {
					t.Parallel()
					testOracle(t, brokers, set, partitions)
				})
			}
		}
	})
}

func testOracle(t *testing.T, brokers []string, set string, partitions int32) {
	j := newJob(t, brokers, set, partitions)
	lines := len(readLines(t, filepath.Join("..", "testdata", set, "events.ndjson.gz")))
	j.produce(0, lines/2, false)
	j.run(2, false)
	j.produce(lines/2, lines, false)
	j.run(2, true) // with its local state deleted
	j.checkOracle()
}
