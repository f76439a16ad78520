package client

import (
	"hash/maphash"
	"math"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// contents is what a cache holds. Readers come from anywhere; one goroutine changes it.
type contents struct {
	cfg    *cacheConfig
	seed   maphash.Seed
	shards [shards]shard

	entries, bytes atomic.Int64
	partial        atomic.Bool // something was left out
	passed         atomic.Uint64

	view                atomic.Pointer[endpoint] // to which the watch is connected; nil: to none
	begun               time.Time
	proven, provenTable atomic.Int64 // counted from begun: when what is held was last known to cover the end of the input, and of the table; never: not known

	whole  []atomic.Pointer[Freshness] // of each partition, a commit up to which everything is held
	grown  chan struct{}               // holds one: some of them is a later one
	coming []Freshness                 // the commit of the last change, of which more may come; the writer's own
	floors []floor                     // of the load; the writer's own
}

const never = math.MinInt64

// shards is how many parts the IDs are in: readers on many cores seldom meet.
const shards = 64

type shard struct {
	mu   sync.RWMutex // guards ids
	ids  map[string]*entry
	hits atomic.Uint64
	_    [64]byte // each on a cache line of its own
}

// entry is one ID. It is replaced, never changed.
type entry struct {
	state     *State
	commit    uint64 // as of which it is
	partition int32
	bytes     int32
}

// entryBytes is what an entry takes beside its state.
const entryBytes = 350

// floor is what one page of the load has seen: the commits of all partitions, for IDs up to last.
type floor struct {
	last    string // "" is all that follow
	commits []uint64
}

// newContents begins with the partitions, the commits and the ages of the first page of a load: later pages are as of the same
// commits or later ones.
func newContents(cfg *cacheConfig, page *Page) *contents {
	h := &contents{cfg: cfg, begun: time.Now(), seed: maphash.MakeSeed(), grown: make(chan struct{}, 1), whole: make([]atomic.Pointer[Freshness], len(page.AsOf)), coming: make([]Freshness, len(page.AsOf))}
	for i := range h.shards {
		h.shards[i].ids = map[string]*entry{}
	}
	h.proven.Store(never)
	h.provenTable.Store(never)
	for p, f := range page.AsOf {
		h.whole[p].Store(&Freshness{Partition: int32(p), Position: f.Position, Time: f.Time, Commit: f.Commit})
	}
	h.provenBy(page)
	return h
}

// covers tells whether everything is held that an answer was as of.
func (h *contents) covers(page *Page) bool {
	for p, f := range page.AsOf {
		if len(page.AsOf) != len(h.whole) || h.whole[p].Load().Commit < f.Commit {
			return false
		}
	}
	return true
}

// provenBy takes the word of an answer that is covered.
func (h *contents) provenBy(page *Page) {
	age, tableAge := time.Duration(0), time.Duration(0)
	for _, f := range page.AsOf {
		age, tableAge = older(age, f.Age), older(tableAge, f.TableAge)
	}
	h.prove(page.asked, age, tableAge)
}

// prove notes that what is held was known, at a time, to cover the ends of input and table as of ages before that.
func (h *contents) prove(at time.Time, age, tableAge time.Duration) {
	for _, f := range []struct {
		proven *atomic.Int64
		age    time.Duration
	}{{&h.proven, age}, {&h.provenTable, tableAge}} {
		if f.age != NotKnown { // else what was proven before stands
			f.proven.Store(max(f.proven.Load(), int64(at.Sub(h.begun)-f.age)))
		}
	}
}

func (h *contents) ages() (age, tableAge time.Duration) {
	now := time.Since(h.begun)
	age, tableAge = NotKnown, NotKnown
	if at := h.proven.Load(); at != never {
		age = now - time.Duration(at)
	}
	if at := h.provenTable.Load(); at != never {
		tableAge = now - time.Duration(at)
	}
	return age, tableAge
}

func (h *contents) shard(id string) *shard { return &h.shards[maphash.String(h.seed, id)%shards] }

func (h *contents) home(id string) int32 { return Partition(id, int32(len(h.whole))) }

func (h *contents) find(id string) *entry {
	s := h.shard(id)
	s.mu.RLock()
	e := s.ids[id]
	s.mu.RUnlock()
	if e != nil {
		s.hits.Add(1)
	}
	return e
}

func (h *contents) hits() (n uint64) {
	for i := range h.shards {
		n += h.shards[i].hits.Load()
	}
	return n
}

func (h *contents) all(yield func(*State) bool) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.RLock()
		states := make([]*State, 0, len(s.ids))
		for _, e := range s.ids {
			states = append(states, e.state)
		}
		s.mu.RUnlock()
		for _, state := range states {
			if !yield(state) {
				return
			}
		}
	}
}

