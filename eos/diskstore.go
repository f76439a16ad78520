package eos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

func (t *diskTuning) options() *opt.Options {
	if t.stock {
		return &opt.Options{WriteBuffer: t.writeBufferBytes}
	}
	return &opt.Options{
		Strict:             opt.StrictAll,
		Filter:             filter.NewBloomFilter(10),
		BlockCacheCapacity: t.cacheBytes,
		WriteBuffer:        t.writeBufferBytes,
		NoSync:             true,
	}
}

var errPanicked = errors.New("leveldb panicked")

// openLevelDB guards against what LevelDB makes of damaged files.
func openLevelDB(stor storage.Storage, o *opt.Options) (db *leveldb.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	return leveldb.Open(stor, o)
}

// noJournal is a directory in which LevelDB's journals go nowhere. Files that look like journals are not seen: a journal
// that was left out of a sequence of them would be a hole that LevelDB does not notice.
type noJournal struct{ storage.Storage }

func (s noJournal) Log(string) {}

func (s noJournal) List(types storage.FileType) ([]storage.FileDesc, error) {
	if types &^= storage.TypeJournal; types == 0 {
		return nil, nil
	}
	return s.Storage.List(types)
}

func (s noJournal) Create(fd storage.FileDesc) (storage.Writer, error) {
	if fd.Type == storage.TypeJournal {
		return nowhere{}, nil
	}
	return s.Storage.Create(fd)
}

func (s noJournal) Remove(fd storage.FileDesc) error {
	if fd.Type == storage.TypeJournal {
		return nil
	}
	return s.Storage.Remove(fd)
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Sync() error                 { return nil }
func (nowhere) Close() error                { return nil }

// removeState removes LevelDB's files and the marker, but the lock, which is held, and nothing that is not ours.
func removeState(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	// The marker goes last: a crash in between must find it again.
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return isMarker(a) - isMarker(b) })
	for _, e := range entries {
		ours := isMarker(e) == 1 || strings.HasPrefix(e.Name(), "CURRENT") || strings.HasPrefix(e.Name(), "MANIFEST-") ||
			slices.Contains([]string{".ldb", ".sst", ".log", ".tmp"}, filepath.Ext(e.Name()))
		if !ours || e.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func isMarker(e os.DirEntry) int {
	if e.Name() == markerName {
		return 1
	}
	return 0
}
