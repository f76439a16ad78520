package eos

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"
)

// ours are the goroutines that run code of a unit, or of what it opened.
func ours() []string {
	buf := make([]byte, 4<<20)
	var found []string
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		for _, of := range []string{"eos.(*group)", "eos.(*session)", "eos.(*batchClaim)", "eos.(*Unit)", "eos.(*producer)", "goka.(*", "sarama.(*", "goleveldb"} {
			if strings.Contains(g, of) {
				found = append(found, g)
				break
			}
		}
	}
	return found
}

// A unit that went through a rebalance, a failed session and a stop leaves nothing running.
func TestUnit_LeavesNoGoroutineBehind(t *testing.T) {
	w := newWorld(t, startFake(t), 4)
	eventually(t, time.Minute, "those of the tests before end", func() bool { return len(ours()) == 0 })
	w.produce(500, 20)
	a, stopA := w.run(w.config("a", t.TempDir()))
	w.caughtUp(a)
	_, stopB := w.run(w.config("b", t.TempDir()))
	var current *session
	eventually(t, time.Minute, "both own partitions", func() bool {
		current = a.currentSession() // there is none between two
		return current != nil && len(a.Status()) == 2
	})
	if len(ours()) == 0 {
		t.Errorf("control: two units run and no goroutine of theirs is found")
	}
	current.fail(errors.New("a failure"))
	w.produce(500, 20)
	w.caughtUp(a)
	for _, stop := range []func() error{stopA, stopB} {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	eventually(t, time.Minute, "all goroutines end", func() bool { return len(ours()) == 0 })
	w.check()
}
