package eos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// sumCodec keeps a uint64 for each key.
type sumCodec struct{}

func (sumCodec) Decode(_ string, base []byte, _ func([]byte) ([]byte, error)) (any, error) {
	if len(base) != 8 {
		return nil, fmt.Errorf("a sum of %d bytes", len(base))
	}
	n := binary.BigEndian.Uint64(base)
	return &n, nil
}

func (sumCodec) MemoryBytes(any) int64 { return 16 }

func (sumCodec) Encode(key string, v any, write func(key, value []byte)) error {
	write([]byte(key), binary.BigEndian.AppendUint64(nil, *v.(*uint64)))
	return nil
}

// sumHandler adds each record's number to its key, and echoes the record to the outputs.
func sumHandler(names Names) func(int32) Handler {
	return func(int32) Handler {
		return func(w *Work, msg *sarama.ConsumerMessage) error {
			v, err := w.Get(string(msg.Key))
			if err != nil {
				return err
			}
			n, ok := v.(*uint64)
			if !ok {
				n = new(uint64)
			}
			*n += binary.BigEndian.Uint64(msg.Value)
			w.Put(string(msg.Key), n)
			w.Emit(Output{Topic: names.Flags(), Partition: w.Partition(), Key: msg.Key, Value: msg.Value})
			return nil
		}
	}
}

// world is a broker with one job's topics and what is to be expected of it.
type world struct {
	t          *testing.T
	kafka      *Kafka
	names      Names
	input      string
	partitions int32
	cl         *kgo.Client
	want       map[string]uint64
	produced   int
}

