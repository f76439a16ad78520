package eos

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// outlasts is a session timeout that no test waits for.
const outlasts = 4 * time.Minute

func (w *world) members(u *Unit, instance string) []string {
	w.t.Helper()
	ids, err := u.admin.members(w.t.Context(), w.names.Group(), instance)
	if err != nil {
		w.t.Fatalf("members of the group: %v", err)
	}
	return ids
}

// A process is killed while others keep its place for minutes. In its own directory it goes on at once. The control has lost the
// directory, so that to all that it knows the first one lives.
func TestSlot_AKilledInstanceComesBackBeforeItsSessionTimesOut(t *testing.T) {
	t.Setenv(crashSession, outlasts.String())
	onBoth(t, func(t *testing.T, brokers []string) {
		w, dir := newWorld(t, brokers, 2), t.TempDir()
		w.produce(500, 20)
		w.feedUntil(func() { w.crashChild("a", dir, "before EndTxn", 3) })
		w.produce(100, 20)

		lost := w.config("a", t.TempDir())
		shortWaits(&lost)
		c, stop := w.run(lost)
		eventually(t, time.Minute, "the one without the directory gives up", func() bool { return c.Err() != nil })
		if err := stop(); !errors.Is(err, ErrInstanceTaken) {
			t.Errorf("without the directory: %v, want %v", err, ErrInstanceTaken)
		}

		u, stop := w.run(w.config("a", dir))
		w.caughtUp(u)
		if ids := w.members(u, "a"); len(ids) != 1 || ids[0] != u.slot.last.Member {
			t.Errorf("the group has the members %q, want %q alone", ids, u.slot.last.Member)
		}
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		w.check()
	})
}

