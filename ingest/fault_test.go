package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/view"
)

// flaky writes from several callers while answers of a real Kafka are lost, and returns how often each event was
// promised, and where it is.
func flaky(t *testing.T, weak weakness) (results map[string]view.Produced, there map[string][]string) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd, mu := rand.New(rand.NewPCG(seed, 1)), sync.Mutex{}
	j := mustJob(t, kafkatest.Shared(t), jobFile)
	wire := newCable()
	j.kafka.Dial = wire.dial
	w := j.produces(func(c *Config) { c.weak = weak })
	wire.set(func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(8) > 0
	})
	results = map[string]view.Produced{}
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for n := range 40 {
				id := fmt.Sprintf("c%d-%d", caller, n)
				got, err := w.Produce(context.Background(), [][]byte{[]byte(event(id, 1))}, false)
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				mu.Lock()
				results[id] = got[0]
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	wire.set(nil)
	w.await("the end of what is on its way", func() bool { return w.inflight.Load() == 0 })
	there = map[string][]string{}
	for _, r := range j.written() {
		id := string(r.Key)
		there[id] = append(there[id], view.Token(1, w.writer.Load().topicID, r.Partition, r.Offset))
	}
	return results, there
}

// TestIngest_LostAnswersNeitherDoubleNorDeceive: what was promised is there once, what was denied is not, and the rest once at
// most.
func TestIngest_LostAnswersNeitherDoubleNorDeceive(t *testing.T) {
	results, there := flaky(t, weakness{})
	acked := 0
	for id, r := range results {
		switch {
		case len(there[id]) > 1, r.Code == 0 && !slices.Equal(there[id], []string{r.Token}), r.Code == connect.CodeUnavailable && there[id] != nil:
			t.Errorf("%s: got %+v, and it lies at %v", id, r, there[id])
		case r.Code == 0:
			acked++
		}
	}
	if len(results) != 320 || acked == 0 {
		t.Errorf("got %d results, %d of them acknowledged, want 320", len(results), acked)
	}
}

func TestIngest_LostAnswersDoubleWithoutIdempotence(t *testing.T) {
	_, there := flaky(t, weakness{plain: true})
	for _, at := range there {
		if len(at) > 1 {
			return
		}
	}
	t.Errorf("%d events, each of them there once: the control shows nothing", len(there))
}

