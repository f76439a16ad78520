package chaos

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

func TestMain(m *testing.M) {
	ServeChild()
	os.Exit(m.Run())
}

// short is a run of a minute or three.
func short(t *testing.T, subject string, change func(*Config)) *Report {
	t.Helper()
	cfg := Defaults()
	cfg.Name, cfg.Subject = kafkatest.TopicName(t), subject
	cfg.Events, cfg.IDs, cfg.Every = 10_000, 300, 2500*time.Millisecond
	change(&cfg)
	dir, err := os.MkdirTemp("", "tidemark-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, "progress")) // to be read meanwhile
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var said bytes.Buffer
	out := io.MultiWriter(&said, file)
	cfg.Dir, cfg.Seed, cfg.Out = dir, uint64(time.Now().UnixNano()), out
	report, err := Run(t.Context(), cfg)
	if report != nil {
		report.Print(out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs, journal and state are in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Logf("seed %d\n%s", cfg.Seed, &said)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return report
}

// Every kind of fault there is at least once, on three brokers of which one is down now and then.
func TestTidemark_IsExactThroughEveryKindOfFault(t *testing.T) {
	t.Parallel()
	all := 0
	r := short(t, Tidemark, func(c *Config) {
		c.Cluster = kafkatest.MustCluster(t, kafkatest.Options{Brokers: 3, Properties: map[string]string{"broker.session.timeout.ms": "4000"}})
		c.Brokers = c.Cluster.Addrs()
		c.Network, c.Views, c.Damage, c.ProcessorsMax = true, 2, true, 3
		c.Faults = len(kinds(c)) // plan takes each in turn
		all = c.Faults
	})
	if !r.OK() {
		t.Errorf("lost %d, doubled %d, %d of %d IDs differ, flag changes twice %d, wrong answers %v; want none: %v",
			r.Lost, r.Doubled, r.Differ, r.IDs, r.FlagsAgain, r.Wrong, r.Blames[0])
	}
	if n := sum(r.Faults); n != all || n < 20 || len(r.Faults) < 8 {
		t.Errorf("%d faults of %d kinds, want %d: %v", n, len(r.Faults), all, r.Faults)
	}
	for _, kind := range stepKinds {
		if r.Faults[kind] == 0 || r.Obeyed[kind] == 0 {
			t.Errorf("%s: %d of %d came by their step, want one at least", kind, r.Obeyed[kind], r.Faults[kind])
		}
	}
	if r.Events < 10_000 || r.IDs != 300 || r.Answers < 1000 {
		t.Errorf("%d events of %d IDs, %d answers of views; want 10000 of 300, and 1000", r.Events, r.IDs, r.Answers)
	}
}

// A connection that breaks before the reply is read leaves a commit in doubt, here about every fourth.
func TestTidemark_IsExactWhenRepliesGetLost(t *testing.T) {
	t.Parallel()
	r := short(t, Tidemark, func(c *Config) {
		c.Brokers, c.LoseReplies, c.RepliesLostMin = kafkatest.Shared(t), 0.1, 10
		c.Faults, c.Every, c.Only = 2, 6*time.Second, []string{kindKill}
	})
	if !r.OK() {
		t.Errorf("lost %d, doubled %d, %d IDs differ; want none: %v", r.Lost, r.Doubled, r.Differ, r.Blames[0])
	}
}

// The control: what the harness does to Tidemark breaks a processor that works at least once, and the oracle sees it.
func TestStockGoka_LosesOrDoublesEvents(t *testing.T) {
	// Goka takes its time to come back; a fault finds only those at work in the middle of something. The only processor is: of two,
	// one may stay out of the group, and have all the faults.
	t.Parallel()
	r := short(t, Stock, func(c *Config) { c.Brokers, c.Faults, c.Settle, c.Processors = kafkatest.Shared(t), 5, true, 1 })
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
	if len(kinds) != 12 {
		t.Errorf("kinds %v, want 12", slices.Sorted(maps.Keys(kinds)))
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

// readers is a run of token reads and watches, while processors and views get killed. No event comes under a wrong key: with
// these, reads of one partition wait for all others, and a machine that is busy would see few (make token-reads has them).
func readers(c *Config) {
	c.Views, c.Readers, c.TokenReads, c.Watchers = 2, 48, 500, 2
	c.Events, c.Every, c.Settle, c.Rekey = 1_000, 4*time.Second, true, 0
	c.Only = []string{kindKill, kindForget, kindViewKill, kindViewForget, kindViewFreeze}
}

// Not beside other runs, as its control: what is asked of the views is most of the work. Watchers go from view to view as these
// get killed.
func TestViews_ATokenReadNeverMissesAndAWatchTellsEachVersionOnce(t *testing.T) {
	r := short(t, Tidemark, func(c *Config) {
		readers(c)
		c.Brokers, c.Faults, c.TokenReads = kafkatest.Shared(t), 5, 1_000
	})
	if !r.OK() {
		t.Errorf("%d of %d token reads were older than their event, %d faults in what %d watchers were told, wrong answers %v; want none: %v",
			r.TokenReads.Misses, r.TokenReads.Reads, r.Watches.Faults, r.Watches.Watchers, r.Wrong, r.Blames[0])
	}
	if r.TokenReads.Reads < 1_000 || r.TokenReads.BareOlder == 0 || r.Watches.Watchers != 8 || r.Watches.Resumed[streamEnded] == 0 {
		t.Errorf("got %+v and %+v, want 1000 reads, some without a token that were older, 8 watchers, some of which lost their view", r.TokenReads, r.Watches)
	}
}

// The control: views that overlook tokens and lose events are found out, in both.
func TestViews_CarelessOnesAreFoundOut(t *testing.T) {
	r := short(t, Tidemark, func(c *Config) {
		readers(c)
		c.Brokers, c.Faults, c.Careless = kafkatest.Shared(t), 2, true
	})
	for _, over := range []string{overREST, overGRPC, overConnect} {
		if r.TokenReads.Missed[over] == 0 {
			t.Errorf("no misses over %s, want some over each: %v", over, r.TokenReads.Missed)
		}
	}
	if r.Watches.Faults == 0 {
		t.Error("no faults of watches, want some")
	}
	if r.Lost+r.Doubled > 0 || len(r.Wrong) > 0 {
		t.Errorf("lost %d, doubled %d, wrong answers %v, want none: the states are right", r.Lost, r.Doubled, r.Wrong)
	}
}
