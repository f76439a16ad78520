package eos

import (
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// DiskBatch gathers writes that Disk.Apply makes together. The zero value is ready. It copies what it is given.
type DiskBatch struct {
	ldb     leveldb.Batch
	scratch []byte
}

// Put writes a table record.
func (b *DiskBatch) Put(key, value []byte) {
	b.grow(len(key) + len(value))
	b.ldb.Put(b.key(spaceRecord, key), value)
}

// Delete removes a table record; one that is not there is no error.
func (b *DiskBatch) Delete(key []byte) { b.ldb.Delete(b.key(spaceRecord, key)) }

// PutIndex adds an index key. Index keys have a space of their own and no value.
func (b *DiskBatch) PutIndex(key []byte) { b.ldb.Put(b.key(spaceIndex, key), nil) }

// DeleteIndex removes an index key.
func (b *DiskBatch) DeleteIndex(key []byte) { b.ldb.Delete(b.key(spaceIndex, key)) }

// Len is the number of writes.
func (b *DiskBatch) Len() int { return b.ldb.Len() }

// Bytes is the size of the batch.
func (b *DiskBatch) Bytes() int { return len(b.ldb.Dump()) }

// Reset empties the batch and keeps its memory.
func (b *DiskBatch) Reset() { b.ldb.Reset() }

// grow doubles the batch's memory when it is full. LevelDB's own growth gets smaller the larger a batch is (batch.go:
// grow), and copying then takes a third of the time of a recovery.
func (b *DiskBatch) grow(payload int) {
	const overhead = 32 // of one record
	data := b.ldb.Dump()
	if cap(data)-len(data) >= payload+overhead {
		return
	}
	larger := append(make([]byte, 0, max(4096, 2*(len(data)+payload+overhead))), data...)
	if err := b.ldb.Load(larger); err != nil {
		panic(err) // it has just written these bytes
	}
}

func (b *DiskBatch) key(space byte, key []byte) []byte {
	b.scratch = append(append(b.scratch[:0], space), key...)
	return b.scratch
}

// Snapshot is the state between two batches: what it reads stays the same while the state goes on. It holds disk space
// until Release.
func (d *Disk) Snapshot() (*DiskSnapshot, error) {
	if err := d.damage(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	snap, err := d.db.GetSnapshot()
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", d.dir, d.judge(err))
	}
	return &DiskSnapshot{disk: d, snap: snap, next: d.next, position: d.position}, nil
}

// DiskSnapshot is a Disk at one moment.
type DiskSnapshot struct {
	disk     *Disk
	snap     *leveldb.Snapshot
	next     int64
	position *Position
}

// Next is Disk.Next at that moment.
func (s *DiskSnapshot) Next() int64 { return s.next }

// Position is Disk.Position at that moment.
func (s *DiskSnapshot) Position() (*Position, bool) { return s.position, s.position != nil }

// Get is Disk.Get at that moment.
func (s *DiskSnapshot) Get(key []byte) ([]byte, error) { return get(s.disk, s.snap, key) }

// Records goes through the table records with start <= key < limit in byte order; nil means no bound. Keys that are not
// IDs (IsUserKey) lie behind all that are, but for position records, which are not among them.
func (s *DiskSnapshot) Records(start, limit []byte) *DiskIterator {
	return s.iterate(spaceRecord, start, limit)
}

// Index goes through the index keys with start <= key < limit in byte order; nil means no bound.
func (s *DiskSnapshot) Index(start, limit []byte) *DiskIterator {
	return s.iterate(spaceIndex, start, limit)
}

func (s *DiskSnapshot) iterate(space byte, start, limit []byte) *DiskIterator {
	r := &util.Range{Start: append([]byte{space}, start...), Limit: []byte{space + 1}}
	if limit != nil {
		r.Limit = append([]byte{space}, limit...)
	}
	// A scan must not push the blocks of point reads out of the cache.
	return &DiskIterator{disk: s.disk, it: s.snap.NewIterator(r, &opt.ReadOptions{DontFillCache: true})}
}

// Release gives the snapshot up. Its iterators are released before.
func (s *DiskSnapshot) Release() { s.snap.Release() }

// DiskIterator goes through keys: Next until it is false, then Err.
type DiskIterator struct {
	disk *Disk
	it   iterator.Iterator
	err  error
}

// Next moves to the next key; false means that there is none, or that Err is not nil.
func (i *DiskIterator) Next() bool {
	if i.err == nil {
		i.err = i.disk.damage()
	}
	if i.err != nil {
		return false
	}
	if i.it.Next() {
		return true
	}
	i.err = i.disk.judge(i.it.Error())
	return false
}

// Key is valid until Next.
func (i *DiskIterator) Key() []byte { return i.it.Key()[1:] }

// Value is valid until Next.
func (i *DiskIterator) Value() []byte { return i.it.Value() }

// Err is ErrDamaged where what was passed over cannot be told; a result is complete only if it is nil.
func (i *DiskIterator) Err() error { return i.err }

// Release gives the iterator up.
func (i *DiskIterator) Release() { i.it.Release() }
