package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// hastyView is a view of one partition whose heartbeats all say that they are fresh, and come all the time. Lists are as of the
// commit that it is given, heartbeats as of another one.
type hastyView struct {
	*fake
	shown, told atomic.Uint64
	lists       atomic.Int64
}

func newHastyView() *hastyView {
	v := &hastyView{fake: &fake{}}
	v.shown.Store(1)
	v.told.Store(1)
	v.watch = func(ctx context.Context, _ *pb.WatchRequest, out *connect.ServerStream[pb.WatchResponse]) error {
		beat := time.NewTicker(time.Millisecond)
		defer beat.Stop()
		for {
			alive := &pb.Heartbeat{Age: durationpb.New(0), TableAge: durationpb.New(0), AsOf: []*pb.AsOf{{Commit: v.told.Load()}}}
			if err := out.Send(&pb.WatchResponse{Place: "p", Event: &pb.WatchResponse_Heartbeat{Heartbeat: alive}}); err != nil {
				return err
			}
			select {
			case <-beat.C:
			case <-ctx.Done():
				return nil
			}
		}
	}
	v.list = func(*pb.ListRequest) (*pb.ListResponse, error) {
		v.lists.Add(1)
		return &pb.ListResponse{
			States: []*pb.State{{Id: "a", Version: 1}},
			AsOf:   []*pb.Freshness{{Commit: v.shown.Load(), Age: durationpb.New(0), TableAge: durationpb.New(0)}},
		}, nil
	}
	return v
}

// tells has the heartbeats say a commit, and waits until the cache has heard it.
func (v *hastyView) tells(t *testing.T, commit uint64, caches ...*Cache) {
	t.Helper()
	v.told.Store(commit)
	for _, k := range caches {
		await(t, func() error {
			if at := k.Stats().AsOf[0].Commit; at != commit {
				return fmt.Errorf("everything is held up to commit %d, want %d", at, commit)
			}
			return nil
		})
	}
}

// TestCache_AnAgeCountsFromWhenItWasAsked: a heartbeat that comes in says how old it was when it was sent. It may have been under way
// for any time, so nothing is younger for it. In the control it is believed.
func TestCache_AnAgeCountsFromWhenItWasAsked(t *testing.T) {
	t.Parallel()
	v := newHastyView()
	c := mustClient(t, nil, v.serve(t))
	k := mustCache(t, c, Everything(), MemoryOnly(), AskEvery(time.Hour))
	control := mustCache(t, c, Everything(), MemoryOnly(), AskEvery(time.Hour), func(c *cacheConfig) { c.weak.trusting = true })
	loaded := time.Now()
	for commit := uint64(2); commit < 20; commit++ {
		v.tells(t, commit, k, control)
		least := time.Since(loaded)
		if age := k.Stats().Age; age < least {
			t.Fatalf("heartbeats made it %s old, and the view was last asked at least %s ago", age, least)
		}
		if _, err := k.Get(t.Context(), "a", MaxAge(least)); !errors.Is(err, ErrTooOld) {
			t.Fatalf("at least %s old: got %v, want %v", least, err, ErrTooOld)
		}
	}
	await(t, func() error { // heartbeats go on coming in
		if least := time.Since(loaded); control.Stats().Age >= least {
			return fmt.Errorf("the control never was younger than its load, of %s ago", least)
		}
		return nil
	})
}

// TestCache_IsAsOldAsWhatTheWatchHasTold: what a view answers proves nothing of a watch that has yet to tell it.
func TestCache_IsAsOldAsWhatTheWatchHasTold(t *testing.T) {
	t.Parallel()
	v := newHastyView()
	k := mustCache(t, mustClient(t, nil, v.serve(t)), Everything(), MemoryOnly(), AskEvery(time.Millisecond))
	young := func(than time.Time) error {
		if least, age := time.Since(than), k.Stats().Age; age >= least {
			return fmt.Errorf("it is %s old, want it proven in the last %s", age, least)
		}
		return nil
	}
	loaded := time.Now()
	await(t, func() error { return young(loaded) }) // with nothing to tell, an answer is proof
	v.shown.Store(5)
	asked := v.lists.Load()
	await(t, func() error { // what was answered before may have been as of the commit before
		if v.lists.Load() == asked {
			return errors.New("the view was not asked since it shows more")
		}
		return nil
	})
	behind := time.Now()
	for commit := uint64(2); commit < 5; commit++ {
		v.tells(t, commit, k)
		if least := time.Since(behind); k.Stats().Age < least {
			t.Fatalf("it is %s old, and was not told everything for %s", k.Stats().Age, least)
		}
	}
	v.tells(t, 5, k)
	await(t, func() error { return young(behind) })
}
