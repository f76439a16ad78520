package eos

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// badSectors is a disk on which files of one kind cannot be read any more; those that are made since lie elsewhere.
type badSectors struct {
	mu    sync.Mutex // guards the fields below
	kind  storage.FileType
	fresh map[storage.FileDesc]bool
}

// spoil makes the files of a kind that are there unreadable.
func (b *badSectors) spoil(kind storage.FileType) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kind, b.fresh = kind, map[storage.FileDesc]bool{}
}

type badSectorStorage struct {
	storage.Storage
	disk *badSectors
}

func (s badSectorStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.fresh[fd] = true
	return s.Storage.Create(fd)
}

func (s badSectorStorage) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := s.Storage.Open(fd)
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err == nil && s.disk.kind == fd.Type && !s.disk.fresh[fd] {
		return unreadable{r}, nil
	}
	return r, err
}

type unreadable struct{ storage.Reader }

func (unreadable) Read([]byte) (int, error)          { return 0, syscall.EIO }
func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// What the disk cannot read stays so however often it is asked: it is damage, and Kafka has it.
func TestDisk_WhatCannotBeReadIsBegunAnew(t *testing.T) {
	h := history{batches: 200, keys: 60}
	for name, kind := range map[string]storage.FileType{"tables": storage.TypeTable, "manifest": storage.TypeManifest} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			disk := &badSectors{fresh: map[storage.FileDesc]bool{}}
			open := func() *Disk {
				t.Helper()
				d, err := OpenDisk(dir, testDiskID, time.Hour, time.Now(), DiskWriteBuffer(16<<10), DiskStorage(func(s storage.Storage) storage.Storage {
					return badSectorStorage{s, disk}
				}))
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			d := open()
			h.write(t, d, 0, h.batches)
			mustClose(t, d)
			disk.spoil(kind)
			d = open()
			if silent, _, err := h.compare(d); len(silent) > 0 || err != nil {
				t.Errorf("got %v, %.3q; want an answer that is right, or ErrDamaged", err, silent)
			}
			for d.Damaged() {
				if err := d.Close(); err != nil && !errors.Is(err, ErrDamaged) {
					t.Errorf("close: %v", err)
				}
				d = open()
			}
			if d.Rebuilt() == "" || d.Next() != 0 {
				t.Errorf("rebuilt %q, next %d, want a reason and 0", d.Rebuilt(), d.Next())
			}
			h.write(t, d, 0, h.batches)
			if silent, damaged, err := h.compare(d); len(silent) > 0 || damaged > 0 || err != nil {
				t.Errorf("written again: got %.3q, %d, %v", silent, damaged, err)
			}
			mustClose(t, d)
		})
	}
}
