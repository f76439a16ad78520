package view

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// stalled begins a watch that takes its first heartbeat and nothing else.
func (r *running) stalled(req WatchRequest) (*Watcher, *Event) {
	r.t.Helper()
	watcher, err := r.Watch(req)
	if err != nil {
		r.t.Fatal(err)
	}
	events, err := watcher.Next(r.t.Context(), nil)
	if err != nil || len(events) != 1 {
		r.t.Fatalf("got %d events, %v, want a heartbeat", len(events), err)
	}
	r.t.Cleanup(watcher.Close)
	return watcher, &events[0]
}

// TestWatch_ASlowOneIsResetAlone: who takes nothing is bounded and reset, the others are told everything meanwhile, and
// its place still holds. The control waits for it, and nobody is told anything.
func TestWatch_ASlowOneIsResetAlone(t *testing.T) {
	for _, control := range []bool{false, true} {
		const queue = 32 << 10
		var patient atomic.Bool
		patient.Store(control)
		w := mustTable(t, embedded(t), 2)
		w.begin()
		r := w.viewWith(t.TempDir(), WatchConfig{QueueBytesMax: queue, weak: weakWatch{patient: patient.Load}}).ready()
		others := []*taker{w.taker(WatchRequest{}), w.taker(WatchRequest{Prefix: "k1"}), w.taker(WatchRequest{ID: "k03"})}
		for _, k := range others {
			k.start(r)
		}
		slow, at := r.stalled(WatchRequest{})
		h := w.history(mustSeed(t))
		for i := range 100 {
			h.commit()
			if !control && i%5 == 4 {
				allTold(t, others...)
			}
		}
		if control {
			r.await("a commit that is held back", func() bool { slow.mu.Lock(); defer slow.mu.Unlock(); return slow.bytes > queue })
			if faults := others[0].faults(); len(faults) == 0 {
				t.Error("control: a follower that waits for a slow watcher has told the others everything")
			}
			patient.Store(false)
			continue
		}
		allTold(t, others...)
		if n := slow.bytes; n != 0 {
			t.Errorf("a watcher that was reset still has %d bytes waiting", n)
		}
		events, err := slow.Next(t.Context(), nil)
		if err != nil || len(events) != 1 || events[0].Kind != Reset || events[0].Gone() {
			t.Fatalf("got %+v, %v, want a reset because it was slow", events, err)
		}
		again := w.taker(WatchRequest{})
		again.place, again.watch.Begin = at.Place(), map[int32][2]uint64{0: {1, 1}, 1: {1, 1}}
		again.start(r)
		allTold(t, again)
	}
}

// TestWatch_IsCaughtUpAsFastAsItTakes: far more has been missed than may wait. Nobody is reset, no queue passes its bound,
// and those who take nothing hold up nobody, though there are more of them than passes.
func TestWatch_IsCaughtUpAsFastAsItTakes(t *testing.T) {
	const queue = 4096
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{QueueBytesMax: queue}).ready()
	from := r.placeOf(WatchRequest{})
	h := w.history(mustSeed(t))
	for range 100 {
		h.commit()
	}
	for p := range w.partitions {
		r.covers(p, w.seq[p])
	}
	begin := map[int32][2]uint64{0: {1, 1}, 1: {1, 1}}
	var stalled []*Watcher
	for range 2 * passesMax {
		watcher, _ := r.stalled(WatchRequest{From: from})
		stalled = append(stalled, watcher)
	}
	k := w.taker(WatchRequest{})
	k.place, k.watch.Begin = from, begin
	k.start(r)
	allTold(t, k)
	const oneCommit = 8 * (changeOverheadBytes + 200)
	for i, watcher := range stalled {
		watcher.mu.Lock()
		bytes, ended := watcher.bytes, watcher.ended
		watcher.mu.Unlock()
		if bytes > queue+oneCommit || ended != nil {
			t.Errorf("stalled watcher %d: %d bytes are waiting, ended %v; want at most %d, and no end", i, bytes, ended, queue+oneCommit)
		}
		late := w.taker(WatchRequest{})
		late.watch.Begin = begin
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { late.follow(ctx, watcher) })
		allTold(t, late)
		cancel()
		running.Wait()
	}
}

// TestWatch_GoesOnWhileLocalStateIsRebuilt: damage is the view's affair. Watches hear nothing of it and miss nothing.
func TestWatch_GoesOnWhileLocalStateIsRebuilt(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	var takers []*taker
	for _, req := range someFilters {
		k := w.taker(req)
		takers = append(takers, k)
		k.start(r)
	}
	h := w.history(mustSeed(t))
	for i := range 60 {
		h.commit()
		if i%20 == 10 {
			p := r.View.all()[i/20%2]
			p.mu.RLock()
			hidden := p.current == nil
			p.mu.RUnlock()
			if !hidden {
				p.disk.MarkDamaged("the test says so")
			}
		}
	}
	allTold(t, takers...)
}

