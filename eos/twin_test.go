package eos

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Two processes of one name that start at once see no other, and fence each other. One of them gives up.
func TestUnit_OfTwoOfOneNameOneGoesOn(t *testing.T) {
	for _, atOnce := range []bool{true, false} {
		w := newWorld(t, startFake(t), 4)
		w.produce(200, 20)
		cfg := w.config("same", t.TempDir())
		cfg.SessionTimeout = time.Second
		a, stopA := w.run(cfg)
		w.caughtUp(a)
		cfg = w.config("same", t.TempDir())
		cfg.SessionTimeout, cfg.weak.noSlot = time.Second, atOnce
		b, stopB := w.run(cfg)
		eventually(t, time.Minute, "one gives up", func() bool {
			w.produce(5, 20) // a commit meets the other's fence
			return a.Err() != nil || b.Err() != nil
		})
		lost, winner, stop := b, a, stopA
		if a.Err() != nil {
			lost, winner, stop = a, b, stopB
		}
		if !errors.Is(lost.Err(), ErrInstanceTaken) {
			t.Errorf("at once %t: gave up for %v, want %v", atOnce, lost.Err(), ErrInstanceTaken)
		}
		w.produce(100, 20)
		w.caughtUp(winner)
		if err := stop(); err != nil {
			t.Errorf("at once %t: the other stopped for %v", atOnce, err)
		}
		w.check()
	}
}

func TestUnit_AnInputMadeAgainWhileItRunsStopsIt(t *testing.T) {
	base := newWorld(t, startFake(t), 2)
	w := &tampered{world: base, adm: kadm.NewClient(base.cl)}
	w.produce(100, 20)
	cfg := w.config("a", t.TempDir())
	cfg.topicsEvery = 50 * time.Millisecond
	u, stop := w.run(cfg)
	w.caughtUp(u)
	records := w.readAll(w.input)
	w.recreate(w.input, append(records, records...)...)
	eventually(t, time.Minute, "stop", func() bool { return u.Err() != nil })
	var stopped *FailStop
	if err := u.Err(); !errors.As(err, &stopped) || !strings.Contains(err.Error(), "-in was deleted and created again") {
		t.Errorf("stopped for %v, want a fail-stop that names the input", err)
	}
	_ = stop()
}

// One that gets no partition would find no position record to compare its rules with, and would sit in the group until it does.
func TestUnit_MembersOfOtherRulesNeverShareAGroup(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		w := newWorld(t, brokers, 1)
		a, stopA := w.run(w.config("a", t.TempDir())) // partitions go to members in order of their names
		w.produce(100, 10)
		w.caughtUp(a)
		other := w.config("b", t.TempDir())
		other.Digest = "d2"
		b, _ := w.run(other)
		eventually(t, time.Minute, "the one of other rules stops", func() bool { return b.Err() != nil })
		var stopped *FailStop
		if err := b.Err(); !errors.As(err, &stopped) || !strings.Contains(stopped.Fault, "other rules") || !strings.Contains(stopped.Mend, "new name") {
			t.Errorf("stopped for %v, want a fail-stop that names the rules", err)
		}
		w.produce(100, 10)
		w.caughtUp(a)
		if err := stopA(); err != nil {
			t.Errorf("the first one stopped for %v", err)
		}
		w.check()
	})
}

func TestUnit_ATopicDeletedWhileItRunsStopsIt(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		for _, topic := range []string{"-in", "-table", "-loop", "-flags"} {
			t.Run(topic, func(t *testing.T) {
				t.Parallel() // most of it is waiting
				w := newWorld(t, brokers, 2)
				w.produce(100, 20)
				cfg := w.config("a", t.TempDir())
				cfg.topicsEvery = 50 * time.Millisecond
				u, stop := w.run(cfg)
				w.caughtUp(u)
				if _, err := kadm.NewClient(w.cl).DeleteTopic(t.Context(), w.names.Job+topic); err != nil {
					t.Fatalf("delete: %v", err)
				}
				if topic != "-in" {
					w.produce(100, 20)
				}
				eventually(t, time.Minute, "stop", func() bool { return u.Err() != nil })
				var stopped *FailStop
				if err := u.Err(); !errors.As(err, &stopped) || !strings.Contains(stopped.Fault, topic) {
					t.Errorf("stopped for %v, want a fail-stop that names the topic", err)
				}
				_ = stop()
			})
		}
	})
}
