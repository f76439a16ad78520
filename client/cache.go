package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// cacheConfig bounds a cache.
type cacheConfig struct {
	entriesMax int
	bytesMax   int64
	staleAfter time.Duration
	askEvery   time.Duration
	offline    bool // do not ask the network
	weak       weakCache
}

// weakCache takes protections away: the controls of their tests.
type weakCache struct {
	resetless bool // a reset is passed over
	floorless bool // a version is taken whatever the load has seen
	trusting  bool // a heartbeat is as fresh as it says, however long it was under way
}

// CacheOption is one of a cache.
type CacheOption func(*cacheConfig)

// MaxEntries bounds how many IDs a cache holds (default 1,000,000). What does not fit is left out, and asked for over the
// network; what is held stays right.
func MaxEntries(n int) CacheOption { return func(c *cacheConfig) { c.entriesMax = n } }

// MaxBytes bounds the memory that a cache's states take, about (default 1 GiB); as MaxEntries.
func MaxBytes(n int64) CacheOption { return func(c *cacheConfig) { c.bytesMax = n } }

// StaleAfter is the age past which a cache no longer answers from memory (default 35 s: AskEvery, a view's heartbeat, and some).
func StaleAfter(d time.Duration) CacheOption { return func(c *cacheConfig) { c.staleAfter = d } }

// AskEvery is how often a cache asks its view how old what it holds is (default 10 s), which is one small read each time.
func AskEvery(d time.Duration) CacheOption {
	return func(c *cacheConfig) { c.askEvery = max(d, time.Millisecond) }
}

// MemoryOnly has a cache refuse what it cannot answer from memory, with ErrNotReady, ErrTooOld or ErrNotHeld, instead of asking the
// network for it.
func MemoryOnly() CacheOption { return func(c *cacheConfig) { c.offline = true } }

// ErrNotHeld says of a cache with MemoryOnly that it does not hold the ID, and cannot say that there is none.
var ErrNotHeld = errors.New("not held")

// Cache holds the states of the IDs that a filter means in memory, and is kept right by a watch: each committed version
// replaces the one before. Reads cost no network, and never give what is stale without saying so: every answer has its age,
// and while the cache is not connected to a view, being loaded, or older than StaleAfter, the network is asked instead.
//
// The versions of an ID that it gives do not go back, as long as it answers from memory and is not loaded anew.
type Cache struct {
	client *Client
	what   Filter
	cfg    cacheConfig

	held  atomic.Pointer[contents] // nil: being loaded
	loads atomic.Int64
	why   atomic.Pointer[string] // it was loaded anew, or cannot be

	first   sync.Once
	answers chan struct{} // closed by first, when it answers for the first time
	cancel  context.CancelFunc
	ended   sync.WaitGroup
}