// TestWatch_ResumesWhileTheIDMoves: the ID changes with every commit while its watch is taken up again and again.
func TestWatch_ResumesWhileTheIDMoves(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	views := []*running{w.view(t.TempDir()).ready(), w.view(t.TempDir()).ready()}
	k := w.taker(WatchRequest{ID: "a"})
	done := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		for v := uint64(1); ; v++ {
			select {
			case <-done:
				return
			default:
				w.commit(change{"a", v, 1})
			}
		}
	})
	for i := range 30 {
		had, _ := k.told()
		stop := k.start(views[i%2])
		views[0].await("two more versions", func() bool { n, _ := k.told(); return n >= had+2 })
		stop()
	}
	close(done)
	moving.Wait()
	k.start(views[0])
	allTold(t, k)
}

// TestWatch_ThousandsOfWatchers: each is told what belongs to it, before and after all of them resume on another view.
func TestWatch_ThousandsOfWatchers(t *testing.T) {
	const watchers = 2000
	w := mustTable(t, embedded(t), 3)
	w.begin()
	limits := WatchConfig{PerClientMax: watchers}
	first, second := w.viewWith(t.TempDir(), limits).ready(), w.viewWith(t.TempDir(), limits).ready()
	takers := make([]*taker, watchers)
	stops := make([]func(), watchers)
	for i := range takers {
		req := WatchRequest{ID: fmt.Sprintf("k%02d", i%40)}
		if i%20 == 0 {
			req = someFilters[i/20%len(someFilters)]
		}
		takers[i] = w.taker(req)
		stops[i] = takers[i].start(first)
	}
	h := w.history(mustSeed(t))
	for range 40 {
		h.commit()
	}
	allTold(t, takers...)
	for _, stop := range stops {
		stop()
	}
	for range 40 {
		h.commit()
	}
	for i := range takers {
		stops[i] = takers[i].start(second)
	}
	for range 10 {
		h.commit()
	}
	start := time.Now()
	allTold(t, takers...)
	if passes := second.catchUps(); passes > watchers/10 {
		t.Errorf("%d watchers that resumed took %d passes over the table, want them shared", watchers, passes)
	} else {
		t.Logf("%d watchers resumed in %d passes; the last were told %s after the last commit", watchers, passes, time.Since(start).Round(time.Millisecond))
	}
	for _, stop := range stops {
		stop()
	}
	if n := second.hub.watching.Load(); n != 0 || len(second.hub.subjects) != 0 || len(second.hub.catching) != 0 || len(second.hub.clients) != 0 || len(second.hub.lengths) != 0 {
		t.Errorf("after all have left %d watchers are left, or something of them", n)
	}
}

// catchUps is how many passes over the table there have been.
func (r *running) catchUps() int {
	r.t.Helper()
	var m dto.Metric
	if err := r.metrics.catchUps.Write(&m); err != nil {
		r.t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

func TestWatch_LeavesNoGoroutineBehind(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	ignored := []goleak.Option{goleak.IgnoreCurrent()}
	for _, of := range []string{"read", "read.func1", "write"} { // the broker's side of connections
		ignored = append(ignored, goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kfake.(*clientConn)."+of))
	}
	r := w.view(t.TempDir()).ready()
	k := w.taker(WatchRequest{})
	stop := k.start(r)
	w.commit(change{"a", 1, 1})
	allTold(t, k)
	stop()
	w.commit(change{"a", 2, 1})
	k.start(r) // is caught up
	allTold(t, k)
	_, _ = r.stalled(WatchRequest{Prefix: "a"}) // and one that nobody closes
	if goleak.Find(ignored...) == nil {
		t.Error("control: a view runs, and no goroutine is found")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := goleak.Find(ignored...); err != nil {
		t.Error(err)
	}
}

// A server's deadlines are for answers; a watch has no end.
func TestWatch_OutlivesTheServersDeadlines(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{Heartbeat: 300 * time.Millisecond}).ready()
	serve := func(handler http.Handler) string {
		s := httptest.NewUnstartedServer(handler)
		s.Config.Protocols = &http.Protocols{}
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Config.ReadTimeout, s.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
		s.Start()
		t.Cleanup(s.Close)
		return s.URL
	}
	heartbeats := func(url string, n int) error {
		resp, err := http.Get(url + "/v1/watch")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		for in := bufio.NewReader(resp.Body); n > 0; {
			line, err := in.ReadString('\n')
			if err != nil {
				return err
			}
			if line == "event: heartbeat\n" {
				n--
			}
		}
		return nil
	}
	url := serve(r.Handler())
	if err := heartbeats(url, 3); err != nil {
		t.Errorf("server-sent events: %v", err)
	}
	rpc, err := tidemarkv1connect.NewViewClient(h2c(t), url, connect.WithGRPC()).Watch(t.Context(), &pb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer rpc.Close()
	for i := range 3 {
		if !rpc.Receive() {
			t.Fatalf("gRPC: %d heartbeats, then %v", i, rpc.Err())
		}
	}
	// The control: a handler that leaves the deadlines alone is cut off.
	url = serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		watcher, err := r.Watch(WatchRequest{})
		if err != nil {
			t.Error(err)
			return
		}
		defer watcher.Close()
		for {
			events, err := watcher.Next(req.Context(), nil)
			if err != nil {
				return
			}
			for i := range events {
				_, _ = w.Write(appendSSE(&events[i]))
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	}))
	if err := heartbeats(url, 3); err == nil {
		t.Error("the control: deadlines that stand cut nothing off")
	}
}
