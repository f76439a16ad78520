package eos

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Two processes of one name that start at once see no other until both are members. One of them gives up, and has not fenced the other.
func TestUnit_OfTwoOfOneNameOneGoesOn(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		oneGivesUp(t, brokers, func(cfg *Config) { cfg.weak.noSlot = true })
	})
	t.Run("one after the other", func(t *testing.T) {
		oneGivesUp(t, startFake(t), func(cfg *Config) { cfg.SessionTimeout = time.Second })
	})
}

func oneGivesUp(t *testing.T, brokers []string, with func(*Config)) {
	w := newWorld(t, brokers, 4)
	w.produce(200, 20)
	var logs [2]logText
	var units [2]*Unit
	var stops [2]func() error
	for i := range units {
		cfg := w.config("same", t.TempDir())
		cfg.Logger = slog.New(slog.NewTextHandler(&logs[i], nil))
		with(&cfg)
		units[i], stops[i] = w.run(cfg)
		if i == 0 {
			w.caughtUp(units[i])
		}
	}
	eventually(t, time.Minute, "one gives up", func() bool { return units[0].Err() != nil || units[1].Err() != nil })
	lost, winner := 1, 0
	if units[0].Err() != nil {
		lost, winner = 0, 1
	}
	if err := units[lost].Err(); !errors.Is(err, ErrInstanceTaken) {
		t.Errorf("gave up for %v, want %v", err, ErrInstanceTaken)
	}
	_ = stops[lost]()
	w.produce(100, 20)
	w.caughtUp(units[winner])
	if err := stops[winner](); err != nil {
		t.Errorf("the other stopped for %v", err)
	}
	if said := logs[winner].String(); strings.Contains(said, "PRODUCER") {
		t.Errorf("the other was fenced:\n%s", said)
	}
	w.check()
}

// A life that dies in its join, of which no note tells, can be in the next one's first generation. That one does not give up: it waits.
func TestUnit_ATwinThatIsDeadIsWaitedFor(t *testing.T) {
	w := newWorld(t, startFake(t), 4)
	w.produce(200, 20)
	b, _ := w.run(w.config("b", t.TempDir())) // it leads the group, which goes on
	w.caughtUp(b)
	die := w.joinOver("same", b)
	cfg := w.config("same", t.TempDir())
	var log logText
	cfg.SessionTimeout, cfg.weak.noSlot, cfg.Logger = 5*time.Second, true, slog.New(slog.NewTextHandler(&log, nil))
	a, stop := w.run(cfg)
	stepsBack := func() bool { return strings.Contains(log.String(), "leaving the group") || a.Err() != nil }
	for range 9 { // the broker draws the ids; with the lesser one it goes on
		eventually(t, time.Minute, "it steps back or goes on", func() bool { return stepsBack() || len(a.Status()) > 0 })
		if stepsBack() {
			break
		}
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		a, stop = w.run(cfg)
	}
	eventually(t, time.Minute, "it steps back", stepsBack)
	die()
	eventually(t, time.Minute, "it has partitions again", func() bool { return len(a.Status()) > 0 || a.Err() != nil })
	w.produce(100, 20)
	w.caughtUp(b)
	w.caughtUp(a)
	w.check()
	if err := a.onlyOne(t.Context(), "gone"); err == nil {
		t.Error("a session of one that is no member any more was opened")
	}
}

// joinOver joins u's group under an instance's name, with a member id that is less than most, again and again, so that it is in every
// generation, until it dies.
func (w *world) joinOver(instance string, u *Unit) (die func()) {
	w.t.Helper()
	cl := mustClient(w.t, w.kafka, kgo.ClientID(instance))
	group, err := u.admin.describeGroup(w.t.Context(), w.names.Group())
	if err != nil {
		w.t.Fatalf("describe the group: %v", err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	subscription := kmsg.NewConsumerMemberMetadata()
	subscription.Topics = []string{w.input, w.names.Loop()}
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = group.Protocol, subscription.AppendTo(nil)
	join := func(member string) *kmsg.JoinGroupResponse {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Group, req.MemberID, req.ProtocolType = w.names.Group(), member, group.ProtocolType
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 5000, 5000
		req.Protocols = append(req.Protocols, protocol)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil && ctx.Err() == nil {
			w.t.Errorf("join: %v", err)
		}
		return resp
	}
	member := join("").MemberID // MEMBER_ID_REQUIRED
	for !strings.HasPrefix(member, instance+"-0") {
		member = join("").MemberID
	}
	var joining sync.WaitGroup
	joining.Go(func() {
		for ctx.Err() == nil {
			join(member)
		}
	})
	die = func() { cancel(); joining.Wait() }
	w.t.Cleanup(die)
	return die
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
