//go:build simruntime

package eos

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/tidemark/tidemark/internal/sim"
	"github.com/tidemark/tidemark/internal/sim/histories"
)

// simTotals is the state of one ID: what a lost and a doubled event cannot both leave alone.
type simTotals struct{ count, sum, xor uint64 }

func (t *simTotals) add(hash uint64) {
	t.count++
	t.sum += hash
	t.xor ^= hash
}

// simCodec keeps simTotals.
type simCodec struct{}

func (simCodec) MemoryBytes(any) int64 { return 32 }

func (simCodec) Decode(_ string, base []byte, _ func([]byte) ([]byte, error)) (any, error) {
	return decodeTotals(base)
}

func decodeTotals(base []byte) (*simTotals, error) {
	if len(base) != 24 {
		return nil, fmt.Errorf("totals of %d bytes", len(base))
	}
	return &simTotals{binary.BigEndian.Uint64(base), binary.BigEndian.Uint64(base[8:]), binary.BigEndian.Uint64(base[16:])}, nil
}

func (simCodec) Encode(key string, v any, write func(key, value []byte)) error {
	t := v.(*simTotals)
	b := binary.BigEndian.AppendUint64(nil, t.count)
	b = binary.BigEndian.AppendUint64(b, t.sum)
	write([]byte(key), binary.BigEndian.AppendUint64(b, t.xor))
	return nil
}

// simPlan is how a history goes. Everything in it follows from the seed.
type simPlan struct {
	partitions  int32
	instances   int
	crashes     int
	session     time.Duration
	transaction time.Duration
	between     time.Duration // mean time between two batches of events
	life        time.Duration // mean time until an instance dies between two steps
	steps       int           // the greatest number of steps of a commit or takeover after which it dies at one
	freezes     float64       // the chance that it is frozen there instead
	brokers     time.Duration // mean time between two faults of brokers
	cluster     sim.Config
}

func newSimPlan(asked histories.History, rng *rand.Rand) simPlan {
	pick := func(ds ...time.Duration) time.Duration { return ds[rng.IntN(len(ds))] }
	p := simPlan{
		partitions: 1 + rng.Int32N(3), instances: 1 + rng.IntN(3), crashes: asked.Crashes,
		session: pick(time.Second, time.Second, 2*time.Second, 6*time.Second), transaction: pick(2*time.Second, 10*time.Second),
		between: pick(40*time.Millisecond, 100*time.Millisecond, 400*time.Millisecond),
		steps:   []int{8, 16, 40}[rng.IntN(3)], freezes: []float64{0, 0.2, 0.5}[rng.IntN(3)],
		brokers: pick(3*time.Second, 15*time.Second, time.Hour),
		cluster: sim.Config{Seed: asked.Seed, Brokers: 3, TransactionsV2: rng.IntN(3) > 0},
	}
	p.life = p.session * time.Duration(5+rng.IntN(10))
	f := &p.cluster.Faults
	f.Latency, f.MarkerDelay = pick(100*time.Microsecond, time.Millisecond, 5*time.Millisecond), pick(time.Millisecond, 10*time.Millisecond, 100*time.Millisecond)
	f.SlowLatency, f.SlowMarker = 20*f.Latency, pick(200*time.Millisecond, 3*time.Second)
	if rng.IntN(4) > 0 {
		f.LoseRequest, f.LoseReply, f.MuteReply, f.Commits = 0.001, 0.001, 0.0002, 10
	}
	return p
}

// favour makes what a protection is against more likely, for the control that has it switched off.
func (p *simPlan) favour(weak weakness) {
	switch {
	case weak.noGeneration:
		p.session, p.transaction, p.freezes, p.steps = time.Second, time.Minute, 0.8, 40
		p.instances = max(p.instances, 2)
	case weak.goOn, weak.flushFirst:
		p.cluster.Faults.LoseRequest, p.cluster.Faults.Commits = 0.003, 10
	}
}

// simWorld is one history: a model cluster, the instances of a job on it, and what must come of it.
type simWorld struct {
	t     *testing.T
	plan  simPlan
	weak  weakness
	dir   string
	c     *sim.Cluster
	names Names
	input string

	mu       sync.Mutex // guards the fields below
	rng      *rand.Rand
	want     map[string]*simTotals
	events   int
	deliver  map[uint64]bool // events that count
	crashes  map[string]int  // by step
	crashed  int
	freezes  int
	stops    int
	brokers  int
	finds    []string
	hash     uint64
	lines    *os.File
	draining bool
	dirs     int
}