// Cache loads the states of the IDs that the filter means, and keeps them right until it is closed. It returns when they are
// loaded; the context bounds that alone.
func (c *Client) Cache(ctx context.Context, what Filter, opts ...CacheOption) (*Cache, error) {
	k := &Cache{client: c, what: what, answers: make(chan struct{})}
	k.cfg = cacheConfig{entriesMax: 1_000_000, bytesMax: 1 << 30, staleAfter: 35 * time.Second, askEvery: 10 * time.Second}
	for _, opt := range opts {
		opt(&k.cfg)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	failed := make(chan error, 1)
	k.ended.Go(func() { k.run(running, failed) })
	select {
	case <-k.answers:
		return k, nil
	case err := <-failed:
		k.Close()
		return nil, err
	case <-ctx.Done():
		k.Close()
		err := &Error{kind: ctx.Err(), Message: "the cache was not loaded in time"}
		if why := k.why.Load(); why != nil {
			err.Message += ": " + *why
		}
		return nil, err
	}
}

// Close ends the watch and gives up the memory. Reads that come later go to the network.
func (k *Cache) Close() {
	k.cancel()
	k.ended.Wait()
	k.held.Store(nil)
}

// Get gives the state of one ID, from memory where that is right: the filter means the ID, the cache is fresh enough for
// MaxAge, and no event is named that the answer is to come after.
func (k *Cache) Get(ctx context.Context, id string, opts ...Option) (Answer, error) {
	held := k.held.Load()
	if held == nil {
		return k.elsewhere(ctx, id, opts, ErrNotReady)
	}
	maxAge := k.cfg.staleAfter
	if len(opts) > 0 {
		o := chosen(opts)
		if len(o.atLeast) > 0 || o.on != "" {
			return k.elsewhere(ctx, id, opts, ErrNotHeld)
		}
		if o.maxAge != nil {
			maxAge = min(maxAge, *o.maxAge)
		}
	}
	// What is read now is at least as new as what was proven before.
	age, tableAge := held.ages()
	if age == NotKnown || age > maxAge || held.view.Load() == nil {
		return k.elsewhere(ctx, id, opts, ErrTooOld)
	}
	e := held.find(id)
	if e == nil {
		if !k.covers(id) || held.partial.Load() {
			return k.elsewhere(ctx, id, opts, ErrNotHeld)
		}
		as := held.asOf(held.home(id), age, tableAge)
		return Answer{}, &Error{kind: ErrNotFound, Code: "not_found", Message: "no event of ID " + id + " was counted", AsOf: &as}
	}
	return Answer{State: e.state, Freshness: held.asOf(e.partition, age, tableAge), Cached: true}, nil
}

// covers tells whether the cache would hold the ID if there were events of it. What a flag's cache does not hold may be
// without the flag.
func (k *Cache) covers(id string) bool {
	return k.what.flag == "" && strings.HasPrefix(id, k.what.prefix) && (k.what.id == "" || k.what.id == id)
}

// elsewhere asks the network.
func (k *Cache) elsewhere(ctx context.Context, id string, opts []Option, why error) (Answer, error) {
	if held := k.held.Load(); held != nil {
		held.passed.Add(1)
	}
	if !k.cfg.offline {
		return k.client.Get(ctx, id, opts...)
	}
	e := &Error{kind: why, Message: "the cache does not answer for " + id}
	if said := k.why.Load(); said != nil {
		e.Message += ": " + *said
	}
	return Answer{}, e
}

// All gives what is held, in no order, from memory alone; each state is from a commit that is not older than the last
// load. It is to be read beside Stats.
func (k *Cache) All() func(yield func(*State) bool) {
	return func(yield func(*State) bool) {
		if held := k.held.Load(); held != nil {
			held.all(yield)
		}
	}
}

// CacheStats is how a cache stands.
type CacheStats struct {
	Answers bool   // from memory
	Why     string // it does not, or why it was last loaded anew
	Entries int
	Bytes   int64 // about
	Partial bool  // something did not fit; what is not held is asked for
	Reloads int   // after the first load
	Hits    uint64
	Passed  uint64 // reads that went to the network, or were refused

	AsOf          []Freshness // of each partition: the commit up to which everything is held, or a later one
	Age, TableAge time.Duration
}

// Stats tells how the cache stands.
func (k *Cache) Stats() CacheStats {
	st := CacheStats{Reloads: max(int(k.loads.Load())-1, 0), Age: NotKnown, TableAge: NotKnown}
	if why := k.why.Load(); why != nil {
		st.Why = *why
	}
	held := k.held.Load()
	if held == nil {
		return st
	}
	st.Age, st.TableAge = held.ages()
	st.Answers = held.view.Load() != nil && st.Age != NotKnown && st.Age <= k.cfg.staleAfter
	st.Entries, st.Bytes, st.Partial = int(held.entries.Load()), held.bytes.Load(), held.partial.Load()
	st.Hits, st.Passed = held.hits(), held.passed.Load()
	for p := range held.whole {
		st.AsOf = append(st.AsOf, held.asOf(int32(p), st.Age, st.TableAge))
	}
	return st
}
