package eos

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// eventually polls until f holds.
func eventually(t *testing.T, d time.Duration, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, d)
		}
	}
}

// openBatches counts the batches that Goka was given and never took.
func (u *Unit) openBatches() int {
	u.batches.mu.Lock()
	defer u.batches.mu.Unlock()
	return len(u.batches.open)
}

func (u *Unit) currentSession() *session {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.session
}

// A commit is under way when the process is told to stop. Were it cut off, the last commit of the
// session would build on records of which nobody knows whether they were committed.
func TestSession_StoppedInTheMiddleOfACommitLosesNothing(t *testing.T) {
	for _, step := range []string{"before Produce", "before TxnOffsetCommit", "before EndTxn"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, startFake(t), 2)
			dir := t.TempDir()
			w.produce(3000, 3000) // every key once: no later commit repeats what one left out
			cfg := w.config("a", dir)
			cfg.BatchRecordsMax, cfg.CatchUpLag = 20, 1<<40
			var seen atomic.Int64
			reached, stopped := make(chan struct{}), make(chan struct{})
			cfg.Trace = func(at string) {
				if at == step && seen.Add(1) == 2 {
					close(reached)
					<-stopped
				}
			}
			u, stop := w.run(cfg)
			<-reached
			s := u.currentSession()
			done := make(chan error, 1)
			go func() { done <- stop() }()
			<-s.ctx.Done()
			close(stopped)
			if err := <-done; err != nil {
				t.Fatalf("stop: %v", err)
			}
			if err := s.failure(); err != nil {
				t.Errorf("the commit under way failed: %v", err)
			}
			u, stop = w.run(w.config("a", dir))
			w.caughtUp(u)
			if err := stop(); err != nil {
				t.Fatalf("stop: %v", err)
			}
			w.check()
		})
	}
}

// A handler that fails after it has changed values and queued outputs leaves a partition that must not
// be committed, even when its session's context ended before for another reason.
func TestSession_AHandlerThatFailsWhileTheSessionEndsIsNotCommitted(t *testing.T) {
	w := newWorld(t, startFake(t), 1)
	dir := t.TempDir()
	w.produce(100, 10)
	cfg := w.config("a", dir)
	good := sumHandler(w.names)(0)
	reached, ended := make(chan struct{}), make(chan struct{})
	cfg.NewHandler = func(int32) Handler {
		n := 0
		return func(work *Work, msg *sarama.ConsumerMessage) error {
			if err := good(work, msg); err != nil {
				return err
			}
			if n++; n == 50 {
				close(reached)
				<-ended
				return errors.New("half-way")
			}
			return nil
		}
	}
	u, stop := w.run(cfg)
	<-reached
	s := u.currentSession()
	done := make(chan error, 1)
	go func() { done <- stop() }()
	<-s.ctx.Done()
	close(ended)
	if err := <-done; err != nil {
		t.Fatalf("stop: %v", err)
	}
	u, stop = w.run(w.config("a", dir))
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()
}

// What Goka was handed and never took must not be kept for ever, nor reach the next session.
func TestSession_ItsBatchesEndWithIt(t *testing.T) {
	u, err := New(newWorld(t, startFake(t), 1).config("a", t.TempDir()))
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	defer func() { _ = u.Close() }()
	ended, next := &session{unit: u, cancel: func(error) {}, stopCommits: func() {}}, &session{unit: u}
	tickets := map[*session][]byte{ended: u.batches.put(&batch{session: ended}), next: u.batches.put(&batch{session: next})}
	ended.abandon(errSessionOver)
	for s, want := range map[*session]bool{ended: false, next: true} {
		if _, ok := u.batches.take(tickets[s]); ok != want {
			t.Errorf("the batch of the session that ended: %t; it is still there: %t, want %t", s == ended, ok, want)
		}
	}
}

func TestUnit_ARecordThatTheHandlerNeverTakesStopsIt(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("not this one") },
		"panic": func() error { panic("not this one") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, startFake(t), 2)
			w.produce(50, 10)
			cfg := w.config("a", t.TempDir())
			var calls atomic.Int64
			cfg.NewHandler = func(p int32) Handler {
				good := sumHandler(w.names)(p)
				return func(work *Work, msg *sarama.ConsumerMessage) error {
					if string(msg.Key) == "k7" {
						calls.Add(1)
						return fail()
					}
					return good(work, msg)
				}
			}
			u, stop := w.run(cfg)
			eventually(t, 30*time.Second, "stop for good", func() bool { return u.Err() != nil })
			var he *HandlerError
			if err := u.Err(); !errors.As(err, &he) || !strings.Contains(err.Error(), "not this one") {
				t.Errorf("error = %v, want the handler's with its place", err)
			}
			if n := calls.Load(); n != failuresMax {
				t.Errorf("the record was tried %d times, want %d", n, failuresMax)
			}
			if n := u.openBatches(); n != 0 {
				t.Errorf("%d batches are left of ended sessions, want 0", n)
			}
			_ = stop()
		})
	}
}
