package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/internal/history"
	"github.com/tidemark/tidemark/internal/jobtest"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/view"
)

// mustSeed seeds a test's choices, and says with what.
func mustSeed(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// collected is what a watch told.
type collected struct {
	mu     sync.Mutex // guards the fields below
	told   []history.Delivery
	kinds  map[EventKind]int
	views  map[string]bool
	marked bool // the end was told
	err    error
}

// collect watches until the ID "the-end" is told.
func collect(ctx context.Context, c *Client, what Filter, opts ...Option) (out *collected, wait func()) {
	out = &collected{kinds: map[EventKind]int{}, views: map[string]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for e, err := range c.Watch(ctx, what, opts...) {
			out.take(&e, err)
			if out.marked {
				return
			}
		}
	})
	return out, running.Wait
}

func (o *collected) take(e *Event, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err = err; err != nil {
		return
	}
	o.kinds[e.Kind]++
	o.views[e.View] = true
	if e.Kind == Changed {
		d := history.Delivery{Partition: e.AsOf.Partition, Commit: e.AsOf.Commit, ID: e.ID, Deleted: e.State == nil}
		d.Version = e.State.GetVersion()
		o.told = append(o.told, d)
		o.marked = e.ID == "the-end"
	}
}

func (o *collected) count(k EventKind) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kinds[k]
}

func (o *collected) lacks(view string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.views[view] {
		return fmt.Errorf("%s has told nothing", view)
	}
	return nil
}

