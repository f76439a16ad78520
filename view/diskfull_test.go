//go:build !race

// See eos/diskfull_test.go for why the race detector is left out.

package view

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/tidemark/tidemark/eos"
)

// failingDisk is full, or its fsync fails, while bad says so. A kernel whose fsync failed has dropped what was written.
type failingDisk struct {
	bad   atomic.Bool
	cause syscall.Errno
}

func (f *failingDisk) options() []eos.DiskOption {
	// So small a memtable goes to disk with every commit or two.
	return []eos.DiskOption{eos.DiskWriteBuffer(16 << 10), eos.DiskStorage(func(s storage.Storage) storage.Storage { return failingStorage{s, f} })}
}

type failingStorage struct {
	storage.Storage
	disk *failingDisk
}

func (s failingStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	if s.disk.bad.Load() && s.disk.cause == syscall.ENOSPC {
		return nil, s.disk.cause
	}
	w, err := s.Storage.Create(fd)
	return failingWriter{w, s.disk}, err
}

func (s failingStorage) SetMeta(fd storage.FileDesc) error {
	if s.disk.bad.Load() {
		return s.disk.cause
	}
	return s.Storage.SetMeta(fd)
}

type failingWriter struct {
	storage.Writer
	disk *failingDisk
}

func (w failingWriter) Write(p []byte) (int, error) {
	switch bad := w.disk.bad.Load(); {
	case bad && w.disk.cause == syscall.ENOSPC:
		return 0, w.disk.cause
	case bad:
		return len(p), nil
	}
	return w.Writer.Write(p)
}

func (w failingWriter) Sync() error {
	if w.disk.bad.Load() {
		return w.disk.cause
	}
	return w.Writer.Sync()
}

// onDisk runs a view whose files lie on a disk, without a server; ended gives its error.
func (w *table) onDisk(dir string, disk *failingDisk) (r *running, ended <-chan error) {
	w.t.Helper()
	v, err := New(Config{
		Kafka: w.kafka, Names: w.names, Input: w.schema.InputTopic, Schema: w.schema, Dir: dir, ProbeInterval: 5 * time.Millisecond, disk: disk.options(),
	})
	if err != nil {
		w.t.Fatalf("new view: %v", err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	return &running{View: v, t: w.t, stop: func() error {
		cancel()
		return <-done
	}}, done
}

// model is the table as each commit left it, by the commit's number.
type model map[uint64]map[string]change

// step commits new values of all IDs, one of which it deletes.
func (m model) step(w *table, ids int) {
	w.t.Helper()
	seq := w.seq[0] + 1
	state, changes := map[string]change{}, []change{}
	for i := range ids {
		c := change{fmt.Sprintf("id%04d", i), seq, int64(seq) * int64(i) % 200}
		if i == int(seq)%ids {
			c.version = 0
		} else {
			state[c.id] = c
		}
		changes = append(changes, c)
	}
	m[seq] = state
	w.commit(changes...)
}

// judge holds what the view lists, all of it and by flag, to the commit that the answer names. False: it refused.
func (m model) judge(r *running, when string) bool {
	r.t.Helper()
	for flag, bears := range map[string]func(change) bool{
		"": func(change) bool { return true }, "big": func(c change) bool { return c.sum >= 100 },
	} {
		page, more, asOf, err := r.List(r.t.Context(), Filter{Flag: flag, Limit: limitMax}, Read{})
		var unavailable *Unavailable
		if errors.As(err, &unavailable) || errors.Is(err, errStopped) {
			return false
		} else if err != nil || more {
			r.t.Fatalf("%s: list: %v, more %t", when, err, more)
		}
		got := map[string]change{}
		for _, e := range page {
			sum, _ := e.State.Totals[0].Num.Int64()
			got[e.ID] = change{e.ID, e.State.Version, sum}
		}
		want := maps.Clone(m[asOf[0].Commit])
		maps.DeleteFunc(want, func(_ string, c change) bool { return !bears(c) })
		if !maps.Equal(got, want) {
			r.t.Fatalf("%s: flag %q as of commit %d: got %d IDs, want %d, or others than they were", when, flag, asOf[0].Commit, len(got), len(want))
		}
	}
	return true
}

// TestView_AFullOrFailingDiskIsNeverAWrongAnswer: a view whose disk fails answers right or not at all, and ends with the cause; on
// a disk that works again it comes back.
func TestView_AFullOrFailingDiskIsNeverAWrongAnswer(t *testing.T) {
	const ids = 200
	for name, cause := range map[string]syscall.Errno{"no space left": syscall.ENOSPC, "fsync fails": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			w := mustTable(t, embedded(t), 1)
			w.begin()
			m, dir, disk := model{1: {}}, t.TempDir(), &failingDisk{cause: cause}
			r, ended := w.onDisk(dir, disk)
			for range 5 {
				m.step(w, ids)
			}
			r.covers(0, w.seq[0])
			if !m.judge(r, "before") {
				t.Fatal("refused before there was trouble")
			}
			disk.bad.Store(true)
			answers := 0
			for over := false; !over; {
				m.step(w, ids)
				r.await("the commit, or the end", func() bool {
					if m.judge(r, "in trouble") {
						answers++
					}
					select {
					case err := <-ended:
						over = true
						wantCause(t, err, cause)
					default:
					}
					return over || r.Status().Partitions[0].Commit == w.seq[0]
				})
			}
			if m.judge(r, "after its end") {
				t.Error("a view that has ended answers")
			}
			r, ended = w.onDisk(dir, disk)
			r.await("the end of a view that starts in trouble", func() bool {
				m.judge(r, "started in trouble")
				return errors.Is(r.Ready(), errStopped)
			})
			wantCause(t, <-ended, cause)
			disk.bad.Store(false)
			r, _ = w.onDisk(dir, disk)
			r.covers(0, w.seq[0])
			if !m.judge(r, "when it works again") {
				t.Error("refused when the disk works again")
			}
			t.Logf("%d right answers in trouble, %d commits; then %q", answers, len(m), r.Status().Partitions[0].Rebuilt)
			if err := r.stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
}

func wantCause(t *testing.T, err error, cause error) {
	t.Helper()
	if !errors.Is(err, cause) {
		t.Errorf("the view ended with %v, want %v in it", err, cause)
	}
}
