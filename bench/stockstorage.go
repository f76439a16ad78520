package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/lovoo/goka/storage"
	"github.com/syndtr/goleveldb/leveldb"
)

const (
	gatherMax = 4096    // writes that go to LevelDB together
	cacheMax  = 100_000 // values of a partition that are kept in memory
	offsetKey = "__offset"
)

// gathered is a storage that a Goka processor can be given to make it faster. Goka's own writes LevelDB twice for each
// event, the value and then, when the table's record is acknowledged, its offset (context.go, setValueForKey), each with
// a write to LevelDB's journal, and reads it once. This one keeps values in memory and writes many at once, together
// with the newest offset. A kill loses what was not written, the offset with it, and recovery reads that stretch of the
// table again: no guarantee of Goka's gets weaker.
type gathered struct {
	storage.Storage // of Goka, on the same LevelDB
	db              *leveldb.DB

	mu     sync.Mutex        // guards what follows
	values map[string][]byte // the newest; nil for one that was deleted
	batch  leveldb.Batch
	offset int64 // of the newest table record that was acknowledged; 0 for none
}

// gatheredBuilder builds such storages.
func gatheredBuilder(dir string) storage.Builder {
	return func(topic string, partition int32) (storage.Storage, error) {
		db, err := leveldb.OpenFile(filepath.Join(dir, fmt.Sprintf("%s.%d", topic, partition)), levelOptions())
		if err != nil {
			return nil, err
		}
		base, err := storage.New(db)
		return &gathered{Storage: base, db: db, values: map[string][]byte{}}, err
	}
}

func (g *gathered) Get(key string) ([]byte, error) {
	g.mu.Lock()
	value, ok := g.values[key]
	g.mu.Unlock()
	if ok {
		return value, nil
	}
	return g.Storage.Get(key)
}

func (g *gathered) Has(key string) (bool, error) {
	value, err := g.Get(key)
	return value != nil, err
}

func (g *gathered) Set(key string, value []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.values[key] = value
	g.batch.Put([]byte(key), value)
	return g.flushIf(g.batch.Len() >= gatherMax)
}

func (g *gathered) Delete(key string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.values[key] = nil
	g.batch.Delete([]byte(key))
	return g.flushIf(g.batch.Len() >= gatherMax)
}

func (g *gathered) SetOffset(offset int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.offset = offset
	return nil
}

func (g *gathered) GetOffset(otherwise int64) (int64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.offset != 0 {
		return g.offset, nil
	}
	return g.Storage.GetOffset(otherwise)
}

func (g *gathered) MarkRecovered() error {
	return g.flush()
}

func (g *gathered) Iterator() (storage.Iterator, error) {
	if err := g.flush(); err != nil {
		return nil, err
	}
	return g.Storage.Iterator()
}

func (g *gathered) IteratorWithRange(start, limit []byte) (storage.Iterator, error) {
	if err := g.flush(); err != nil {
		return nil, err
	}
	return g.Storage.IteratorWithRange(start, limit)
}

func (g *gathered) Close() error {
	err := g.flush()
	if closed := g.Storage.Close(); err == nil {
		err = closed
	}
	return err
}

func (g *gathered) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.flushIf(true)
}

// flushIf writes what is gathered; mu is held. After it LevelDB has every value, so any may be forgotten.
func (g *gathered) flushIf(now bool) error {
	if !now {
		return nil
	}
	if g.offset != 0 {
		g.batch.Put([]byte(offsetKey), strconv.AppendInt(nil, g.offset, 10))
	}
	if err := g.db.Write(&g.batch, nil); err != nil {
		return err
	}
	g.batch.Reset()
	if len(g.values) > cacheMax {
		clear(g.values)
	}
	return nil
}
