package eos

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
)

// table is one partition's values in memory: decoded, bounded, with the dirty ones in order of their
// first change since the last cut. Reads see changed values, then cached ones, then LevelDB, which
// holds committed data alone. It is guarded by the partition's lock.
//
// The cache has two generations: when the young one is half the budget, it becomes the old one. What
// is dirty, or cut but not yet flushed, survives every turn, for LevelDB does not have it yet.
type table struct {
	codec Codec
	disk  *Disk

	young, old  map[string]*entry
	youngBytes  int64
	budgetBytes int64

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
	return &table{codec: codec, disk: disk, young: map[string]*entry{}, old: map[string]*entry{}, budgetBytes: budgetBytes}
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
		t.insert(e)
	}
	return e
}

func (t *table) add(key string, value any) *entry {
	e := &entry{key: key, value: value}
	e.bytes = t.weigh(e)
	t.insert(e)
	return e
}

func (t *table) weigh(e *entry) int64 {
	return entryOverheadBytes + int64(len(e.key)) + t.codec.MemoryBytes(e.value)
}

func (t *table) insert(e *entry) {
	if t.youngBytes+e.bytes > t.budgetBytes/2 && len(t.young) > 0 {
		t.turn()
	}
	t.young[e.key] = e
	t.youngBytes += e.bytes
}

// turn drops the old generation but for what LevelDB does not have yet.
func (t *table) turn() {
	dropped := t.old
	t.old, t.young, t.youngBytes = t.young, map[string]*entry{}, 0
	for _, e := range dropped {
		if e.dirty || e.cut > t.flushedSeq {
			t.young[e.key] = e
			t.youngBytes += e.bytes
		}
	}
}

// cut encodes every dirty value once, in order of first change, and begins a new list of them.
func (t *table) cut(write func(key, value []byte)) error {
	t.cutSeq++
	for i, e := range t.dirty {
		if err := t.codec.Encode(e.key, e.value, write); err != nil {
			return fmt.Errorf("encode state %q: %w", e.key, err)
		}
		e.dirty, e.cut = false, t.cutSeq
		bytes := t.weigh(e) // it may have grown since it was weighed
		if t.young[e.key] == e {
			t.youngBytes += bytes - e.bytes
		}
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
	if b == nil {
		return nil
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