// TestIngest_BrokersAway: who asks hears in time that nothing was written, what is on its way is bounded, and it goes on
// when they are back.
func TestIngest_BrokersAway(t *testing.T) {
	j := mustJob(t, embedded(t), jobFile)
	wire := newCable()
	j.kafka.Dial = wire.dial
	const room = 64 << 10
	w := j.produces(func(c *Config) { c.Timeout, c.InflightBytesMax = 4*time.Second, room })
	wire.tear()
	var answers [64]*answer
	var full atomic.Int64
	var callers sync.WaitGroup
	for n := range answers {
		callers.Go(func() {
			a, err := w.try(t.Context(), one, "", strings.NewReader(event(strings.Repeat("x", 1000), n)))
			if err != nil {
				t.Errorf("caller %d: %v", n, err)
				return
			}
			if got := w.inflight.Load(); got > room {
				t.Errorf("%d bytes are on their way, want at most %d", got, room)
			}
			switch answers[n] = a; a.status {
			case http.StatusTooManyRequests:
				if full.Add(1); a.header.Get("Retry-After") == "" || a.Code != "resource_exhausted" {
					t.Errorf("429 without Retry-After, or another code: %s", a.body)
				}
			case http.StatusServiceUnavailable:
				if r := a.all(); len(r) != 1 || r[0].Error.Code != "unavailable" {
					t.Errorf("got %s", a.body)
				}
			default:
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
	callers.Wait()
	if n := full.Load(); n == 0 || n == int64(len(answers)) {
		t.Errorf("%d of %d callers found no room, want some", n, len(answers))
	}
	w.await("room", func() bool { return w.inflight.Load() == 0 })
	wire.mend()
	if a := w.post(one, "", strings.NewReader(event("a", 1))); a.status != 200 {
		t.Errorf("when the broker is back: got %d %s", a.status, a.body)
	}
	if got := j.written(); len(got) != 1 {
		t.Errorf("got %d records, want the one that was acknowledged", len(got))
	}
}

// TestIngest_NoAnswerIsNotKnown: what was sent and not answered may have been written, its caller hears just that, and it keeps its
// room until it is settled.
func TestIngest_NoAnswerIsNotKnown(t *testing.T) {
	j := mustJob(t, embedded(t), jobFile)
	wire := newCable()
	j.kafka.Dial = wire.dial
	w := j.produces(func(c *Config) { c.Timeout = time.Second })
	// The client sends one request and no more to a broker that has not answered one yet; what waits behind it is given up in time.
	for _, id := range []string{"a", "b", "c"} {
		if a := w.post(one, "", strings.NewReader(event(id, 1))); a.status != 200 {
			t.Fatalf("before: got %d %s", a.status, a.body)
		}
	}
	wire.hold()
	a := w.post(many, "?partial=true", strings.NewReader(event("b", 1)+"\n"+event("b", 1)))
	if a.status != 200 || len(a.Results) != 2 || a.Results[0].Error == nil || a.Results[0].Error.Code != "unknown" || a.Results[1].Error.Line != 2 {
		t.Errorf("partial: got %d %s", a.status, a.body)
	}
	if a = w.post(one, "", strings.NewReader(event("c", 1))); a.status != 504 || a.Code != "unknown" || len(a.all()) != 1 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if got := w.inflight.Load(); got < 3*recordBytes {
		t.Errorf("%d bytes are on their way, want those of 3 events", got)
	}
	wire.release()
	w.await("the late events", func() bool { return w.inflight.Load() == 0 })
	if got := len(j.written()); got != 6 {
		t.Errorf("got %d records, want 6: none lost, none twice", got)
	}
}

// TestIngest_MemoryIsBounded fills an Ingest whose broker is away, with bodies that are read and with events that wait.
func TestIngest_MemoryIsBounded(t *testing.T) {
	const each, callers = 256 << 10, 64
	grown := func(room int64) int64 {
		j := mustJob(t, embedded(t), jobFile)
		wire := newCable()
		j.kafka.Dial = wire.dial
		w := j.produces(func(c *Config) { c.InflightBytesMax, c.Timeout = room, 20*time.Second })
		wire.tear()
		before := heap()
		body := event("a", 1)[:len(event("a", 1))-1] + `,"text":"` + strings.Repeat("x", each) + `"}`
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var asked atomic.Int64
		for range callers {
			all.Go(func() {
				_, err := w.try(ctx, one, "", strings.NewReader(body))
				if asked.Add(1); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		w.await("every caller", func() bool {
			return asked.Load()+w.writer.Load().client.BufferedProduceRecords() >= callers
		})
		after := heap()
		cancel()
		all.Wait()
		w.stop()
		return after - before
	}
	const room = 3 << 20
	bounded, unbounded := grown(room), grown(1<<40)
	t.Logf("the heap grew by %d MiB with room for %d, and by %d MiB without a bound", bounded>>20, room>>20, unbounded>>20)
	if bounded > 4*room {
		t.Errorf("the heap grew by %d MiB with room for %d", bounded>>20, room>>20)
	}
	if unbounded < callers*each { // the control
		t.Errorf("without a bound it grew by %d MiB only, less than what was sent", unbounded>>20)
	}
}

// TestIngest_AnEventOnItsWayHoldsNoMoreThanItsRoom: the caller is answered, and of the large body in which a short event came
// nothing stays. The control borrows the body.
func TestIngest_AnEventOnItsWayHoldsNoMoreThanItsRoom(t *testing.T) {
	const callers = 32
	held := func(weak weakness) (bytes, room int64) {
		j := mustJob(t, embedded(t), jobFile)
		wire := newCable()
		j.kafka.Dial = wire.dial
		w := j.produces(func(c *Config) { c.Timeout, c.weak = time.Second, weak })
		if a := w.post(one, "", strings.NewReader(event("a", 1))); a.status != 200 {
			t.Fatalf("before: got %d %s", a.status, a.body)
		}
		wire.hold()
		before := heap()
		body := strings.Repeat("\n", 1<<20-200) + event("a", 1)
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				if a, err := w.try(t.Context(), many, "", strings.NewReader(body)); err != nil || a.status != 504 {
					t.Errorf("got %+v (%v), want 504", a, err)
				}
			})
		}
		all.Wait()
		bytes, room = heap()-before, w.inflight.Load()
		wire.release()
		w.await("the late events", func() bool { return w.inflight.Load() == 0 })
		return bytes, room
	}
	owned, room := held(weakness{})
	borrowed, _ := held(weakness{borrow: true})
	t.Logf("%d events with room of %d KiB held %d KiB, borrowed %d KiB", callers, room>>10, owned>>10, borrowed>>10)
	if room < callers*recordBytes || owned > room+callers<<20/4 {
		t.Errorf("%d events with room of %d bytes hold %d", callers, room, owned)
	}
	if borrowed < callers<<20/2 {
		t.Errorf("the control holds %d bytes only, less than the bodies", borrowed)
	}
}

// TestCall_KeepsItsRoomUntilTheLastRecordIsSettled: one that is not holds what all of them share.
func TestCall_KeepsItsRoomUntilTheLastRecordIsSettled(t *testing.T) {
	j := mustJob(t, mustFake(t).ListenAddrs(), jobFile)
	i, err := New(Config{Kafka: j.kafka, Names: j.names, Rules: j.rules, Timeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c := newCall(i, &writer{bytesMax: 1 << 20}, 2)
	if refused := c.check([][]byte{[]byte(event("a", 1)), []byte(event("b", 1))}); refused != 0 {
		t.Fatalf("%d events were refused", refused)
	}
	if err := i.Admit(c.bytes); err != nil {
		t.Fatal(err)
	}
	c.open, c.settled = 2, make([]settled, 2)
	c.settle(0, &c.records[0], nil)
	if got := c.wait(); got[0].Token == "" || got[1].Code != connect.CodeUnknown {
		t.Errorf("got %+v, want a token and one that is not known", got)
	}
	if got := i.inflight.Load(); got != c.bytes || got == 0 {
		t.Errorf("with one settled, room of %d bytes is taken, want %d", got, c.bytes)
	}
	c.settle(1, &c.records[1], nil)
	if got := i.inflight.Load(); got != 0 {
		t.Errorf("with all settled, room of %d bytes is taken", got)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestIngest_FollowsItsTopic: a topic that is made again has other tokens, one that takes less refuses what is larger.
func TestIngest_FollowsItsTopic(t *testing.T) {
	j := mustJob(t, kafkatest.Shared(t), jobFile)
	w := j.produces(func(c *Config) { c.lookEvery = 50 * time.Millisecond })
	large := []byte(event("a", 1)[:len(event("a", 1))-1] + `,"text":"` + strings.Repeat("x", 5000) + `"}`)
	first, err := w.Produce(t.Context(), [][]byte{large}, false)
	if err != nil || first[0].Token == "" {
		t.Fatalf("got %v (%v)", first, err)
	}
	cl, err := kgo.NewClient(j.kafka.Franz()...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	limit := "2000"
	if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &limit}}, j.input); err != nil {
		t.Fatal(err)
	}
	w.await("the new limit", func() bool { return w.writer.Load() != nil && w.writer.Load().bytesMax == 2000 })
	if got, err := w.Produce(t.Context(), [][]byte{large}, false); err != nil || got[0].Reason != "too_large" {
		t.Errorf("a large event: got %v (%v), want it refused", got, err)
	}
	old := w.writer.Load().topicID
	if _, err := adm.DeleteTopics(t.Context(), j.input); err != nil {
		t.Fatal(err)
	}
	w.await("the end of the topic", func() bool {
		_, err := adm.CreateTopic(t.Context(), 3, 1, nil, j.input)
		return err == nil
	})
	w.await("the new topic", func() bool { return w.writer.Load() != nil && w.writer.Load().topicID != old })
	again, err := w.Produce(t.Context(), [][]byte{large}, false)
	if err != nil || again[0].Token == "" || again[0].Token == first[0].Token || len(j.written()) != 1 {
		t.Errorf("got %v (%v) after %v, and %d records", again, err, first, len(j.written()))
	}
}

// TestWriter_SaysWhatAnErrorMeans: only what is sure is denied.
func TestWriter_SaysWhatAnErrorMeans(t *testing.T) {
	none, sent, lost, again := past{}, past{sent: 1}, past{sent: 1, lost: 1}, past{sent: 2}
	for _, test := range []struct {
		err  error
		now  past
		want connect.Code
	}{
		{kgo.ErrRecordTimeout, none, connect.CodeUnavailable},
		{kgo.ErrRecordTimeout, sent, connect.CodeUnknown},
		{kgo.ErrClientClosed, none, connect.CodeUnavailable},
		{kgo.ErrClientClosed, sent, connect.CodeUnknown},
		{kerr.TopicAuthorizationFailed, sent, connect.CodeUnavailable},
		{kerr.TopicAuthorizationFailed, lost, connect.CodeUnknown},
		{kerr.TopicAuthorizationFailed, again, connect.CodeUnknown},
		{fmt.Errorf("wrapped: %w", kerr.MessageTooLarge), sent, connect.CodeInvalidArgument},
		{kerr.MessageTooLarge, lost, connect.CodeUnknown},
		{kerr.MessageTooLarge, again, connect.CodeUnknown},
		{kerr.NotEnoughReplicas, sent, connect.CodeUnknown},
		{errors.New("anything"), lost, connect.CodeUnknown},
	} {
		w := &writer{}
		w.sent.Store(test.now.sent)
		w.lost.Store(test.now.lost)
		if got := w.verdict(test.err, none); got.Code != test.want || got.Message == "" || got.Token != "" {
			t.Errorf("%v with %+v since: got %+v, want %s", test.err, test.now, got, test.want)
		}
	}
}
