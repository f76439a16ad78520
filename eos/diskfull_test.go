//go:build !race

// Where a compaction fails, goleveldb v1.0.0 sends on a channel that the other side may be closing, and recovers (db_compaction.go,
// cAuto.ack): the race detector convicts that, and so this test runs without it.

package eos

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// failingDisk is a disk whose room ends at some write, or that takes writes for done from then on which are not.
type failingDisk struct {
	after atomic.Int64 // writes until then
	how   trouble
	used  atomic.Int64
}

type trouble string

const (
	fullDisk trouble = "no space left" // half of a write succeeds
	forgets  trouble = "forgets"       // nobody is told
)

func (f *failingDisk) wrap(s storage.Storage) storage.Storage { return failingStorage{s, f} }

func (f *failingDisk) bad() bool { return f.used.Add(1) > f.after.Load() }

// heal gives the disk room again.
func (f *failingDisk) heal() { f.after.Store(1 << 60) }

type failingStorage struct {
	storage.Storage
	disk *failingDisk
}

func (s failingStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	if s.disk.how == fullDisk && s.disk.bad() {
		return nil, syscall.ENOSPC
	}
	w, err := s.Storage.Create(fd)
	return failingWriter{w, s.disk}, err
}

func (s failingStorage) SetMeta(fd storage.FileDesc) error {
	if s.disk.how == fullDisk && s.disk.bad() {
		return syscall.ENOSPC
	}
	return s.Storage.SetMeta(fd)
}

type failingWriter struct {
	storage.Writer
	disk *failingDisk
}

func (w failingWriter) Write(p []byte) (int, error) {
	switch bad := w.disk.bad(); {
	case bad && w.disk.how == fullDisk:
		n, _ := w.Writer.Write(p[:len(p)/2])
		return n, syscall.ENOSPC
	case bad:
		return len(p), nil
	}
	return w.Writer.Write(p)
}

// A disk that is full, or fails, ends writing; what is read then and after it has room again is what was written up to some
// batch, or nothing.
func TestDisk_AFullOrFailingDiskNeverEndsInWrongAnswers(t *testing.T) {
	h := history{batches: 400, keys: 200}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for how, most := range map[trouble]int64{fullDisk: 300, forgets: 300} {
		t.Run(string(how), func(t *testing.T) {
			told, rebuilt := 0, 0
			for range 40 {
				f := &failingDisk{how: how}
				f.after.Store(rng.Int64N(most))
				refused, began := throughTrouble(t, h, f)
				if refused {
					told++
				}
				if began {
					rebuilt++
				}
				if t.Failed() {
					t.Fatalf("seed %d: %s after %d", seed, how, f.after.Load())
				}
			}
			t.Logf("seed %d: of 40 disks %d refused to write, %d were begun anew", seed, told, rebuilt)
			if told+rebuilt == 0 {
				t.Errorf("seed %d: no disk failed; this test shows nothing", seed)
			}
		})
	}
}

// throughTrouble writes until the disk fails, reads, gives it room, opens it again and writes the rest.
func throughTrouble(t *testing.T, h history, f *failingDisk) (refused, rebuilt bool) {
	t.Helper()
	dir := t.TempDir()
	open := func() (*Disk, error) {
		return OpenDisk(dir, testDiskID, time.Hour, time.Now(), DiskWriteBuffer(16<<10), DiskStorage(f.wrap))
	}
	check := func(d *Disk, when string) {
		t.Helper()
		if silent, _, err := h.compare(d); len(silent) > 0 || err != nil {
			t.Errorf("%s: %d wrong, such as %.3q: %v", when, len(silent), silent, err)
		}
	}
	d, err := open()
	if err == nil {
		err = h.try(d, 0)
		refused = err != nil
		check(d, "in trouble")
		if err := d.Close(); err != nil {
			refused = true
		}
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want the cause in it", err)
	}
	f.heal()
	if d, err = open(); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	rebuilt = d.Rebuilt() != ""
	check(d, "with room again")
	if d.Damaged() { // noticed by the reads: the next one begins anew
		_ = d.Close()
		if d, err = open(); err != nil || d.Rebuilt() == "" {
			t.Fatalf("after damage was noticed: %v, rebuilt for %q", err, d.Rebuilt())
		}
		rebuilt = true
	}
	if err := h.try(d, int(d.Next()/historyStep)); err != nil {
		t.Errorf("write the rest: %v", err)
	}
	check(d, "in the end")
	mustClose(t, d)
	return refused, rebuilt
}

// try writes the batches that follow until one is refused.
func (h history) try(d *Disk, from int) error {
	var b DiskBatch
	for i := from; i < h.batches; i++ {
		b.Reset()
		h.batch(i, &b)
		pos := &Position{Seq: uint64(i + 1), CommittedMs: time.Now().UnixMilli()}
		if err := d.Apply(&b, int64(i+1)*historyStep, pos); err != nil {
			return err
		}
	}
	return nil
}
