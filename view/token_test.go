package view

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

func after(token string, wait time.Duration) Read { return Read{AtLeast: token, Wait: &wait} }

// asked waits until a read waits for its event.
func (r *running) asked() {
	r.t.Helper()
	r.await("a read that waits", func() bool { return r.waiting.Load() > 0 })
}

func TestToken_AReadComesAfterItsEvent(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	w.commit(change{"a", 1, 10}) // covers offset 0 of the partition
	r := w.view(t.TempDir()).ready()
	p := w.on("a")
	for n, token := range []string{fmt.Sprintf("%d@1", p), Token(1, w.inputID, p, 2), fmt.Sprintf("%d@0,%d@3", p, p)} {
		before := uint64(n + 1)
		if got := r.version("a"); got != before { // the control: who names no event is answered at once
			t.Fatalf("without a token: got version %d, want %d", got, before)
		}
		got := make(chan error, 1)
		var state codecs.State
		var asOf AsOf
		go func() {
			var err error
			asOf, err = r.Get(context.Background(), "a", after(token, WaitMax), &state)
			got <- err
		}()
		r.asked()
		select {
		case err := <-got:
			t.Fatalf("%s: answered before its event was applied: %v, version %d", token, err, state.Version)
		default:
		}
		w.commit(change{"a", before + 1, 10})
		if err := <-got; err != nil || state.Version != before+1 || asOf.Position != int64(before+1) {
			t.Errorf("%s: got %v, version %d as of %d, want version %d", token, err, state.Version, asOf.Position, before+1)
		}
	}
	if code, body, _ := r.get(fmt.Sprintf("/v1/ids/a?at_least=%d@3", p)); code != 200 || !strings.Contains(body, `"version":"4"`) {
		t.Errorf("an event that is covered: got %d %s", code, body)
	}
}

