package eos

import (
	"errors"
	"net"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// uncertain runs a unit whose second commit ends in doubt, and lets it go on or stop.
func uncertain(t *testing.T, w *world, answer bool, weak weakness) (u *Unit, stop func() error, c *intercept) {
	t.Helper()
	var armed atomic.Bool
	c = &intercept{key: endTxn, reply: answer, when: func([]byte) bool { return armed.Load() }, do: cutOff}
	w.produce(2000, 2000) // every key once: no later commit repeats what one left out
	cfg := w.config("a", t.TempDir())
	c.on(&cfg)
	cfg.weak = weak
	cfg.TransactionTimeout, cfg.BatchRecordsMax, cfg.CatchUpLag = 2*time.Second, 20, 1<<40
	cfg.lastCommits = time.Minute // the control needs a commit after the one in doubt
	var commits atomic.Int64
	cfg.Trace = func(step string) {
		switch step {
		case "before EndTxn":
			if commits.Add(1) == 2 {
				armed.Store(true)
			}
		case "cut", "recovered": // the next try
			armed.Store(false)
		}
	}
	u, stop = w.run(cfg)
	return u, stop, c
}

func TestProtect_ACommitInDoubtIsGivenUpAndReadBack(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for name, answer := range map[string]bool{"request lost": false, "answer lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, brokers, 2)
			u, stop, c := uncertain(t, w, answer, weakness{})
			w.caughtUp(u)
			if err := stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if c.done.Load() == 0 {
				t.Errorf("no EndTxn was cut off")
			}
			w.check()
		})
	}
}

// The EndTxn of a commit is held for as long as a later commit may take, and then lost: had a later one been committed meanwhile, its
// offsets would cover records that are in no state.
func TestProtect_NoCommitBeginsBeforeTheOneBeforeHasEnded(t *testing.T) {
	w := newWorld(t, kafkatest.Shared(t), 2)
	w.produce(2000, 2000) // every key once: no later commit repeats what one left out
	var (
		commits atomic.Int64
		first   sync.Once
		later   = make(chan struct{})
		lane    atomic.Pointer[string] // whose EndTxn is held and lost, every try of it; "": of the next that comes
	)
	i := &intercept{key: endTxn, when: func(request []byte) bool {
		is := string(regexp.MustCompile(`#\d`).Find(request))
		held := lane.Load()
		return held != nil && (*held == is || *held == "" && lane.CompareAndSwap(held, &is))
	}, do: func(conn net.Conn) error {
		select {
		case <-later:
		case <-time.After(2 * time.Second):
		}
		return cutOff(conn)
	}}
	cfg := w.config("a", t.TempDir())
	i.on(&cfg)
	cfg.BatchRecordsMax, cfg.CatchUpLag = 20, 1<<40
	cfg.Trace = func(step string) {
		switch step {
		case "before EndTxn":
			if commits.Add(1) == 2 {
				lane.Store(new(string))
			}
		case "after EndTxn":
			if lane.Load() != nil {
				first.Do(func() { close(later) })
			}
		case "recovered": // the next session
			lane.Store(nil)
		}
	}
	u, stop := w.run(cfg)
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if i.done.Load() == 0 {
		t.Error("no EndTxn was held")
	}
	w.check()
}

// Control: the session goes on with what it has in memory.
func TestProtect_GoingOnAfterACommitInDoubtLosesRecords(t *testing.T) {
	w := newWorld(t, kafkatest.Shared(t), 2)
	_, stop, c := uncertain(t, w, false, weakness{goOn: true})
	eventually(t, time.Minute, "cut off", func() bool { return c.done.Load() > 0 })
	_ = stop()
	u, stop := w.run(w.config("a", t.TempDir()))
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if len(w.faults()) == 0 {
		t.Errorf("nothing was lost; this test cannot show what giving up is for")
	}
}

// Control: LevelDB has the values of a transaction that was aborted.
func TestProtect_LocalStateWrittenBeforeTheCommitIsWrong(t *testing.T) {
	w := newWorld(t, kafkatest.Shared(t), 2)
	u, stop, _ := uncertain(t, w, false, weakness{flushFirst: true})
	eventually(t, time.Minute, "a fail-stop", func() bool { return u.Err() != nil })
	var stopped *FailStop
	if !errors.As(u.Err(), &stopped) {
		t.Errorf("stopped for %v, want a fail-stop: state and offsets do not agree", u.Err())
	}
	_ = stop()
}
