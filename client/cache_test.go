package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/jobtest"
	"github.com/tidemark/tidemark/view"
)

func mustCache(t testing.TB, c *Client, what Filter, opts ...CacheOption) *Cache {
	t.Helper()
	k, err := c.Cache(within(t, time.Minute), what, opts...)
	if err != nil {
		t.Fatalf("cache: %v", err)
	}
	t.Cleanup(k.Close)
	return k
}

// holds waits until a cache gives from memory what points an ID has; "" is that there is none.
func (k *Cache) holds(t testing.TB, id, want string) {
	t.Helper()
	await(t, func() error {
		a, err := k.Get(t.Context(), id)
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrNotHeld) {
			return err
		}
		if got := points(a.State); got != want || !a.Cached && want != "" {
			return fmt.Errorf("%s has %q points (cached: %t), want %q", id, got, a.Cached, want)
		}
		return nil
	})
}

func TestCache_FollowsWhatItsFilterMeans(t *testing.T) {
	t.Parallel()
	j := jobtest.MustStart(t, jobtest.Config{Watch: view.WatchConfig{Heartbeat: 20 * time.Millisecond}})
	v := j.MustView(t)
	c := mustClient(t, nil, v.URL())
	s := c.Session()
	for n := range 30 {
		for _, id := range []string{fmt.Sprint("user-", n), fmt.Sprint("host-", n)} {
			at := write(t, j, id, n, 80)
			if err := s.Wrote(t.Context(), id, at.Partition, at.Offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.BatchGet(t.Context(), []string{"user-0", "user-1", "user-2", "host-0", "host-1", "host-2"}, Wait(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	for range s.List(t.Context(), "", Wait(20*time.Second)) { // everything is counted
	}
	offline := MemoryOnly()
	users, all, watched, one := mustCache(t, c, Prefix("user-"), offline, AskEvery(20*time.Millisecond)), mustCache(t, c, Everything(), offline), mustCache(t, c, Flag("watched"), offline), mustCache(t, c, ID("user-7"), offline)
	for what, test := range map[string]struct {
		k    *Cache
		want int
	}{"users": {users, 30}, "all": {all, 60}, "watched": {watched, 20}, "one": {one, 1}} {
		if st := test.k.Stats(); st.Entries != test.want || st.Partial || !st.Answers {
			t.Errorf("%s: got %+v, want %d entries", what, st, test.want)
		}
		n := 0
		for range test.k.All() {
			n++
		}
		if n != test.want {
			t.Errorf("%s: got %d states, want %d", what, n, test.want)
		}
	}
	write(t, j, "user-7", 100)
	write(t, j, "host-7", 100)
	write(t, j, "user-new", 5)
	write(t, j, "user-25", -50)
	for _, k := range []*Cache{users, all, watched, one} {
		k.holds(t, "user-7", "187")
	}
	users.holds(t, "user-new", "5")
	all.holds(t, "host-7", "187")
	watched.holds(t, "user-25", "") // it was cleared
	memoryRefuses(t, users, watched, one)
	await(t, func() error { // the view says how old it is, and a heartbeat up to which commit everything is held
		a, err := users.Get(t.Context(), "user-7", MaxAge(time.Second))
		if err != nil || a.Partition != Partition("user-7", 3) || a.Position <= 0 || a.Commit == 0 || a.Age > time.Second {
			return fmt.Errorf("got %+v (%w)", a.Freshness, err)
		}
		return nil
	})
	users.Close()
	if _, err := users.Get(t.Context(), "user-7"); !errors.Is(err, ErrNotReady) {
		t.Errorf("after Close: got %v", err)
	}
}

// memoryRefuses: what memory cannot know to be right, it does not say.
func memoryRefuses(t *testing.T, users, watched, one *Cache) {
	t.Helper()
	for _, test := range []struct {
		k    *Cache
		id   string
		opts []Option
		kind error
	}{
		{users, "user-none", nil, ErrNotFound},
		{users, "host-7", nil, ErrNotHeld},
		{watched, "user-1", nil, ErrNotHeld}, // it may be without the flag
		{one, "user-7x", nil, ErrNotHeld},
		{users, "user-7", []Option{AtLeast("0@0")}, ErrNotHeld},
		{users, "user-7", []Option{MaxAge(0)}, ErrTooOld},
	} {
		if _, err := test.k.Get(t.Context(), test.id, test.opts...); !errors.Is(err, test.kind) {
			t.Errorf("%s: got %v, want %v", test.id, err, test.kind)
		}
	}
}

// TestCache_StaysRightThroughViewsThatEnd: two views end and begin in turn while events come and readers read. What is read
// from memory never goes back, and in the end everything is as the views say.
func TestCache_StaysRightThroughViewsThatEnd(t *testing.T) {
	t.Parallel()
	rnd := mustSeed(t)
	j := jobtest.MustStart(t, jobtest.Config{Watch: view.WatchConfig{Heartbeat: 20 * time.Millisecond}})
	views := []*jobtest.View{j.MustView(t), j.MustView(t)}
	c := mustClient(t, nil, views[0].URL(), views[1].URL())
	ids := make([]string, 25)
	for n := range ids {
		ids[n] = fmt.Sprint("user-", n)
		write(t, j, ids[n], 1)
	}
	k := mustCache(t, c, Prefix("user-"))
	stop, readers := make(chan struct{}), sync.WaitGroup{}
	for range 2 {
		readers.Go(func() { k.neverGoesBack(t, ids, stop) })
	}
	for range 6 {
		v := views[rnd.IntN(2)]
		if err := v.Stop(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			write(t, j, ids[rnd.IntN(len(ids))], rnd.IntN(100), -rnd.IntN(100))
		}
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
		if err := v.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := c.Session()
	for _, id := range ids {
		at := write(t, j, id, 1)
		if err := s.Wrote(t.Context(), id, at.Partition, at.Offset); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		a, err := s.Get(t.Context(), id, Wait(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		k.holds(t, id, points(a.State))
	}
	close(stop)
	readers.Wait()
	if st := k.Stats(); st.Entries != len(ids) || st.Hits == 0 {
		t.Errorf("got %+v, want %d entries, which were read", st, len(ids))
	}
}

func (k *Cache) neverGoesBack(t *testing.T, ids []string, stop chan struct{}) {
	last, commits := map[string]uint64{}, map[int32]uint64{}
	for {
		select {
		case <-stop:
			return
		default:
		}
		id := ids[rand.IntN(len(ids))]
		loads := k.loads.Load()
		a, err := k.Get(t.Context(), id)
		if err != nil || !a.Cached { // the views' own reads are theirs
			continue
		}
		if loads != k.loads.Load() {
			clear(last)
			clear(commits)
			continue
		}
		if a.State.Version < last[id] || a.Commit < commits[a.Partition] || a.Age < 0 || a.Age > k.cfg.staleAfter {
			t.Errorf("%s: got version %d as of commit %d after %d and %d, %s old", id, a.State.Version, a.Commit, last[id], commits[a.Partition], a.Age)
			return
		}
		last[id], commits[a.Partition] = a.State.Version, a.Commit
	}
}

// TestCache_SaysWhenItMayBeStale: without its view it asks the network, or says so.
func TestCache_SaysWhenItMayBeStale(t *testing.T) {
	t.Parallel()
	j := jobtest.MustStart(t, jobtest.Config{Partitions: 1, Watch: view.WatchConfig{Heartbeat: 20 * time.Millisecond}})
	v, other := j.MustView(t), j.MustView(t)
	at := write(t, j, "user-1", 1)
	c := mustClient(t, nil, v.URL())
	if _, err := c.Get(t.Context(), "user-1", AtLeast(at.String()), Wait(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	both := mustClient(t, nil, v.URL(), other.URL())
	only, falls := mustCache(t, c, Everything(), MemoryOnly()), mustCache(t, c, Everything())
	only.holds(t, "user-1", "1")
	aged := mustCache(t, c, Everything(), MemoryOnly(), StaleAfter(time.Nanosecond))
	if _, err := aged.Get(t.Context(), "user-1"); !errors.Is(err, ErrTooOld) {
		t.Errorf("older than it may be: got %v, want %v", err, ErrTooOld)
	}
	falls.client = both // it reads from both, and watches the one
	if err := v.Stop(); err != nil {
		t.Fatal(err)
	}
	at = write(t, j, "user-1", 10)
	if _, err := both.Get(t.Context(), "user-1", AtLeast(at.String()), Wait(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		if _, err := only.Get(t.Context(), "user-1"); !errors.Is(err, ErrTooOld) {
			return fmt.Errorf("got %w of a cache without its view, want %w", err, ErrTooOld)
		}
		return nil
	})
	await(t, func() error {
		if a, err := falls.Get(t.Context(), "user-1"); err != nil || a.Cached || points(a.State) != "11" {
			return fmt.Errorf("got %+v (%w), want the other view's answer", a, err)
		}
		return nil
	})
	if err := v.Start(); err != nil {
		t.Fatal(err)
	}
	only.holds(t, "user-1", "11")
	if st := only.Stats(); st.Reloads != 0 {
		t.Errorf("it was loaded again %d times (%s), want it to go on", st.Reloads, st.Why)
	}
}

// TestCache_AResetLoadsItAgain. In the control the reset is passed over, and the cache is wrong for good.
func TestCache_AResetLoadsItAgain(t *testing.T) {
	t.Parallel()
	const horizon = 3 * time.Second // more than lies between loading and watching
	j := jobtest.MustStart(t, jobtest.Config{Partitions: 1, Watch: view.WatchConfig{Heartbeat: 20 * time.Millisecond, Horizon: horizon}})
	v, other := j.MustView(t), j.MustView(t)
	shown := func(at jobtest.Place, on ...*jobtest.View) {
		t.Helper()
		for _, v := range on {
			if _, err := mustClient(t, nil, v.URL()).Get(t.Context(), "user-1", AtLeast(at.String()), Wait(20*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	}
	shown(write(t, j, "user-1", 1), v, other)
	c := mustClient(t, nil, v.URL())
	k := mustCache(t, c, Everything(), MemoryOnly())
	wrong := mustCache(t, c, Everything(), MemoryOnly(), func(c *cacheConfig) { c.weak.resetless = true })
	k.holds(t, "user-1", "1")
	wrong.holds(t, "user-1", "1")
	if err := v.Stop(); err != nil {
		t.Fatal(err)
	}
	shown(write(t, j, "user-1", 10), other)
	<-time.After(horizon + 10*time.Millisecond) // so old is it to be when the view is back
	if err := v.Start(); err != nil {
		t.Fatal(err)
	}
	k.holds(t, "user-1", "11")
	if st := k.Stats(); st.Reloads != 1 || !strings.Contains(st.Why, "gone") {
		t.Errorf("got %+v, want that it was loaded again, and why", st)
	}
	write(t, j, "user-2", 5)
	k.holds(t, "user-2", "5")
	await(t, func() error {
		if why := wrong.Stats().Why; !strings.HasPrefix(why, "passed over") {
			return fmt.Errorf("the control was not reset: %q", why)
		}
		return nil
	})
	await(t, func() error { // it is reset again and again, and answers in between
		a, err := wrong.Get(t.Context(), "user-1")
		if err == nil && points(a.State) != "1" {
			t.Errorf("the control: got %v points, want the stale 1", points(a.State))
		}
		return err
	})
}

// TestCache_LeavesOutWhatDoesNotFit, and asks for it.
func TestCache_LeavesOutWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	j := jobtest.MustStart(t, jobtest.Config{Partitions: 1, Watch: view.WatchConfig{Heartbeat: 20 * time.Millisecond}})
	c := mustClient(t, nil, j.MustView(t).URL())
	var at jobtest.Place
	for n := range 20 {
		at = write(t, j, fmt.Sprintf("user-%02d", n), n)
	}
	if _, err := c.Get(t.Context(), "user-19", AtLeast(at.String()), Wait(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	whole := mustCache(t, c, Everything())
	for what, opt := range map[string]CacheOption{"entries": MaxEntries(10), "bytes": MaxBytes(whole.Stats().Bytes / 2)} {
		k := mustCache(t, c, Everything(), opt)
		st := k.Stats()
		if !st.Partial || st.Entries < 8 || st.Entries > 10 || st.Bytes > whole.Stats().Bytes/2+100 {
			t.Errorf("%s: got %+v, want about the half of 20", what, st)
		}
		cached := 0
		for n := range 20 {
			id := fmt.Sprintf("user-%02d", n)
			a, err := k.Get(t.Context(), id)
			open := what == "bytes" // which ones fit, for a state with a shorter time takes a byte less
			if err != nil || points(a.State) != fmt.Sprint(n) || !open && a.Cached != (n < st.Entries) {
				t.Errorf("%s: %s: got %+v (%v), want it, from memory where it fits", what, id, a, err)
			}
			if a.Cached {
				cached++
			}
		}
		if cached != st.Entries {
			t.Errorf("%s: %d answers from memory, want the %d that fit", what, cached, st.Entries)
		}
		if _, err := k.Get(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) || k.Stats().Passed < 11 {
			t.Errorf("%s: got %v with %d asked of the view, want the view's own word", what, err, k.Stats().Passed)
		}
	}
	if st := whole.Stats(); st.Partial || st.Entries != 20 {
		t.Errorf("without a bound: got %+v", st)
	}
}

func TestCache_FailsWhereItNeverCanBeLoaded(t *testing.T) {
	t.Parallel()
	j := jobtest.MustStart(t, jobtest.Config{Partitions: 1})
	v := j.MustView(t)
	c := mustClient(t, nil, v.URL())
	if _, err := c.Cache(within(t, time.Minute), Flag("none")); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "watched") {
		t.Errorf("a flag that is not there: got %v", err)
	}
	if err := v.Stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Cache(ctx, Everything()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no view in time: got %v", err)
	}
}