func newWorld(t *testing.T, brokers []string, partitions int32) *world {
	t.Helper()
	w := &world{
		t: t, kafka: &Kafka{Brokers: brokers}, partitions: partitions, want: map[string]uint64{},
		names: Names{Job: fmt.Sprintf("sum-%d", rand.Uint64()), Generation: 1},
	}
	w.input = w.names.Job + "-in"
	var err error
	w.cl, err = kgo.NewClient(w.kafka.Franz(kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(w.cl.Close)
	adm := kadm.NewClient(w.cl)
	compact := "compact"
	for topic, config := range map[string]map[string]*string{
		w.input: nil, w.names.Loop(): nil, w.names.Flags(): nil, w.names.DeadLetters(): nil,
		w.names.Table(): {"cleanup.policy": &compact},
	} {
		if _, err := adm.CreateTopic(t.Context(), partitions, 1, config, topic); err != nil {
			t.Fatalf("create %s: %v", topic, err)
		}
		eventually(t, time.Minute, "leaders of "+topic, func() bool {
			_, err := Ends(t.Context(), w.cl, topic)
			return err == nil
		})
	}
	return w
}

// onBoth runs a test on the embedded broker and on a real Kafka.
func onBoth(t *testing.T, test func(*testing.T, []string)) {
	t.Run("embedded", func(t *testing.T) { test(t, startFake(t)) })
	t.Run("kafka", func(t *testing.T) { test(t, kafkatest.Shared(t)) })
}

func startFake(t *testing.T) []string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.min.session.timeout.ms": "500"}))
	if err != nil {
		t.Fatalf("kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

// produce writes n records over keys keys and notes what they add up to.
func (w *world) produce(n, keys int) {
	w.t.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		w.produced++
		key := fmt.Sprintf("k%d", w.produced%keys)
		records[i] = &kgo.Record{
			Topic: w.input, Partition: Place([]byte(key), w.partitions), Key: []byte(key),
			Value: binary.BigEndian.AppendUint64(nil, uint64(w.produced)),
		}
		w.want[key] += uint64(w.produced)
	}
	if err := w.cl.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatalf("produce: %v", err)
	}
}

func (w *world) config(instance, dir string) Config {
	cfg := Config{
		Kafka: w.kafka, Names: w.names, Input: w.input, Instance: instance, Digest: "d1", Dir: dir,
		Codec: sumCodec{}, NewHandler: sumHandler(w.names),
	}
	if os.Getenv("EOS_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("unit", instance)
	}
	return cfg
}

// run starts a unit under Goka; the returned stop ends it and answers its error.
func (w *world) run(cfg Config) (u *Unit, stop func() error) {
	w.t.Helper()
	u, err := New(cfg)
	if err != nil {
		w.t.Fatalf("new unit: %v", err)
	}
	graph := goka.DefineGroup(goka.Group(w.names.Group()),
		goka.Input(goka.Stream(w.input), u.BatchCodec(), u.Callback),
		goka.Loop(u.BatchCodec(), u.Callback), goka.Persist(u.TableCodec()))
	proc, err := goka.NewProcessor(w.kafka.Brokers, graph, u.Options()...)
	if err != nil {
		w.t.Fatalf("new processor: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- proc.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		err := <-done
		return errors.Join(u.Err(), err, u.Close())
	}
	w.t.Cleanup(func() { _ = stop() })
	return u, stop
}

// caughtUp waits until everything produced so far is committed.
func (w *world) caughtUp(u *Unit) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	if err := u.WaitCaughtUp(ctx); err != nil {
		w.t.Fatalf("catching up: %v; unit: %v; status: %+v", err, u.Err(), u.Status())
	}
}

// check compares the committed table and the outputs with what was produced.
func (w *world) check() {
	w.t.Helper()
	for _, fault := range w.faults() {
		w.t.Error(fault)
	}
}

// faults are the differences between what is committed and what was produced.
func (w *world) faults() (faults []string) {
	w.t.Helper()
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	got := map[string]uint64{}
	for _, r := range w.readAll(w.names.Table()) {
		switch {
		case IsPositionKey(r.Key):
		case r.Value == nil:
			delete(got, string(r.Key))
		default:
			got[string(r.Key)] = binary.BigEndian.Uint64(r.Value)
		}
	}
	for key, want := range w.want {
		if got[key] != want {
			fault("table[%q] = %d, want %d", key, got[key], want)
		}
	}
	if len(got) != len(w.want) {
		fault("table has %d keys, want %d", len(got), len(w.want))
	}
	if n := len(w.readAll(w.names.Flags())); n != w.produced {
		fault("outputs: %d records, want %d", n, w.produced)
	}
	return faults
}

// readAll reads what is committed in a topic, once nothing is open in it: the markers of a commit that was answered come late.
func (w *world) readAll(topic string) []*kgo.Record {
	w.t.Helper()
	var ends map[int32]Span
	eventually(w.t, 30*time.Second, "no transaction is open in "+topic, func() bool {
		var err error
		if ends, err = Ends(w.t.Context(), w.cl, topic); err != nil {
			w.t.Fatalf("ends of %s: %v", topic, err)
		}
		for _, span := range ends {
			if span.LSO < span.HW {
				return false
			}
		}
		return true
	})
	starts := map[int32]int64{}
	for p, span := range ends {
		starts[p] = span.Start
	}
	r, err := NewReader(w.kafka, topic, starts)
	if err != nil {
		w.t.Fatalf("reader: %v", err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	var all []*kgo.Record
	for open := len(ends); open > 0; {
		batches, err := r.Poll(ctx)
		if err != nil {
			w.t.Fatalf("read %s: %v", topic, err)
		}
		for _, b := range batches {
			all = append(all, b.Records...)
			if span, ok := ends[b.Partition]; ok && b.Next >= span.LSO {
				delete(ends, b.Partition)
				open--
			}
		}
	}
	return all
}

func TestUnit_CountsOnceOverRestartsAndLostLocalState(t *testing.T) {
	onBoth(t, testRestarts)
}

func testRestarts(t *testing.T, brokers []string) {
	w := newWorld(t, brokers, 4)
	dir := t.TempDir()
	w.produce(5000, 100)
	u, stop := w.run(w.config("a", dir))
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()

	w.produce(5000, 130)
	u, stop = w.run(w.config("a", dir)) // continues from local state
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()

	w.produce(5000, 130)
	u, stop = w.run(w.config("a", t.TempDir())) // rebuilds from Kafka
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()
}

func TestUnit_CountsOnceWhileASecondOneJoinsAndLeaves(t *testing.T) {
	onBoth(t, testSecondUnit)
}

func testSecondUnit(t *testing.T, brokers []string) {
	w := newWorld(t, brokers, 4)
	w.produce(3000, 50)
	a, stopA := w.run(w.config("a", t.TempDir()))
	w.caughtUp(a)
	b, stopB := w.run(w.config("b", t.TempDir()))
	for i := 0; i < 5; i++ {
		w.produce(1000, 50)
	}
	w.caughtUp(b)
	if err := stopA(); err != nil {
		t.Fatalf("stop a: %v", err)
	}
	w.produce(1000, 50)
	w.caughtUp(b)
	if err := stopB(); err != nil {
		t.Fatalf("stop b: %v", err)
	}
	w.check()
}
