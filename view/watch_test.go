package view

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/history"
)

// taker takes what a watch is told and writes it down. It may go from one view to another.
type taker struct {
	t   testing.TB
	w   *table
	req WatchRequest

	mu      sync.Mutex // guards the fields below
	watch   history.Watch
	place   string // of the last event that was taken
	reset   string
	resumed int
}

func (w *table) taker(req WatchRequest) *taker {
	return &taker{t: w.t, w: w, req: req, watch: history.Watch{
		Name: fmt.Sprintf("watch of id %q, prefix %q, flag %q", req.ID, req.Prefix, req.Flag),
		ID:   req.ID, Prefix: req.Prefix, Flag: req.Flag,
	}}
}

// take takes one event.
func (k *taker) take(e *Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch e.Kind {
	case Reset:
		k.reset = e.Reason
		return
	case Changed:
		d := history.Delivery{Partition: e.Change.AsOf.Partition, Commit: e.Change.AsOf.Commit, ID: e.Change.ID, Deleted: e.Change.Deleted()}
		if !d.Deleted {
			var s codecs.State
			if err := e.Change.State(&s); err != nil {
				k.t.Errorf("state of %q: %v", d.ID, err)
			}
			d.Version, d.Content = s.Version, string(s.AppendJSON(nil, d.ID, k.w.schema))
		}
		k.watch.Events = append(k.watch.Events, d)
	}
	k.place = e.Place()
}

// begin begins to watch a view at the place of the last event that was taken.
func (k *taker) begin(r *running) (*Watcher, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	req := k.req
	req.From = k.place
	if k.place != "" {
		k.resumed++
		return r.Watch(req)
	}
	before := r.commits()
	watcher, err := r.Watch(req)
	after := r.commits()
	if k.watch.Begin = map[int32][2]uint64{}; before != nil && after != nil {
		for p := range after { // one commit may be readable and on its way to watchers
			k.watch.Begin[int32(p)] = [2]uint64{before[p] - 1, after[p]}
		}
	}
	return watcher, err
}

// commits gives the number of the commit that each partition shows; nil where one shows none.
func (r *running) commits() (all []uint64) {
	for _, p := range r.Status().Partitions {
		if !p.Complete {
			return nil
		}
		all = append(all, p.Commit)
	}
	return all
}

// follow takes everything until the watch or ctx ends.
func (k *taker) follow(ctx context.Context, watcher *Watcher) {
	defer watcher.Close()
	for {
		events, err := watcher.Next(ctx, nil)
		for i := range events {
			k.take(&events[i])
		}
		if err != nil {
			return
		}
	}
}

// start follows a watch beside the test; it has begun when start returns.
func (k *taker) start(r *running) (stop func()) {
	k.t.Helper()
	watcher, err := k.begin(r)
	if err != nil {
		k.t.Fatalf("%s: %v", k.watch.Name, err)
	}
	events, err := watcher.Next(k.t.Context(), nil)
	if err != nil {
		k.t.Fatalf("%s: %v", k.watch.Name, err)
	}
	for i := range events {
		k.take(&events[i])
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { k.follow(ctx, watcher) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	k.t.Cleanup(stop)
	return stop
}

func (k *taker) told() (n int, reset string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.watch.Events), k.reset
}

// faults is what is wrong with what was taken, if everything committed so far had to be told.
func (k *taker) faults() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watch.Through = map[int32]uint64{}
	for p := range k.w.partitions {
		k.watch.Through[p] = k.w.truth.Last(p)
	}
	faults := k.w.truth.CheckWatch(&k.watch)
	if k.reset != "" {
		faults = append(faults, k.watch.Name+": reset: "+k.reset)
	}
	return faults
}

// allTold waits until watches have been told everything, and nothing else.
func allTold(t testing.TB, takers ...*taker) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, k := range takers {
		faults := k.faults()
		for ; len(faults) > 0 && time.Now().Before(deadline); faults = k.faults() {
			time.Sleep(20 * time.Millisecond)
		}
		for _, f := range faults {
			t.Error(f)
		}
	}
}

// someHistory makes random commits of IDs k00 to k39, deletions and flags among them.
type someHistory struct {
	w        *table
	rnd      *rand.Rand
	versions map[string]uint64
}

func (w *table) history(rnd *rand.Rand) *someHistory {
	return &someHistory{w: w, rnd: rnd, versions: map[string]uint64{}}
}

func (h *someHistory) commit() {
	var changes []change
	for _, i := range h.rnd.Perm(40)[:1+h.rnd.IntN(8)] {
		id := fmt.Sprintf("k%02d", i)
		h.versions[id] += 1 + uint64(h.rnd.IntN(3))
		c := change{id, h.versions[id], h.rnd.Int64N(200)}
		if h.rnd.IntN(12) == 0 {
			c.version = 0
		}
		changes = append(changes, c)
	}
	h.w.commit(changes...)
}