// asOf is how fresh a partition is.
func (h *contents) asOf(partition int32, age, tableAge time.Duration) Freshness {
	f := *h.whole[partition].Load()
	f.Age, f.TableAge = age, tableAge
	return f
}

// hear notes of which commit changes come. Those before it are whole.
func (h *contents) hear(f *Freshness) {
	if was := &h.coming[f.Partition]; f.Commit > was.Commit {
		h.complete(was)
		*was = *f
	}
}

func (h *contents) complete(f *Freshness) {
	if at := &h.whole[f.Partition]; f.Commit > at.Load().Commit {
		done := *f
		at.Store(&done)
		select {
		case h.grown <- struct{}{}:
		default:
		}
	}
}

// alive takes a heartbeat, which tells up to which commits everything was told.
func (h *contents) alive(e *Event) {
	for i := range e.Told {
		if int(e.Told[i].Partition) < len(h.whole) {
			h.complete(&e.Told[i])
		}
	}
	if h.cfg.weak.trusting {
		h.prove(time.Now(), e.Age, e.TableAge)
	}
}

// add takes in a page of the load.
func (h *contents) add(page *Page) {
	seen := floor{commits: make([]uint64, len(h.whole))}
	for p := range page.AsOf {
		seen.commits[p] = page.AsOf[p].Commit
	}
	for _, s := range page.States {
		p := h.home(s.Id)
		h.put(s, p, seen.commits[p])
	}
	if n := len(page.States); n > 0 && page.Next != "" {
		seen.last = page.States[n-1].Id
	}
	h.floors = append(h.floors, seen)
}

// change takes in a committed version, unless the load has seen it, or a later one.
func (h *contents) change(e *Event, flag string) {
	p := e.AsOf.Partition
	if int(p) >= len(h.whole) {
		return // of a table with other partitions; a reset comes
	}
	defer h.hear(&e.AsOf)
	if e.AsOf.Commit <= h.seen(e.ID, p) && !h.cfg.weak.floorless {
		return
	}
	if e.State == nil || !bears(e.State, flag) {
		h.drop(e.ID)
		return
	}
	h.put(e.State, p, e.AsOf.Commit)
}

// seen is the commit up to which what is held of an ID, or that it is not, is as of.
func (h *contents) seen(id string, partition int32) uint64 {
	s := h.shard(id)
	if e := s.ids[id]; e != nil { // the writer needs no lock to read
		return e.commit
	}
	i := sort.Search(len(h.floors), func(i int) bool { return h.floors[i].last == "" || id <= h.floors[i].last })
	if i == len(h.floors) {
		return 0
	}
	return h.floors[i].commits[partition]
}

// put holds a state, or leaves it out where there is no room.
func (h *contents) put(state *State, partition int32, commit uint64) {
	e := &entry{state: state, commit: commit, partition: partition, bytes: int32(min(stateBytes(state), 1<<30))}
	s := h.shard(state.Id)
	entries, bytes := h.entries.Load()+1, h.bytes.Load()+int64(e.bytes)
	if was := s.ids[state.Id]; was != nil {
		entries, bytes = entries-1, bytes-int64(was.bytes)
	}
	if entries > int64(h.cfg.entriesMax) || bytes > h.cfg.bytesMax {
		h.partial.Store(true) // before it is missing
		h.drop(state.Id)
		return
	}
	s.mu.Lock()
	s.ids[state.Id] = e
	s.mu.Unlock()
	h.entries.Store(entries)
	h.bytes.Store(bytes)
}

func (h *contents) drop(id string) {
	s := h.shard(id)
	was := s.ids[id]
	if was == nil {
		return
	}
	s.mu.Lock()
	delete(s.ids, id)
	s.mu.Unlock()
	h.entries.Add(-1)
	h.bytes.Add(-int64(was.bytes))
}
