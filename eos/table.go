package eos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
)

// table is one partition's values in memory: decoded, bounded, with the dirty ones listed. Reads see changed values, then
// cached ones, then LevelDB, which holds committed data alone. It is guarded by the partition's lock.
//
// The cache has two generations. What is used goes to the young one; when the budget is full, the old one loses entries at
// random, and when that is empty, the young one becomes the old one. What is dirty, or cut but not yet flushed, is never
// dropped, for LevelDB does not have it yet; back-pressure bounds that (Config.PendingBytesMax).
type table struct {
	codec Codec
	disk  *Disk

	young, old  map[string]*entry
	bytes       int64 // of both generations
	budgetBytes int64
	evictBytes  int64 // at which entries are dropped

	dirty      []*entry
	dirtyBytes int64
	cutSeq     uint64 // cuts taken
	flushedSeq uint64 // cuts that LevelDB has
}

type entry struct {
	key   string
	value any
	bytes int64 // of memory that the entry holds, when it was last weighed
	dirty bool
	cut   uint64 // the last cut that carried it
}

// entryOverheadBytes: the entry itself, its map slot and key header.
const entryOverheadBytes = 160

func newTable(codec Codec, disk *Disk, budgetBytes int64) *table {
	return &table{codec: codec, disk: disk, young: map[string]*entry{}, old: map[string]*entry{}, budgetBytes: budgetBytes, evictBytes: budgetBytes}
}

func (t *table) get(key string) (any, error) {
	e := t.find(key)
	if e == nil {
		base, err := t.disk.Get(keyBytes(key))
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read state %q: %w", key, err)
		}
		value, err := t.codec.Decode(key, base, t.readMore)
		if err != nil {
			return nil, fmt.Errorf("read state %q: %w", key, err)
		}
		e = t.add(strings.Clone(key), value)
	}
	return e.value, nil
}

func (t *table) readMore(key []byte) ([]byte, error) {
	b, err := t.disk.Get(key)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return b, err
}

func (t *table) put(key string, value any) {
	e := t.find(key)
	if e == nil {
		e = t.add(strings.Clone(key), value)
	}
	e.value = value
	if !e.dirty {
		e.dirty = true
		t.dirty = append(t.dirty, e)
		t.dirtyBytes += e.bytes
	}
}

func (t *table) find(key string) *entry {
	if e := t.young[key]; e != nil {
		return e
	}
	e := t.old[key]
	if e != nil {
		delete(t.old, key)
		t.young[key] = e
	}
	return e
}

func (t *table) add(key string, value any) *entry {
	e := &entry{key: key, value: value}
	e.bytes = t.weigh(e)
	if t.bytes+e.bytes > t.evictBytes {
		t.evict() // before e is in, which may not be dirty yet
	}
	t.young[key] = e
	t.bytes += e.bytes
	return e
}

func (t *table) weigh(e *entry) int64 {
	return entryOverheadBytes + int64(len(e.key)) + t.codec.MemoryBytes(e.value)
}

// evict makes room for a thirty-second part of the budget. Where it cannot, because too much is dirty, it is tried again when
// as much has been added, or when something was flushed.
func (t *table) evict() {
	room := t.budgetBytes / 32
	t.evictOld(t.budgetBytes - room)
	if t.bytes > t.budgetBytes-room {
		t.old, t.young = t.young, map[string]*entry{}
		t.evictOld(t.budgetBytes - room)
	}
	t.evictBytes = max(t.budgetBytes, t.bytes+room)
}

// evictOld drops entries of the old generation, at random, until at most target bytes are held. What LevelDB does not have
// goes to the young one: if that is not enough, the old one is empty afterwards.
func (t *table) evictOld(target int64) {
	for key, e := range t.old {
		if t.bytes <= target {
			break
		}
		delete(t.old, key)
		if e.dirty || e.cut > t.flushedSeq {
			t.young[key] = e
		} else {
			t.bytes -= e.bytes
		}
	}
}

// flushed notes that LevelDB has the cuts up to seq. What was kept for them alone is dropped where it does not fit.
func (t *table) flushed(seq uint64) {
	t.flushedSeq = seq
	if t.bytes > t.budgetBytes {
		t.evict()
	}
}

// cut encodes every dirty value once, in order of the keys, and begins a new list of them. LevelDB takes what comes in order
// in two thirds of the time.
func (t *table) cut(write func(key, value []byte)) error {
	t.cutSeq++
	slices.SortFunc(t.dirty, func(a, b *entry) int { return strings.Compare(a.key, b.key) })
	for i, e := range t.dirty {
		if err := t.codec.Encode(e.key, e.value, write); err != nil {
			return fmt.Errorf("encode state %q: %w", e.key, err)
		}
		e.dirty, e.cut = false, t.cutSeq
		bytes := t.weigh(e) // it may have grown since it was weighed
		t.bytes += bytes - e.bytes
		e.bytes = bytes
		t.dirty[i] = nil
	}
	t.dirty, t.dirtyBytes = t.dirty[:0], 0
	return nil
}

// arena hands out stable copies from large blocks, so that a cut costs few allocations.
type arena struct{ block []byte }

const arenaBlockBytes = 256 << 10

func (a *arena) copy(b []byte) []byte {
	if len(b) == 0 {
		return b[:0:0] // nothing is another thing than null
	}
	if len(b) > cap(a.block)-len(a.block) {
		a.block = make([]byte, 0, max(arenaBlockBytes, len(b)))
	}
	start := len(a.block)
	a.block = append(a.block, b...)
	return a.block[start:len(a.block):len(a.block)]
}

// slab hands out kgo records from large blocks.
type slab struct{ block []kgo.Record }

func (s *slab) next() *kgo.Record {
	if len(s.block) == cap(s.block) {
		s.block = make([]kgo.Record, 0, 512)
	}
	s.block = s.block[:len(s.block)+1]
	return &s.block[len(s.block)-1]
}

// keyBytes views a key's bytes without a copy; nobody writes to them.
func keyBytes(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) }