func TestToken_RefusesByName(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	w.commit(change{"a", 1, 101})
	r := w.view(t.TempDir()).ready()
	own, other := w.on("a"), 1-w.on("a")
	foreign := w.inputID
	foreign[3] ^= 1
	for _, test := range []struct{ at, want string }{
		{"3", "400 at_least is PARTITION@OFFSET"},
		{"0@", "400 at_least is PARTITION@OFFSET"},
		{"-1@0", "400 at_least is PARTITION@OFFSET"},
		{"0@0,", "400 at_least is PARTITION@OFFSET"},
		{"0@0.1", "400 at_least is PARTITION@OFFSET"},
		{"0@0.x." + Token(1, w.inputID, 0, 0)[6:], "400 at_least is PARTITION@OFFSET"},
		{"0@9223372036854775808", "400 at_least is PARTITION@OFFSET"},
		{"2@0", "400 the input has 2"},
		{fmt.Sprintf("%d@0", other), "400 another partitioner"},
		{fmt.Sprintf("%d@0,%d@0", own, other), "400 another partitioner"},
		{Token(1, foreign, own, 0), "410 another topic"},
		{fmt.Sprintf("%d@0&wait=31s", own), "400 wait is from 0s to 30s"},
		{fmt.Sprintf("%d@0&wait=-1s", own), "400 wait is a duration"},
		{fmt.Sprintf("%d@7&wait=1ms", own), "504 has not come past offset 7: 7 to go"},
		{strings.Repeat("0@0,", placesMax) + "0@0", "400 names 1001 events"},
	} {
		code, body, _ := r.get("/v1/ids/a?at_least=" + test.at)
		if got := fmt.Sprint(code, " ", body); !strings.HasPrefix(got, test.want[:3]) || !strings.Contains(got, test.want[4:]) {
			t.Errorf("%.60s: got %s, want %s", test.at, got, test.want)
		}
	}
	// A list asks every partition, a batch those of its IDs.
	if code, body, _ := r.get(fmt.Sprintf("/v1/ids?at_least=%d@0,%d@0&wait=0s", own, other)); code != 504 {
		t.Errorf("a list: got %d %s, want 504: nothing was processed on partition %d", code, body, other)
	}
	if _, _, err := r.BatchGet(t.Context(), []string{"a"}, after(fmt.Sprintf("%d@0", other), 0)); !isInvalid(err) {
		t.Errorf("a batch: got %v, want it refused", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Get(ctx, "a", after(fmt.Sprintf("%d@9", own), WaitMax), &codecs.State{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who has gone: got %v, want %v", err, context.Canceled)
	}
}

func isInvalid(err error) bool {
	var invalid *Invalid
	return errors.As(err, &invalid)
}

// TestToken_WaitsForWhatWasRekeyed: the event went through the loop to the ID's partition, and is not covered before that
// one is. It is the first of the job, so that nobody knew of the loop.
func TestToken_WaitsForWhatWasRekeyed(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	r.levelSince(0, time.Now())
	from, to := w.on("a"), 1-w.on("a")
	// The commit is there and seen. Its marker has not come to the loop, so that the record hides behind the last stable offset.
	loop := w.client(kgo.TransactionalID("loop"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := loop.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := loop.ProduceSync(t.Context(), &kgo.Record{Topic: w.names.Loop(), Partition: to, Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.input(w.schema.InputTopic, from, 1, kgo.TryCommit)
	produced := time.Now()
	w.transact(kgo.TryCommit, w.position(from, 2, 0)) // with the marker
	r.covers(from, w.seq[from])
	if ends, err := eos.Ends(t.Context(), w.cl, w.names.Loop()); err != nil || ends[to].LSO != 0 || ends[to].HW != 1 {
		t.Fatalf("got %+v (%v): want a record that is hidden", ends, err) // the control: the last stable offset is covered
	}
	r.neverRead(fmt.Sprintf("%d@0", from))
	r.neverLevelSince(to, produced)
	if err := loop.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	r.neverRead(fmt.Sprintf("%d@0", from))
	w.transact(kgo.TryCommit, w.position(to, 0, 1))
	if _, _, _, err := r.List(t.Context(), Filter{Limit: 1}, after(fmt.Sprintf("%d@0", from), WaitMax)); err != nil {
		t.Errorf("the loop is covered: got %v", err)
	}
}

// neverRead lets the prober look several times and requires that a read for the event does not come back.
func (r *running) neverRead(token string) {
	r.t.Helper()
	probes := r.probes.Load()
	ctx, cancel := context.WithCancel(r.t.Context())
	got := make(chan error, 1)
	go func() {
		_, _, _, err := r.List(ctx, Filter{Limit: 1}, after(token, WaitMax))
		got <- err
	}()
	r.await("probes", func() bool { return r.probes.Load() > probes+5 })
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		r.t.Errorf("at_least=%s: got %v, want it to wait", token, err)
	}
}

// TestToken_IsNotHeldUpByAPartitionThatStandsStill: what lies behind the position of another partition, which nobody processes,
// is read in its log. However long that takes, reads that wait for an event do not wait for it.
func TestToken_IsNotHeldUpByAPartitionThatStandsStill(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	var hang atomic.Bool
	var hanging atomic.Int64
	w.kafka = &eos.Kafka{Brokers: w.kafka.Brokers, ClientID: "test", Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if hang.Load() { // a connection for reading a log: those for asking are open
			hanging.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	r := w.view(t.TempDir()).ready()
	p := w.on("a")
	r.levelSince(p, time.Now())
	r.levelSince(1-p, time.Now())
	hang.Store(true)
	w.input(w.schema.InputTopic, 1-p, 1, kgo.TryCommit)
	r.await("a look into the log", func() bool { return hanging.Load() > 0 })
	w.commit(change{"a", 1, 10})
	var state codecs.State
	if _, err := r.Get(t.Context(), "a", after(fmt.Sprintf("%d@0", p), 5*time.Second), &state); err != nil || state.Version != 1 {
		t.Errorf("got version %d (%v), want 1 at once", state.Version, err)
	}
}

// TestToken_NeverAnswersWithAnOlderState reads what was just written, from many sides at once, while commits go on.
func TestToken_NeverAnswersWithAnOlderState(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := mustTable(t, embedded(t), 3)
	w.begin()
	r := w.view(t.TempDir()).ready()
	var readers sync.WaitGroup
	defer readers.Wait()
	rnd := rand.New(rand.NewPCG(seed, 2))
	versions := map[string]uint64{}
	for range 100 {
		id := fmt.Sprintf("k%d", rnd.IntN(12))
		versions[id]++
		want, p := versions[id], w.on(id)
		token := fmt.Sprintf("%d@%d", p, w.next[p][0]) // the event that the commit below covers
		for range 3 {
			readers.Go(func() {
				var state codecs.State
				if _, err := r.Get(context.Background(), id, after(token, WaitMax), &state); err != nil || state.Version < want {
					t.Errorf("%s at least %s: got version %d (%v), want %d", id, token, state.Version, err, want)
				}
				states, _, err := r.BatchGet(context.Background(), []string{id}, after(token, WaitMax))
				if err != nil || states[0] == nil || states[0].Version < want {
					t.Errorf("batch of %s at least %s: got %v (%v), want version %d", id, token, states, err, want)
				}
			})
		}
		w.commit(change{id, want, int64(want)})
	}
}