var someFilters = []WatchRequest{{}, {ID: "k03"}, {ID: "k11"}, {ID: "k27"}, {Prefix: "k1"}, {Prefix: "k"}, {Prefix: "k3"}, {Flag: "big"}, {Flag: "odd"}}

func mustSeed(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestWatch_OnceAndInOrderThroughKillsAndMoves: watches go from view to view, which are killed, come back with their old
// local state, an older one or none, and lag behind each other. Each is told what belongs to it, once and in order.
func TestWatch_OnceAndInOrderThroughKillsAndMoves(t *testing.T) {
	rnd := mustSeed(t)
	w := mustTable(t, embedded(t), 3)
	w.begin()
	h := w.history(rnd)
	views := &fleet{w: w, up: map[int]*running{}}
	root := t.TempDir()
	for i := range 2 {
		views.start(i, filepath.Join(root, fmt.Sprint(i)))
	}
	var takers []*taker
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	for i := range 3 * len(someFilters) {
		k := w.taker(someFilters[i%len(someFilters)])
		takers = append(takers, k)
		own := rand.New(rand.NewPCG(rnd.Uint64(), 0))
		running.Go(func() { k.wander(ctx, views, own) })
	}
	for round := range 8 {
		for range 25 {
			h.commit()
		}
		i := rnd.IntN(2)
		dir := filepath.Join(root, fmt.Sprint(i))
		views.kill(i)
		switch rnd.IntN(3) {
		case 0:
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		case 1: // local state as it was a while ago, as after a kill that lost the memtable
			old := filepath.Join(root, fmt.Sprint("old", i))
			if _, err := os.Stat(old); err == nil {
				dir = old
			}
		}
		if err := os.CopyFS(filepath.Join(root, fmt.Sprint("next", round)), os.DirFS(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		views.start(i, filepath.Join(root, fmt.Sprint("next", round)))
	}
	views.calm.Store(true)
	allTold(t, takers...)
	cancel()
	running.Wait()
	resumed, told := 0, 0
	for _, k := range takers {
		resumed += k.resumed
		told += len(k.watch.Events)
	}
	t.Logf("%d watches were told %d changes and resumed %d times", len(takers), told, resumed)
	if resumed < len(takers) {
		t.Errorf("only %d resumes: the test shows little", resumed)
	}
}

// fleet is some views that come and go.
type fleet struct {
	w    *table
	calm atomic.Bool // watchers stay where they are

	mu sync.Mutex // guards up
	up map[int]*running
}

func (f *fleet) start(i int, dir string) {
	r := f.w.view(dir)
	f.mu.Lock()
	f.up[i] = r
	f.mu.Unlock()
}

func (f *fleet) kill(i int) {
	f.mu.Lock()
	r := f.up[i]
	delete(f.up, i)
	f.mu.Unlock()
	if err := r.stop(); err != nil {
		f.w.t.Errorf("view %d: %v", i, err)
	}
}

// any gives one that is up, or nil.
func (f *fleet) any(rnd *rand.Rand) *running {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.up[rnd.IntN(2)]
}

// wander watches one view after the other, and drops at times what it holds in its hands.
func (k *taker) wander(ctx context.Context, views *fleet, rnd *rand.Rand) {
	for ctx.Err() == nil {
		r := views.any(rnd)
		if r == nil || r.Ready() != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		watcher, err := k.begin(r)
		if err != nil {
			var unavailable *Unavailable
			if !errors.As(err, &unavailable) {
				k.t.Errorf("%s: %v", k.watch.Name, err)
				return
			}
			continue
		}
		stay, leave := context.WithTimeout(ctx, time.Duration(rnd.IntN(500))*time.Millisecond)
		if views.calm.Load() {
			stay, leave = ctx, func() {}
		}
		for err == nil {
			var events []Event
			if events, err = watcher.Next(stay, nil); rnd.IntN(20) == 0 && len(events) > 0 && !views.calm.Load() {
				events, err = events[:rnd.IntN(len(events))], context.Canceled
			}
			for i := range events {
				k.take(&events[i])
			}
		}
		leave()
		watcher.Close()
	}
}

func TestWatch_BeginsWithAHeartbeatThatSaysWhere(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	w.commit(change{"a", 1, 1})
	r := w.viewWith(t.TempDir(), WatchConfig{Heartbeat: 20 * time.Millisecond}).ready()
	watcher, err := r.Watch(WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	places := map[string]bool{}
	for range 3 { // and an idle one goes on hearing that it lives
		events, err := watcher.Next(t.Context(), nil)
		if err != nil || len(events) != 1 || events[0].Kind != Heartbeat || events[0].Place() == "" {
			t.Fatalf("got %+v, %v, want a heartbeat", events, err)
		}
		places[events[0].Place()] = true
	}
	if len(places) != 1 {
		t.Errorf("an idle watch stands at %v, want one place", places)
	}
	r.levelSince(0, time.Now())
	r.levelSince(1, time.Now())
	if events, err := watcher.Next(t.Context(), nil); err != nil || events[0].Age == NotKnown || events[0].TableAge == NotKnown {
		t.Errorf("got %+v, %v, want known ages of a level view", events, err)
	}
}

// TestWatch_AQuietPlaceMovesOn: who watches an ID that does not change can resume however much else has changed.
func TestWatch_AQuietPlaceMovesOn(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{Heartbeat: time.Millisecond}).ready()
	k := w.taker(WatchRequest{ID: "quiet"})
	stop := k.start(r)
	k.mu.Lock()
	first := k.place
	k.mu.Unlock()
	w.commit(change{"other", 1, 1})
	r.await("a heartbeat with another place", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.place != first
	})
	stop()
	w.commit(change{"quiet", 1, 1}, change{"other", 2, 1})
	k.start(r)
	allTold(t, k)
}

// TestWatch_WhatIsToldCanBeRead: a Get on the same view is never behind what a watcher was told.
func TestWatch_WhatIsToldCanBeRead(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.view(t.TempDir()).ready()
	watcher, err := r.Watch(WatchRequest{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	var told sync.WaitGroup
	told.Go(func() {
		for last := uint64(0); last < 100; {
			events, err := watcher.Next(t.Context(), nil)
			if err != nil {
				t.Errorf("after version %d: %v", last, err)
				return
			}
			for _, e := range events {
				var s codecs.State
				if e.Kind == Changed && e.Change.State(&s) == nil {
					last = s.Version
				}
			}
			if got := r.version("a"); got < last {
				t.Errorf("was told version %d and read %d", last, got)
			}
		}
	})
	for v := range uint64(100) {
		w.commit(change{"a", v + 1, 1})
	}
	told.Wait()
}

func TestWatch_RefusesByName(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	r := w.view(t.TempDir())
	var unavailable *Unavailable
	if _, err := r.Watch(WatchRequest{}); !errors.As(err, &unavailable) {
		t.Errorf("before it is ready: got %v, want *Unavailable", err)
	}
	w.begin()
	r.ready()
	ofOne, err := r.Watch(WatchRequest{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	events, err := ofOne.Next(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ofOne.Close()
	if _, err := ofOne.Next(t.Context(), nil); !errors.Is(err, ErrWatchEnded) {
		t.Errorf("after Close: got %v, want ErrWatchEnded", err)
	}
	place := events[0].Place()
	for _, test := range []struct {
		req  WatchRequest
		want string
	}{
		{WatchRequest{ID: "a", Flag: "big"}, "one of id, prefix and flag"},
		{WatchRequest{ID: "\xff"}, "UTF-8"},
		{WatchRequest{Prefix: strings.Repeat("x", 1025)}, "1024 bytes"},
		{WatchRequest{Flag: "none"}, `no flag "none"`},
		{WatchRequest{From: "???"}, "no place"},
		{WatchRequest{From: place[:len(place)-2]}, "no place"},
		{WatchRequest{From: "AQ"}, "no place"},
		{WatchRequest{From: place}, "place of a watch of one ID"},
	} {
		var invalid *Invalid
		if _, err := r.Watch(test.req); !errors.As(err, &invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want *Invalid with %q", test.req, err, test.want)
		}
	}
	if n := r.hub.watching.Load(); n != 0 {
		t.Errorf("%d watchers are left, want none", n)
	}
}

func TestWatch_LimitsInAllAndForEachClient(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{Max: 3, PerClientMax: 2}).ready()
	var open []*Watcher
	for i, test := range []struct{ client, want string }{
		{"a", ""}, {"a", ""}, {"a", "this client has 2 watchers"}, {"b", ""}, {"c", "this view has 3 watchers"},
	} {
		watcher, err := r.Watch(WatchRequest{Client: test.client})
		var many *TooMany
		switch {
		case test.want == "" && err == nil:
			open = append(open, watcher)
		case test.want == "" || !errors.As(err, &many) || !strings.Contains(err.Error(), test.want):
			t.Errorf("watch %d, of client %s: got %v, want %q", i, test.client, err, test.want)
		}
	}
	open[0].Close()
	open[0].Close() // counts once
	for _, test := range []struct {
		client string
		ok     bool
	}{{"c", true}, {"d", false}} {
		if _, err := r.Watch(WatchRequest{Client: test.client}); (err == nil) != test.ok {
			t.Errorf("after one has left, client %s: got %v, want room: %t", test.client, err, test.ok)
		}
	}
}
