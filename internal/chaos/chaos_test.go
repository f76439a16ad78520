package chaos

import (
	"bytes"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

func TestMain(m *testing.M) {
	ServeChild()
	os.Exit(m.Run())
}

// short is a run of under a minute: each kind of fault at least once.
func short(t *testing.T, subject string, change func(*Config)) *Report {
	t.Helper()
	t.Parallel()
	var out bytes.Buffer
	cfg := Defaults()
	cfg.Brokers, cfg.Name, cfg.Subject = kafkatest.Shared(t), kafkatest.TopicName(t), subject
	cfg.Faults, cfg.Events, cfg.IDs, cfg.Every = 10, 10_000, 300, 2500*time.Millisecond
	change(&cfg)
	cfg.Seed, cfg.Out = uint64(time.Now().UnixNano()), &out
	dir, err := os.MkdirTemp("", "tidemark-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir = dir
	report, err := Run(t.Context(), cfg)
	if report != nil {
		report.Print(&out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs, journal and state are in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Logf("seed %d\n%s", cfg.Seed, &out)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return report
}

func TestTidemark_IsExactThroughKillsFreezesAndRestarts(t *testing.T) {
	r := short(t, Tidemark, func(*Config) {})
	if !r.OK() {
		t.Errorf("lost %d, doubled %d, %d of %d IDs differ, flag changes twice %d; want none: %v", r.Lost, r.Doubled, r.Differ, r.IDs, r.FlagsAgain, r.Blames[0])
	}
	want := map[string]int{
		kindKill: 2, kindForget: 1, kindFreeze: 2, kindTerm: 1, kindFreezeIn: 2, kindKillIn: 1, kindFreezeTakeover: 1,
	}
	for kind, n := range want {
		if r.Faults[kind] < n {
			t.Errorf("%d faults of kind %q, want %d", r.Faults[kind], kind, n)
		}
	}
	if r.Events < 10_000 || r.IDs != 300 {
		t.Errorf("%d events of %d IDs, want 10000 of 300", r.Events, r.IDs)
	}
}

// The control: what the harness does to Tidemark breaks a processor that works at least once, and the oracle sees it.
func TestStockGoka_LosesOrDoublesEvents(t *testing.T) {
	// Goka takes its time to come back; a fault finds only those at work in the middle of something.
	r := short(t, Stock, func(c *Config) { c.Faults, c.Settle = 5, true })
	if r.Lost+r.Doubled == 0 || r.Differ == 0 {
		t.Errorf("lost %d, doubled %d, %d IDs differ, with faults %v; want some", r.Lost, r.Doubled, r.Differ, r.Faults)
	}
}

func TestPlan_FollowsTheSeedAndHasEveryKind(t *testing.T) {
	cfg := Defaults()
	cfg.Faults, cfg.Seed = 40, 7
	first, again := plan(&cfg), plan(&cfg)
	kinds := map[string]int{}
	for i := range first {
		if first[i] != again[i] {
			t.Errorf("fault %d is %v and then %v", i, first[i], again[i])
		}
		kinds[first[i].kind]++
		if first[i].kind == kindFreeze && first[i].lasts <= cfg.Session {
			t.Errorf("freeze of %v, within the session timeout of %v", first[i].lasts, cfg.Session)
		}
	}
	if len(kinds) != 7 {
		t.Errorf("kinds %v, want 7", maps.Keys(kinds))
	}
	cfg.Seed = 8
	other := plan(&cfg)
	same := 0
	for i := range first {
		if first[i] == other[i] {
			same++
		}
	}
	if same > 0 {
		t.Errorf("%d faults are the same with another seed", same)
	}
}
