//go:build !race

// Where a compaction fails, goleveldb v1.0.0 sends on a channel that the other side may be closing, and recovers (db_compaction.go,
// cAuto.ack): the race detector convicts that, and so this test runs without it.

package eos

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// failingDisk is a disk on which some trouble begins at some use of it.
type failingDisk struct {
	after atomic.Int64 // uses until then: writes, and reads where they fail too
	how   trouble
	used  atomic.Int64
}

type trouble string

const (
	fullDisk trouble = "no space left" // half of a write succeeds
	forgets  trouble = "forgets"       // what is written is taken for done and is not; nobody is told
	unsynced trouble = "fsync fails"   // the same, and who waits for an fsync is told: a kernel drops what it could not write
	broken   trouble = "i/o error"     // nothing works any more, neither writing nor reading
)

// troubles have the number of uses within which each begins, so that it meets any step of a short life.
var troubles = map[trouble]int64{fullDisk: 300, forgets: 300, unsynced: 300, broken: 600}

// cause is what the disk says of its trouble.
func (t trouble) cause() error {
	if t == fullDisk {
		return syscall.ENOSPC
	}
	return syscall.EIO
}

func (f *failingDisk) wrap(s storage.Storage) storage.Storage { return failingStorage{s, f} }

func (f *failingDisk) bad() bool { return f.used.Add(1) > f.after.Load() }

// fails is the cause where one of these troubles has begun.
func (f *failingDisk) fails(by ...trouble) error {
	if slices.Contains(by, f.how) && f.bad() {
		return f.how.cause()
	}
	return nil
}

// met tells whether the trouble has begun.
func (f *failingDisk) met() bool { return f.used.Load() > f.after.Load() }

// heal makes the disk work again.
func (f *failingDisk) heal() { f.after.Store(1 << 60) }

type failingStorage struct {
	storage.Storage
	disk *failingDisk
}

func (s failingStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	if err := s.disk.fails(fullDisk, broken); err != nil {
		return nil, err
	}
	w, err := s.Storage.Create(fd)
	return failingWriter{w, s.disk}, err
}

// SetMeta writes CURRENT and waits for it: the one fsync of a Disk.
func (s failingStorage) SetMeta(fd storage.FileDesc) error {
	if err := s.disk.fails(fullDisk, unsynced, broken); err != nil {
		return err
	}
	return s.Storage.SetMeta(fd)
}

func (s failingStorage) GetMeta() (storage.FileDesc, error) {
	if err := s.disk.fails(broken); err != nil {
		return storage.FileDesc{}, err
	}
	return s.Storage.GetMeta()
}

func (s failingStorage) List(types storage.FileType) ([]storage.FileDesc, error) {
	if err := s.disk.fails(broken); err != nil {
		return nil, err
	}
	return s.Storage.List(types)
}

func (s failingStorage) Open(fd storage.FileDesc) (storage.Reader, error) {
	if err := s.disk.fails(broken); err != nil {
		return nil, err
	}
	r, err := s.Storage.Open(fd)
	return failingReader{r, s.disk}, err
}

type failingWriter struct {
	storage.Writer
	disk *failingDisk
}

func (w failingWriter) Write(p []byte) (int, error) {
	if !w.disk.bad() {
		return w.Writer.Write(p)
	}
	switch w.disk.how {
	case fullDisk:
		n, _ := w.Writer.Write(p[:len(p)/2])
		return n, syscall.ENOSPC
	case broken:
		return 0, syscall.EIO
	}
	return len(p), nil
}

func (w failingWriter) Sync() error {
	if err := w.disk.fails(unsynced, broken); err != nil {
		return err
	}
	return w.Writer.Sync()
}

type failingReader struct {
	storage.Reader
	disk *failingDisk
}

func (r failingReader) Read(p []byte) (int, error) {
	if err := r.disk.fails(broken); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (r failingReader) ReadAt(p []byte, at int64) (int, error) {
	if err := r.disk.fails(broken); err != nil {
		return 0, err
	}
	return r.Reader.ReadAt(p, at)
}

// A disk that is full, or fails, ends writing, and says so; what is read then, by who opens it again meanwhile, and after it works
// again is what was written up to some batch, or nothing.
func TestDisk_AFullOrFailingDiskNeverEndsInWrongAnswers(t *testing.T) {
	h := history{batches: 400, keys: 200}
	for how, most := range troubles {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			seed := rand.Uint64()
			rng := rand.New(rand.NewPCG(seed, 0))
			told, rebuilt := 0, 0
			for range 40 {
				f := &failingDisk{how: how}
				after := rng.Int64N(most)
				f.after.Store(after)
				refused, began := throughTrouble(t, h, f)
				if refused {
					told++
				}
				if began {
					rebuilt++
				}
				if t.Failed() {
					t.Fatalf("seed %d: %s after %d", seed, how, after)
				}
			}
			t.Logf("seed %d: of 40 disks %d refused, %d were begun anew", seed, told, rebuilt)
			if told+rebuilt == 0 {
				t.Errorf("seed %d: no disk failed; this test shows nothing", seed)
			}
		})
	}
}

// throughTrouble writes until the disk fails, reads, opens it again while it fails and when it works again, and writes the rest.
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
	for _, when := range []string{"in trouble", "again in trouble"} {
		d, err := open()
		if err == nil {
			rebuilt = rebuilt || when != "in trouble" && d.Rebuilt() != ""
			err = h.try(d, int(d.Next()/historyStep))
			check(d, when)
			refused = refused || err != nil || d.Damaged()
			refused = d.Close() != nil || refused
		}
		if err != nil && !errors.Is(err, f.how.cause()) && !errors.Is(err, ErrDamaged) && !isDamage(err) {
			t.Errorf("%s: got %v, want the cause in it", when, err)
		}
		refused = refused || err != nil
	}
	if f.met() && f.how != forgets && !refused && !rebuilt {
		t.Error("the disk failed, and nobody was told")
	}
	f.heal()
	d, err := open()
	if err != nil {
		t.Fatalf("when it works again: %v", err)
	}
	rebuilt = rebuilt || d.Rebuilt() != ""
	check(d, "when it works again")
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
