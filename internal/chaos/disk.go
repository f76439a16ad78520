package chaos

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

const (
	// slowness is what one access to a slow disk takes, one that is busy with something else: a read, a sync, a new file, or
	// slowBytes of what is written, for the system gathers writes.
	slowness  = 20 * time.Millisecond
	slowBytes = 64 << 10
)

// disk is the storage of the local state on a disk that is full or slow while the orders say so. Of a write to a full disk a
// part succeeds, as it does in truth.
type disk struct {
	storage.Storage
	orders *orders
}

func (d disk) trouble() error {
	if d.full() {
		return syscall.ENOSPC
	}
	if what, ok := d.orders.standing(atDisk); ok && what == orderSlow {
		time.Sleep(slowness)
	}
	return nil
}

func (d disk) full() bool {
	what, ok := d.orders.standing(atDisk)
	return ok && what == orderFull
}

func (d disk) SetMeta(fd storage.FileDesc) error {
	if err := d.trouble(); err != nil {
		return err
	}
	return d.Storage.SetMeta(fd)
}

func (d disk) Create(fd storage.FileDesc) (storage.Writer, error) {
	if err := d.trouble(); err != nil {
		return nil, err
	}
	w, err := d.Storage.Create(fd)
	if err != nil {
		return nil, err
	}
	return &diskWriter{Writer: w, disk: d}, nil
}

func (d disk) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := d.Storage.Open(fd)
	if err != nil {
		return nil, err
	}
	return diskReader{r, d}, nil
}

type diskWriter struct {
	storage.Writer
	disk     disk
	gathered int // bytes that the system holds; LevelDB writes a file from one goroutine at a time
}

func (w *diskWriter) Write(p []byte) (int, error) {
	if w.gathered += len(p); w.gathered < slowBytes && !w.disk.full() {
		return w.Writer.Write(p)
	}
	w.gathered = 0
	if err := w.disk.trouble(); err != nil {
		n, _ := w.Writer.Write(p[:len(p)/2])
		return n, err
	}
	return w.Writer.Write(p)
}

func (w *diskWriter) Sync() error {
	if err := w.disk.trouble(); err != nil {
		return err
	}
	return w.Writer.Sync()
}

// diskReader reads from a full disk as from any other.
type diskReader struct {
	storage.Reader
	disk disk
}

func (r diskReader) ReadAt(p []byte, at int64) (int, error) {
	_ = r.disk.trouble()
	return r.Reader.ReadAt(p, at)
}

// doDisk has a process end and begin on a disk that is full or slow; on a full one it may give up.
func (r *run) doDisk(ctx context.Context, f fault, s *slot) error {
	what := orderSlow
	if f.kind == kindDiskFull {
		what = orderFull
		s.mayEnd.Store(true)
		defer s.mayEnd.Store(false)
	}
	if err := s.order(what, atDisk); err != nil {
		return err
	}
	// What it cannot write at its end it reads from Kafka at the next start: an exit code that says so is no fault.
	if err := s.end(syscall.SIGTERM, stopWithin); err != nil && what == orderSlow {
		r.blame(err)
	}
	r.mark(markRestart)
	r.say("  %s starts again on the same disk", s.task.Instance)
	if err := s.start(r.endedByItself(s)); err != nil {
		return err
	}
	if err := pause(ctx, f.lasts); err != nil {
		return nil
	}
	if what == orderSlow {
		return s.order("", "")
	}
	r.say("  %s has room on its disk again, up %t", s.task.Instance, s.pid() != 0)
	if err := errors.Join(s.end(syscall.SIGKILL, stopWithin), s.order("", "")); err != nil {
		return err
	}
	r.mark(markRestart)
	return s.start(r.endedByItself(s))
}