// TestWatch_TellsEachVersionOnceThroughViewsThatEnd: views end and begin again, in turn and together, while events come.
func TestWatch_TellsEachVersionOnceThroughViewsThatEnd(t *testing.T) {
	t.Parallel()
	rnd := mustSeed(t)
	j := jobtest.MustStart(t, jobtest.Config{Watch: view.WatchConfig{Heartbeat: 50 * time.Millisecond}})
	views := []*jobtest.View{j.MustView(t), j.MustView(t)}
	c := mustClient(t, nil, views[0].URL(), views[1].URL())
	ctx := within(t, time.Minute)
	told, wait := collect(ctx, c, Everything())
	await(t, func() error {
		if told.count(Began) == 0 {
			return errors.New("the watch has not begun")
		}
		return nil
	})
	for range 8 {
		for range 5 {
			write(t, j, fmt.Sprint("user-", rnd.IntN(20)), rnd.IntN(10), rnd.IntN(10))
		}
		v := views[rnd.IntN(2)]
		if err := v.Stop(); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			write(t, j, fmt.Sprint("user-", rnd.IntN(20)), rnd.IntN(10))
		}
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(3) > 0 {
			if err := v.Ready(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, v := range views { // whatever was drawn, each of them has told something: for as long as the other is away
		other := views[1-i]
		if err := errors.Join(other.Ready(ctx), v.Stop()); err != nil {
			t.Fatal(err)
		}
		await(t, func() error { return told.lacks(other.URL()) })
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, j, "the-end", 1)
	wait()
	if told.err != nil || told.kinds[Reset] > 0 || told.kinds[Began] != 1 || len(told.views) != 2 {
		t.Errorf("got %v, %d resets, begun %d times, on %d views; want none, once, on both", told.err, told.kinds[Reset], told.kinds[Began], len(told.views))
	}
	kafka, names, schema := j.Kafka()
	truth, err := history.FromTable(ctx, kafka, names, schema)
	if err != nil {
		t.Fatal(err)
	}
	// The other partitions are told up to anywhere, and so is the rest of the commit that has the end.
	end := told.told[len(told.told)-1]
	w := &history.Watch{Name: "the watch", Events: told.told, Through: map[int32]uint64{end.Partition: end.Commit - 1}}
	if faults := truth.CheckWatch(w); faults != nil || len(told.told) < 20 {
		t.Errorf("of %d deliveries: %q", len(told.told), faults)
	}
}

// TestWatch_TellsAReset where its place is gone: a view that was away longer than the horizon.
func TestWatch_TellsAReset(t *testing.T) {
	t.Parallel()
	j := jobtest.MustStart(t, jobtest.Config{Partitions: 1, Watch: view.WatchConfig{Heartbeat: 20 * time.Millisecond, Horizon: time.Millisecond}})
	v := j.MustView(t)
	c := mustClient(t, nil, v.URL())
	var kinds []EventKind
	for e, err := range c.Watch(within(t, 30*time.Second), Prefix("user-")) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == Alive {
			continue
		}
		kinds = append(kinds, e.Kind)
		if (e.Place == "") != (e.Kind == Reset) || (e.Reason != "") != (e.Kind == Reset) {
			t.Errorf("got %+v, want a place or a reset's reason", e)
		}
		if e.Kind == Changed {
			break
		}
		switch len(kinds) {
		case 1:
			if err := v.Stop(); err != nil {
				t.Fatal(err)
			}
			at := write(t, j, "user-1", 1)
			other := j.MustView(t) // when it shows the event, the version is older than the horizon
			if _, err := mustClient(t, nil, other.URL()).Get(t.Context(), "user-1", AtLeast(at.String()), Wait(20*time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := v.Start(); err != nil {
				t.Fatal(err)
			}
		case 3:
			write(t, j, "user-2", 1)
		}
	}
	if want := []EventKind{Began, Reset, Began, Changed}; !slices.Equal(kinds, want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
}

// script is a fake whose n-th watch does what the test says.
func script(streams ...func(context.Context, *pb.WatchRequest, *connect.ServerStream[pb.WatchResponse]) error) (f *fake, from *[]string) {
	from = &[]string{}
	f = &fake{watch: func(ctx context.Context, req *pb.WatchRequest, out *connect.ServerStream[pb.WatchResponse]) error {
		n := len(*from)
		*from = append(*from, req.From)
		return streams[min(n, len(streams)-1)](ctx, req, out)
	}}
	return f, from
}

func heartbeat(place string) *pb.WatchResponse {
	return &pb.WatchResponse{Place: place, Event: &pb.WatchResponse_Heartbeat{Heartbeat: &pb.Heartbeat{}}}
}

func changeOf(place, id string, version uint64) *pb.WatchResponse {
	return &pb.WatchResponse{Place: place, Event: &pb.WatchResponse_Change{Change: &pb.Change{Id: id, State: &pb.State{Id: id, Version: version}, AsOf: &pb.AsOf{Commit: version}}}}
}

func resetOf(reason string) *pb.WatchResponse {
	return &pb.WatchResponse{Event: &pb.WatchResponse_Reset_{Reset_: &pb.Reset{Reason: reason}}}
}

// say is a stream that says something, and ends.
func say(then error, all ...*pb.WatchResponse) func(context.Context, *pb.WatchRequest, *connect.ServerStream[pb.WatchResponse]) error {
	return func(_ context.Context, _ *pb.WatchRequest, out *connect.ServerStream[pb.WatchResponse]) error {
		for _, m := range all {
			if err := out.Send(m); err != nil {
				return err
			}
		}
		return then
	}
}

// TestWatch_GoesOnFromWhereItWas after each way in which a stream can end.
func TestWatch_GoesOnFromWhereItWas(t *testing.T) {
	f, from := script(
		say(nil, heartbeat("p0"), changeOf("p1", "a", 1)), // ends
		say(refusal(connect.CodeUnavailable, 0)),          // is not ready
		say(refusal(connect.CodeResourceExhausted, 0)),    // has too many
		say(nil, heartbeat("p1"), changeOf("p2", "a", 2), resetOf("slow: too much was waiting")),
		say(refusal(connect.CodeInternal, 0), changeOf("p3", "a", 3)),
		say(nil, resetOf("gone: the place is no more")),
		say(nil, changeOf("p4", "b", 4), heartbeat("p5")), // told before the beginning
		say(refusal(connect.CodePermissionDenied, 0)),
	)
	c := mustClient(t, nil, f.serve(t))
	var got []string
	var last error
	for e, err := range c.Watch(within(t, time.Minute), Prefix("x")) {
		if last = err; err == nil {
			got = append(got, fmt.Sprint(e.Kind, e.Place, e.State.GetVersion()))
		}
	}
	if want := []string{"beganp00", "changedp11", "alivep10", "changedp22", "changedp33", "reset0", "changedp44", "beganp50"}; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if want := []string{"", "p1", "p1", "p1", "p2", "p3", "", "p5"}; !slices.Equal(*from, want) {
		t.Errorf("asked from %q, want %q", *from, want)
	}
	if !errors.Is(last, ErrDenied) {
		t.Errorf("got %v at the end, want %v", last, ErrDenied)
	}
}

// TestWatch_ASilentViewIsLeft, though its connection stands.
func TestWatch_ASilentViewIsLeft(t *testing.T) {
	silent, _ := script(func(ctx context.Context, _ *pb.WatchRequest, out *connect.ServerStream[pb.WatchResponse]) error {
		if err := out.Send(heartbeat("p0")); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	other, from := script(func(ctx context.Context, _ *pb.WatchRequest, out *connect.ServerStream[pb.WatchResponse]) error {
		return errors.Join(out.Send(changeOf("p1", "a", 1)), refusal(connect.CodePermissionDenied, 0))
	})
	c := mustClient(t, func(cfg *Config) { cfg.Silence = 50 * time.Millisecond }, other.serve(t), silent.serve(t))
	told := 0
	for e, err := range c.Watch(within(t, time.Minute), ID("a")) {
		if err == nil && e.Kind == Changed {
			told++
		}
	}
	if told != 1 || !slices.Equal(*from, []string{"p0"}) {
		t.Errorf("told %d times, the other view was asked from %q, want once from p0", told, *from)
	}
}

// TestWatch_DoesNotHammerViewsThatAreDown: it goes on for as long as its context, ever more seldom.
func TestWatch_DoesNotHammerViewsThatAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &fake{watch: func(context.Context, *pb.WatchRequest, *connect.ServerStream[pb.WatchResponse]) error {
			return refusal(connect.CodeUnavailable, 0)
		}}
		c := mustClient(t, func(cfg *Config) { cfg.Transport = inMemory{"a": down, "b": down} }, "http://a", "http://b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start, last := time.Now(), error(nil)
		for _, err := range c.Watch(ctx, Everything()) {
			last = err
		}
		if n := down.asked.Load(); !errors.Is(last, context.DeadlineExceeded) || time.Since(start) != time.Hour || n < 1000 || n > 10_000 {
			t.Errorf("got %v after %s and %d requests, want an hour with some thousands", last, time.Since(start), n)
		}
	})
}

// TestWatch_OutlastsThatThereIsNoToken: the issuer is away for once, and the watch goes on from where it was.
func TestWatch_OutlastsThatThereIsNoToken(t *testing.T) {
	f, from := script(
		say(nil, heartbeat("p0")), // ends
		say(nil, changeOf("p1", "a", 1)),
	)
	asked := 0
	c := mustClient(t, func(cfg *Config) {
		cfg.Token = func(context.Context) (string, error) {
			if asked++; asked == 2 {
				return "", errors.New("the issuer is away")
			}
			return "t", nil
		}
	}, f.serve(t))
	for e, err := range c.Watch(within(t, time.Minute), Everything()) {
		if err != nil {
			t.Fatalf("the watch has ended: %v", err)
		}
		if e.Kind == Changed {
			break
		}
	}
	if want := []string{"", "p0"}; !slices.Equal(*from, want) || asked != 3 {
		t.Errorf("asked from %q with %d questions for a token, want %q with 3", *from, asked, want)
	}
}