// With others in the group, its dead member is dropped too, and the others are not held up until its session times out.
func TestSlot_AKilledInstanceComesBackAmongOthers(t *testing.T) {
	t.Setenv(crashSession, outlasts.String())
	w, dir := newWorld(t, kafkatest.Shared(t), 4), t.TempDir()
	w.produce(500, 20)
	other, stopOther := w.run(w.config("b", t.TempDir()))
	w.caughtUp(other)
	w.feedUntil(func() { w.crashChild("a", dir, "before EndTxn", 3) })
	w.produce(100, 20)
	u, stop := w.run(w.config("a", dir))
	w.caughtUp(u)
	w.caughtUp(other)
	w.check()
	for _, stop := range []func() error{stop, stopOther} {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

// Kafka has the first member of an empty group wait, so the last one stays in it. Whether the group was empty meanwhile shows in its
// generation, which counts that too.
func TestSlot_TheLastMemberKeepsItsPlaceOverARestart(t *testing.T) {
	kafka := kafkatest.MustCluster(t, kafkatest.Options{Brokers: 1, Properties: map[string]string{"group.initial.rebalance.delay.ms": "1000"}})
	w, dir := newWorld(t, kafka.Addrs(), 2), t.TempDir()
	asks, err := newAdmin(w.kafka, "asks")
	if err != nil {
		t.Fatal(err)
	}
	defer asks.close()
	life := func(change func(*Config)) (m member, left []string) {
		t.Helper()
		w.produce(100, 20)
		cfg := w.config("a", dir)
		kafka := *cfg.Kafka
		kafka.RebalanceTimeout = outlasts // nor is the dead one passed over when the others have joined again
		cfg.Kafka = &kafka
		change(&cfg)
		u, stop := w.run(cfg)
		w.caughtUp(u)
		u.mu.Lock()
		m = u.session.member
		u.mu.Unlock()
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		if left, err = asks.members(t.Context(), w.names.Group(), "a"); err != nil {
			t.Fatal(err)
		}
		return m, left
	}
	plain := func(*Config) {}
	first, left := life(plain)
	if !slices.Equal(left, []string{first.id}) {
		t.Errorf("after its stop the group has %q, want %q", left, first.id)
	}
	second, _ := life(plain)
	if second.generation != first.generation+1 {
		t.Errorf("the second life is of generation %d after %d: the group was empty meanwhile", second.generation, first.generation)
	}
	// The control: one that ends for good leaves, and the group is empty before the next.
	third, left := life(func(c *Config) { c.Finite = true })
	if len(left) > 0 {
		t.Errorf("one that does not come back stays: %q", left)
	}
	if fourth, _ := life(plain); fourth.generation != third.generation+2 {
		t.Errorf("the fourth life is of generation %d after %d, want an empty one between", fourth.generation, third.generation)
	}
	w.check()
	testOtherRules(t, w, dir)
	testLeavesToOthers(t, kafka.Addrs())
}

// testOtherRules: the place that was kept keeps nobody out, so the refusal is the one that says what is wrong.
func testOtherRules(t *testing.T, w *world, dir string) {
	t.Helper()
	cfg := w.config("a", dir)
	cfg.Digest = "d2"
	u, stop := w.run(cfg)
	eventually(t, time.Minute, "stop", func() bool { return u.Err() != nil })
	var stopped *FailStop
	if err := stop(); !errors.As(err, &stopped) || errors.Is(err, sarama.ErrInconsistentGroupProtocol) {
		t.Errorf("stopped for %v, want a fail-stop that does not speak of members", err)
	}
}

// Where others are in the group, and where an empty group costs nothing, a stop leaves it.
// The last one has no reason to stay here: these brokers have no such delay.
func TestSlot_AStopLeavesTheGroupToOthers(t *testing.T) {
	w, last := testLeavesToOthers(t, kafkatest.Shared(t))
	if len(last) > 0 {
		t.Errorf("the group still has %q", last)
	}
	w.check()
}

// testLeavesToOthers stops first one of two, then the other, and answers who is in the group then.
func testLeavesToOthers(t *testing.T, brokers []string) (w *world, last []string) {
	t.Helper()
	w = newWorld(t, brokers, 2)
	w.produce(100, 20)
	a, stopA := w.run(w.config("a", t.TempDir()))
	w.caughtUp(a)
	b, stopB := w.run(w.config("b", t.TempDir()))
	eventually(t, time.Minute, "both are in the group", func() bool { return len(w.members(a, "b")) == 1 })
	if err := stopA(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if ids := w.members(b, "a"); len(ids) > 0 {
		t.Errorf("the group still has %q", ids)
	}
	w.caughtUp(b)
	asks, err := newAdmin(w.kafka, "asks")
	if err != nil {
		t.Fatal(err)
	}
	defer asks.close()
	if err := stopB(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if last, err = asks.members(t.Context(), w.names.Group(), "b"); err != nil {
		t.Fatal(err)
	}
	return w, last
}

// Two live processes of one name and directory: the lock tells that the first one lives, and it is not disturbed.
func TestSlot_ALiveOneOfTheSameDirectoryIsLeftAlone(t *testing.T) {
	w, dir := newWorld(t, startFake(t), 2), t.TempDir()
	w.produce(100, 20)
	a, stopA := w.run(w.config("a", dir))
	w.caughtUp(a)
	before := w.members(a, "a")
	cfg := w.config("a", dir)
	var log logText
	cfg.SessionTimeout, cfg.Logger = time.Second, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b, stopB := w.run(cfg)
	eventually(t, time.Minute, "the second gives up", func() bool { return b.Err() != nil })
	if err := stopB(); !errors.Is(err, ErrInstanceTaken) || !strings.Contains(log.String(), ErrLocked.Error()) {
		t.Errorf("the second one stopped for %v, want %v; its log, which is to name the lock:\n%s", err, ErrInstanceTaken, log.String())
	}
	if after := w.members(a, "a"); !slices.Equal(before, after) {
		t.Errorf("members before %q and after %q", before, after)
	}
	w.produce(100, 20)
	w.caughtUp(a)
	if err := stopA(); err != nil {
		t.Errorf("stop: %v", err)
	}
	w.check()
}

// A note is believed where it was written, and as long as it can be read.
func TestSlot_ItsNote(t *testing.T) {
	dir := t.TempDir()
	life := func() (string, *slot) {
		s := newSlot(dir, "a")
		err := s.take()
		t.Cleanup(func() { _ = s.close() })
		if err == nil && s.take() != nil {
			t.Error("the lock is taken twice")
		}
		return s.last.Member, s
	}
	last, s := life()
	if last != "" {
		t.Errorf("a new directory knows the member %q", last)
	}
	if err := newSlot(dir, "a").take(); !errors.Is(err, ErrLocked) {
		t.Errorf("a second holder: %v, want %v", err, ErrLocked)
	}
	if err := errors.Join(s.note("m1", "d"), s.note("m2", "d"), s.close()); err != nil {
		t.Fatal(err)
	}
	if last, s = life(); last != "m2" {
		t.Errorf("the next life knows %q, want m2", last)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	original := dir
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	if last, s = life(); last != "" {
		t.Errorf("a copy of the directory knows %q, which may be alive", last)
	}
	if err := errors.Join(s.note("m3", "d"), s.close()); err != nil {
		t.Fatal(err)
	}
	if last, s = life(); last != "m3" {
		t.Errorf("the next life in the copy knows %q, want m3", last)
	}
	elsewhere := s.last
	elsewhere.Here = "another kernel " + elsewhere.Here
	moved, err := json.Marshal(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.Kept = true
	kept, err := json.Marshal(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.close(), os.WriteFile(s.noteFile(), kept, 0o600)); err != nil {
		t.Fatal(err)
	}
	if last, s = life(); last != "m3" {
		t.Errorf("of one that ended and kept its place it knows %q, want m3, wherever that was", last)
	}
	for _, text := range []string{"", "{", string(moved)} {
		if err := errors.Join(s.close(), os.WriteFile(s.noteFile(), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if last, s = life(); last != "" {
			t.Errorf("with the note %q it knows %q", text, last)
		}
	}
}

// Who may not read the brokers' settings takes Kafka's default for granted.
func TestSlot_TheDelayOfEmptyGroups(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asks, err := newAdmin(&Kafka{Brokers: c.ListenAddrs()}, "asks")
	if err != nil {
		t.Fatal(err)
	}
	defer asks.close()
	if d, err := asks.initialDelay(t.Context(), 0); d != 0 || err != nil {
		t.Errorf("the embedded broker, which has none: %v, %v", d, err)
	}
	answer := func(code int16, value string) {
		c.ControlKey(int16(kmsg.DescribeConfigs), func(request kmsg.Request) (kmsg.Response, error, bool) {
			resp := request.ResponseKind().(*kmsg.DescribeConfigsResponse)
			r := kmsg.NewDescribeConfigsResponseResource()
			r.ResourceType, r.ResourceName, r.ErrorCode = kmsg.ConfigResourceTypeBroker, "0", code
			of := kmsg.NewDescribeConfigsResponseResourceConfig()
			of.Name, of.Value = "group.initial.rebalance.delay.ms", &value
			r.Configs = append(r.Configs, of)
			resp.Resources = append(resp.Resources, r)
			return resp, nil, true
		})
	}
	for _, want := range []struct {
		code  int16
		value string
		delay time.Duration
		fails bool
	}{
		{0, "250", 250 * time.Millisecond, false},
		{kerr.ClusterAuthorizationFailed.Code, "", 3 * time.Second, false},
		{kerr.InvalidRequest.Code, "", 0, true},
		{0, "soon", 0, true},
	} {
		answer(want.code, want.value)
		if d, err := asks.initialDelay(t.Context(), 0); d != want.delay || (err != nil) != want.fails {
			t.Errorf("code %d, value %q: %v, %v; want %v, an error: %t", want.code, want.value, d, err, want.delay, want.fails)
		}
	}
}
