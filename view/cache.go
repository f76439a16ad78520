package view

import (
	"encoding/binary"
	"hash/maphash"
	"runtime"
	"sync"
)

// cache keeps states in JSON, as answers have them, so that most reads neither ask LevelDB nor decode and encode. It takes a
// bounded number of bytes for all partitions together, of which the collector sees no pointer.
//
// What it gives is what LevelDB has at the very commit that the reader holds. Each published commit has a turn, a number that
// grows. An entry says at which turn it was read, and before a commit is published, the IDs that it changes are forgotten.
// So an entry holds from its turn on until it is gone. Two things must not happen, and each has its guard: a reader of
// an earlier commit must not see a later entry, so an entry of a later turn is none (show); and a slow reader must not
// keep what has been forgotten meanwhile, so a state is kept only while its turn is the newest (put). What was kept
// before the local state was built anew is older than published.since, and none either.
//
// Of a shard's two generations the young one takes what is kept. When it is full it becomes the old one, whose entries are
// copied into the young one when they are asked for: what nobody has asked for in a whole generation is gone.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
	most   int // bytes of a generation
}

const (
	cacheShards = 64
	// entryHead is how an entry begins: turn, version and length of the state, length of the ID.
	entryHead = 8 + 8 + 4 + 2
	// indexBytes is about what an entry costs in a map.
	indexBytes = 24
)

type cacheShard struct {
	mu          sync.Mutex // guards the fields below
	young, old  generation
	all, misses int64    // reads
	_           [64]byte // the next one's lock is in another cache line
}

// generation is entries one after the other, and where they are by the hash of the ID.
type generation struct {
	at   map[uint64]uint32
	data []byte
}

// newCache makes a cache that takes about as many bytes at most; 0 keeps nothing.
func newCache(most int) *cache {
	return &cache{seed: maphash.MakeSeed(), most: min(most/cacheShards/2, 1<<31)}
}

func (c *cache) shard(id string) (*cacheShard, uint64) {
	hash := maphash.String(c.seed, id)
	return &c.shards[hash%cacheShards], hash
}

// entry gives what is kept of an ID, or of another one of the same hash; show tells. The reader has its commit before it
// asks: what is forgotten for that commit is so never in its hands. The bytes never change.
func (c *cache) entry(id string) cacheEntry {
	if c.most == 0 {
		return nil
	}
	shard, hash := c.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.all++
	e := shard.young.entry(hash)
	if e != nil {
		return e
	}
	if e = shard.old.entry(hash); e == nil {
		shard.misses++
		return nil
	}
	shard.add(c.most, hash, e.whole()) // e itself stays where it is
	return e
}

// entries is entry for each of some IDs. An entry is seldom in the processor's caches, and to look at one after the other
// is to wait for memory again and again; what is touched here, all at once, has come when show looks at it.
func (c *cache) entries(ids []string) []cacheEntry {
	entries := make([]cacheEntry, len(ids))
	for i, id := range ids {
		entries[i] = c.entry(id)
	}
	const line = 64
	touched := byte(0)
	for _, e := range entries {
		for at := 0; at < min(len(e), 4*line); at += line {
			touched |= e[at]
		}
	}
	runtime.KeepAlive(touched)
	return entries
}

// show appends the state that is in an entry, where it is what a reader of s has of the ID.
func (c *cache) show(dst []byte, s *published, id string, e cacheEntry) (out []byte, version uint64, ok bool) {
	if e == nil {
		return dst, 0, false
	}
	if string(e.id()) == id && e.turn() >= s.since && e.turn() <= s.turn {
		return append(dst, e.state()...), e.version(), true
	}
	shard, _ := c.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.misses++
	return dst, 0, false
}

// asked tells how many reads found what they asked for, of how many.
func (c *cache) asked() (hits, all int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		hits, all = hits+s.all-s.misses, all+s.all
		s.mu.Unlock()
	}
	return hits, all
}

// put keeps the state of an ID that was read from s, in p.
func (c *cache) put(p *partition, s *published, id string, version uint64, state []byte) {
	size := entryHead + len(id) + len(state)
	if size+indexBytes > c.most/4 {
		return
	}
	e := make(cacheEntry, 0, size)
	e = binary.LittleEndian.AppendUint64(e, s.turn)
	e = binary.LittleEndian.AppendUint64(e, version)
	e = binary.LittleEndian.AppendUint32(e, uint32(len(state)))
	e = binary.LittleEndian.AppendUint16(e, uint16(len(id)))
	e = append(append(e, id...), state...)
	shard, hash := c.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if p.turn.Load() == s.turn {
		shard.add(c.most, hash, e)
	}
}

// forget is called, before a commit is published, with each ID that it changes.
func (c *cache) forget(id string) {
	if c.most == 0 {
		return
	}
	shard, hash := c.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	delete(shard.young.at, hash)
	delete(shard.old.at, hash)
}

// add puts an entry into the young generation.
func (s *cacheShard) add(most int, hash uint64, e cacheEntry) {
	if s.young.at == nil {
		s.young.at, s.old.at = map[uint64]uint32{}, map[uint64]uint32{}
	}
	if len(s.young.data)+len(e)+indexBytes*len(s.young.at) > most {
		s.young, s.old = generation{at: map[uint64]uint32{}, data: make([]byte, 0, len(s.young.data))}, s.young
	}
	s.young.at[hash] = uint32(len(s.young.data))
	s.young.data = append(s.young.data, e...)
}

// entry gives the generation from an entry on, and does not look at it.
func (g *generation) entry(hash uint64) cacheEntry {
	if at, ok := g.at[hash]; ok {
		return cacheEntry(g.data[at:])
	}
	return nil
}

// cacheEntry is an entry's bytes, and may be more.
type cacheEntry []byte

func (e cacheEntry) whole() cacheEntry { return e[:entryHead+e.idLen()+e.stateLen()] }

func (e cacheEntry) turn() uint64    { return binary.LittleEndian.Uint64(e) }
func (e cacheEntry) version() uint64 { return binary.LittleEndian.Uint64(e[8:]) }
func (e cacheEntry) stateLen() int   { return int(binary.LittleEndian.Uint32(e[16:])) }
func (e cacheEntry) idLen() int      { return int(binary.LittleEndian.Uint16(e[20:])) }
func (e cacheEntry) id() []byte      { return e[entryHead : entryHead+e.idLen()] }
func (e cacheEntry) state() []byte   { return e.whole()[entryHead+e.idLen():] }
