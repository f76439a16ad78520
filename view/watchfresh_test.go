package view

import (
	"sync"
	"testing"
	"time"
)

// TestWatch_AHeartbeatIsAsFreshAsWhatWasTold: its ages are those of what the watcher was told, not of what the view shows.
func TestWatch_AHeartbeatIsAsFreshAsWhatWasTold(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{Heartbeat: 5 * time.Millisecond}).ready()
	place := r.placeOf(WatchRequest{})
	w.commit(change{"a", 1, 1})
	r.covers(0, w.seq[0])
	r.levelSince(0, time.Now())
	watcher, err := r.Watch(WatchRequest{From: place})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	told, fresh, last := 0, false, uint64(0)
	for !fresh {
		events, err := watcher.Next(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Kind == Changed {
				told, last = told+1, e.Change.AsOf.Commit
			} else if fresh = e.Age != NotKnown; fresh && told == 0 {
				t.Fatalf("got %+v, which says that it is fresh, before the commit that was missed", e)
			} else if fresh != (len(e.AsOf) == 1) || fresh && e.AsOf[0].Commit != last {
				t.Fatalf("got %+v, want it as of commit %d, if it is fresh", e, last)
			}
		}
	}
	stop := make(chan struct{})
	var commits sync.WaitGroup
	commits.Go(func() { // and one that always has something to hear hears that too
		for v := uint64(2); ; v++ {
			select {
			case <-stop:
				return
			default:
				w.commit(change{"a", v, 1})
			}
		}
	})
	defer commits.Wait()
	defer close(stop)
	for n := 0; n < 3; {
		events, err := watcher.Next(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Kind == Changed {
				last = e.Change.AsOf.Commit
			} else if e.Kind == Heartbeat && e.Age != NotKnown {
				n++
				if len(e.AsOf) != 1 || e.AsOf[0].Commit != last {
					t.Fatalf("got %+v, want it as of commit %d, the last that was told", e, last)
				}
			}
		}
	}
}
