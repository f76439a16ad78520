package view

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/broker"
	"github.com/tidemark/tidemark/internal/history"
	"github.com/tidemark/tidemark/internal/kafkatest"
)

// table is a job's topics, into which the test writes what a processor would.
type table struct {
	t           testing.TB
	kafka       *eos.Kafka
	names       eos.Names
	schema      *codecs.Schema
	partitions  int32
	cl          *kgo.Client // transactional
	id, inputID [16]byte
	seq         map[int32]uint64
	records     map[int32]uint64 // of the table, by partition, as the last commit counts them
	truth       *history.Truth
	next        map[int32][2]int64 // of input and loop, as the last commit covers them
	producer    Producer           // of the views that are made from now on
	spans       trace.TracerProvider
}

func embedded(t testing.TB) []string {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatalf("embedded broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close the broker: %v", err)
		}
	})
	return b.Addrs()
}

func mustTable(t testing.TB, addrs []string, partitions int32) *table {
	t.Helper()
	job := kafkatest.TopicName(t)
	w := &table{
		t: t, kafka: &eos.Kafka{Brokers: addrs, ClientID: "test"}, names: eos.Names{Job: job}, partitions: partitions,
		schema: &codecs.Schema{Job: job, InputTopic: job + "-in", Digest: "00112233445566778899aabbccddeeff", Generation: 1, Totals: []string{"sum"}, Flags: []string{"big", "odd"}},
		truth:  &history.Truth{}, seq: map[int32]uint64{}, records: map[int32]uint64{}, next: map[int32][2]int64{},
	}
	w.cl = w.client(kgo.TransactionalID(job+"/test"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	compact := "compact"
	adm := kadm.NewClient(w.cl)
	for topic, config := range map[string]map[string]*string{
		w.schema.InputTopic: nil, w.names.Loop(): nil, w.names.Table(): {"cleanup.policy": &compact},
	} {
		if _, err := adm.CreateTopic(t.Context(), partitions, 1, config, topic); err != nil {
			t.Fatalf("create %s: %v", topic, err)
		}
	}
	for topic, id := range map[string]*[16]byte{w.names.Table(): &w.id, w.schema.InputTopic: &w.inputID} {
		f, err := lookUp(t.Context(), w.cl, topic)
		if err != nil {
			t.Fatalf("look up %s: %v", topic, err)
		}
		*id = f.id
	}
	return w
}

func (w *table) client(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl, err := kgo.NewClient(w.kafka.Franz(opts...)...)
	if err != nil {
		w.t.Fatalf("client: %v", err)
	}
	w.t.Cleanup(cl.Close)
	return cl
}

// change is what one event made of an ID; version 0 is a deletion.
type change struct {
	id      string
	version uint64
	sum     int64
}

// on gives the partition of an ID.
func (w *table) on(id string) int32 { return eos.Place([]byte(id), w.partitions) }

func (w *table) record(c change) *kgo.Record {
	r := &kgo.Record{Topic: w.names.Table(), Partition: w.on(c.id), Key: []byte(c.id)}
	w.records[r.Partition]++
	if c.version > 0 {
		r.Value = stateOf(c).AppendBinary(nil, w.schema)
	}
	return r
}

// stateOf is the state that a change leaves: the flags follow from the sum.
func stateOf(c change) *codecs.State {
	s := &codecs.State{
		Version: c.version, Count: c.version, FirstMs: 1000, LastMs: 2000, Working: []byte("the rules' own"),
		Totals: []codecs.Value{{Kind: codecs.Number, Num: codecs.DecimalFromInt64(c.sum)}}, Flags: make([]codecs.Flag, 2),
	}
	s.Flags[0] = codecs.Flag{Raised: c.sum >= 100, Why: codecs.Why{TimeMs: 2000}}
	s.Flags[1] = codecs.Flag{Raised: c.sum%2 != 0, Why: codecs.Why{TimeMs: 1500}}
	return s
}

// position is the position record of a partition's next commit, which covers n more input records.
func (w *table) position(p int32, n, loop int64) *kgo.Record {
	w.seq[p]++
	w.records[p]++
	next := w.next[p]
	next[0], next[1] = next[0]+n, next[1]+loop
	w.next[p] = next
	pos := &eos.Position{
		Seq: w.seq[p], Records: w.records[p], Partition: p, Digest: w.schema.Digest, Generation: 1, CommittedMs: time.Now().UnixMilli(), Owner: "test", TableID: w.id,
		Sources: []eos.Source{{Topic: w.schema.InputTopic, TopicID: w.inputID, Next: next[0], TimeMs: 2000}, {Topic: w.names.Loop(), Next: next[1]}},
	}
	return &kgo.Record{Topic: w.names.Table(), Partition: p, Key: eos.PositionKey(), Value: pos.AppendBinary(nil)}
}

// transact writes records in one transaction.
func (w *table) transact(end kgo.TransactionEndTry, records ...*kgo.Record) {
	w.t.Helper()
	if err := w.cl.BeginTransaction(); err != nil {
		w.t.Fatalf("begin: %v", err)
	}
	if err := w.cl.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatalf("produce: %v", err)
	}
	if err := w.cl.EndTransaction(w.t.Context(), end); err != nil {
		w.t.Fatalf("end: %v", err)
	}
	for _, r := range records {
		if end == kgo.TryAbort && r.Topic == w.names.Table() {
			w.records[r.Partition]--
		}
	}
}

// commit writes changes with the position records of their partitions, each of which covers as many input records.
func (w *table) commit(changes ...change) {
	w.t.Helper()
	var records []*kgo.Record
	made := map[int32][]history.Change{}
	for _, c := range changes {
		records = append(records, w.record(c))
		made[w.on(c.id)] = append(made[w.on(c.id)], w.truly(c))
	}
	for p, changes := range made {
		records = append(records, w.position(p, int64(len(changes)), 0))
		w.truth.Commit(p, w.seq[p], changes...)
	}
	w.transact(kgo.TryCommit, records...)
}

// truly is a change as the history has it.
func (w *table) truly(c change) history.Change {
	h := history.Change{ID: c.id, Version: c.version, Deleted: c.version == 0}
	if h.Deleted {
		return h
	}
	s := stateOf(c)
	h.Content = string(s.AppendJSON(nil, c.id, w.schema))
	for i, f := range s.Flags {
		if f.Raised {
			h.Flags = append(h.Flags, w.schema.Flags[i])
		}
	}
	return h
}

// begin writes the first position record of every partition, as a processor does when it starts.
func (w *table) begin() {
	w.t.Helper()
	var records []*kgo.Record
	for p := range w.partitions {
		records = append(records, w.position(p, 0, 0))
		w.truth.Commit(p, w.seq[p])
	}
	w.transact(kgo.TryCommit, records...)
}

// input writes n records into an input partition.
func (w *table) input(topic string, p int32, n int, end kgo.TransactionEndTry) {
	w.t.Helper()
	var records []*kgo.Record
	for range n {
		records = append(records, &kgo.Record{Topic: topic, Partition: p, Value: []byte("{}")})
	}
	w.transact(end, records...)
}

// running is a view at work, and its HTTP server.
type running struct {
	*View
	t    testing.TB
	url  string
	stop func() error
}

func (w *table) view(dir string) *running {
	w.t.Helper()
	return w.viewWith(dir, WatchConfig{})
}

func (w *table) viewWith(dir string, watch WatchConfig) *running {
	w.t.Helper()
	v, err := New(Config{
		Kafka: w.kafka, Names: w.names, Input: w.schema.InputTopic, Schema: w.schema, Dir: dir, ProbeInterval: 5 * time.Millisecond, Watch: watch, Producer: w.producer, Spans: w.spans,
	})
	if err != nil {
		w.t.Fatalf("new view: %v", err)
	}
	server := httptest.NewUnstartedServer(v.Handler())
	server.Config.Protocols = &http.Protocols{}
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	r := &running{View: v, t: w.t, url: server.URL}
	stopped := false
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		err := <-ended
		server.Close()
		return err
	}
	w.t.Cleanup(func() {
		if err := r.stop(); err != nil {
			w.t.Errorf("view: %v", err)
		}
	})
	return r
}

// await waits until a condition holds.
func (r *running) await(what string, holds func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not come; status %+v", what, r.Status())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *running) ready() *running {
	r.t.Helper()
	r.await("being ready", func() bool { return r.Ready() == nil })
	return r
}

// covers waits until the view shows a partition's commit.
func (r *running) covers(p int32, seq uint64) {
	r.t.Helper()
	r.await(fmt.Sprintf("commit %d of partition %d", seq, p), func() bool {
		return r.Ready() == nil && r.Status().Partitions[p].Commit >= seq
	})
}

// get asks over HTTP.
func (r *running) get(path string, headers ...string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatalf("request %s: %v", path, err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return r.do(req)
}

func (r *running) do(req *http.Request) (int, string, http.Header) {
	r.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// version is what the view says of an ID; 0 is not found.
func (r *running) version(id string) uint64 {
	r.t.Helper()
	var s codecs.State
	_, err := r.Get(r.t.Context(), id, Read{}, &s)
	if err == ErrNotFound {
		return 0
	} else if err != nil {
		r.t.Fatalf("get %q: %v", id, err)
	}
	return s.Version
}