const simJob = "sim"

func newSimWorld(t *testing.T, asked histories.History) *simWorld {
	w := &simWorld{
		t: t, weak: simWeakness(t, asked.Without), dir: simDir(t), names: Names{Job: simJob, Generation: 1}, input: simJob + "-in",
		rng: rand.New(rand.NewPCG(asked.Seed, 0)), want: map[string]*simTotals{}, deliver: map[uint64]bool{}, crashes: map[string]int{},
	}
	for _, step := range crashSteps {
		w.crashes[step] = 0
	}
	w.plan = newSimPlan(asked, w.rng)
	w.plan.favour(w.weak)
	w.plan.cluster.Trace = w.trace
	if asked.Trace != "" {
		var err error
		if w.lines, err = os.Create(asked.Trace); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// simDir is a directory of its own. Its name comes neither from the seed, for the same history may be running elsewhere, nor has it
// now this and now that length: what paths take of memory moves addresses, and with them the order of maps (sim/doc.go).
func simDir(t *testing.T) string {
	dir := filepath.Join(os.TempDir(), "tidemark-sim-"+crand.Text())
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// trace folds a line into the hash that two runs of one seed must share.
func (w *simWorld) trace(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := fnv.New64a()
	_ = binary.Write(h, binary.BigEndian, w.hash)
	_, _ = h.Write([]byte(line))
	w.hash = h.Sum64()
	if w.lines != nil {
		fmt.Fprintf(w.lines, "%s\n", line)
	}
}

func (w *simWorld) find(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finds = append(w.finds, fmt.Sprintf(format, args...))
}

// chance draws from the history's own source.
func (w *simWorld) chance(p float64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Float64() < p
}

func (w *simWorld) exponential(mean time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.ExpFloat64() * float64(mean))
}

func (w *simWorld) uniform(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// produce writes one batch of events: most on the partition of their ID, some elsewhere, some in transactions of which
// some are aborted.
func (w *simWorld) produce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	partition := w.rng.Int32N(w.plan.partitions)
	var records []sim.Record
	kind := w.rng.IntN(10) // 0: aborted, 1 and 2: a transaction
	for range 1 + w.rng.IntN(4) {
		id := fmt.Sprintf("id-%d", w.rng.IntN(12))
		hash := w.rng.Uint64()
		if w.rng.IntN(8) > 0 {
			for Place([]byte(id), w.plan.partitions) != partition {
				id = fmt.Sprintf("id-%d", w.rng.IntN(40))
			}
		}
		records = append(records, sim.Record{Key: []byte(id), Value: binary.BigEndian.AppendUint64(nil, hash)})
		if kind == 0 {
			continue
		}
		if w.want[id] == nil {
			w.want[id] = &simTotals{}
		}
		w.want[id].add(hash)
		w.deliver[hash] = true
		w.events++
	}
	if kind <= 2 {
		w.c.WriteTransaction(kind > 0, w.input, partition, records...)
	} else {
		w.c.Write(w.input, partition, records...)
	}
}

// handler counts an event on the partition of its ID, and hands others on through the loop.
func (w *simWorld) handler(int32) Handler {
	return func(work *Work, msg *sarama.ConsumerMessage) error {
		if home := Place(msg.Key, w.plan.partitions); home != work.Partition() {
			work.Emit(Output{Topic: w.names.Loop(), Partition: home, Key: msg.Key, Value: msg.Value})
			return nil
		}
		v, err := work.Get(string(msg.Key))
		if err != nil {
			return err
		}
		t, ok := v.(*simTotals)
		if !ok {
			t = &simTotals{}
		}
		t.add(binary.BigEndian.Uint64(msg.Value))
		work.Put(string(msg.Key), t)
		work.Emit(Output{Topic: w.names.Flags(), Partition: work.Partition(), Key: msg.Key, Value: msg.Value})
		return nil
	}
}

// newDir is an empty state directory, or one with what a killed process left in another.
func (w *simWorld) newDir(from string) string {
	w.mu.Lock()
	w.dirs++
	dir := filepath.Join(w.dir, fmt.Sprint(w.dirs))
	w.mu.Unlock()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		w.t.Error(err)
	}
	if from != "" {
		if err := os.CopyFS(dir, noLocks{os.DirFS(from)}); err != nil && !strings.Contains(err.Error(), "no such file") {
			w.find("copy local state: %v", err)
		}
	}
	return dir
}
