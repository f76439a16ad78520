package watchers

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

func TestMain(m *testing.M) {
	ServeChild()
	os.Exit(m.Run())
}

// config is a run of a quarter of a minute, on a real Kafka.
func config(t *testing.T, out *bytes.Buffer) Config {
	t.Helper()
	cfg := Defaults()
	cfg.Brokers, cfg.Name, cfg.Dir = kafkatest.Shared(t), kafkatest.TopicName(t), t.TempDir()
	cfg.Watchers, cfg.IDs, cfg.For, cfg.Kills = 400, 200, 12*time.Second, 1
	cfg.Seed, cfg.Out = rand.Uint64(), out
	return cfg
}

// TestRun_EveryVersionOnceAndInOrderThroughAKill. The control is damage to what was written down, of every kind, which the
// judge must find.
func TestRun_EveryVersionOnceAndInOrderThroughAKill(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	cfg := config(t, &out)
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", cfg.Seed, err, &out)
	}
	r.Print(&out)
	t.Logf("seed %d\n%s", cfg.Seed, &out)
	if len(r.Faults) > 0 {
		t.Errorf("got %d faults, want none", len(r.Faults))
	}
	if r.Kills != 1 || r.Resumed < cfg.Watchers/10 || r.Told < 5*r.Events {
		t.Errorf("%d kills, %d resumes, %d versions told of %d events: the run shows little", r.Kills, r.Resumed, r.Told, r.Events)
	}
	rnd := rand.New(rand.NewPCG(cfg.Seed, 2))
	for kind, damage := range map[string]func(e []delivery, i int) []delivery{
		"missing":         func(e []delivery, i int) []delivery { return slices.Delete(e, i, i+1) },
		"told again":      func(e []delivery, i int) []delivery { return slices.Insert(e, i+1, e[i]) },
		"of another life": func(e []delivery, i int) []delivery { e[i].Version++; return e },
	} {
		w := *r.watches[0] // of everything
		w.Events = damage(slices.Clone(w.Events), rnd.IntN(len(w.Events)))
		if faults := r.truth.CheckWatch(&w); len(faults) == 0 {
			t.Errorf("control: a version is %s, and no fault was found", kind)
		}
	}
}

// TestStall_CountsOnlyRoundsInWhichSomebodyWasSlow is of the measurement, not of what it finds: that needs a quiet machine.
func TestStall_CountsOnlyRoundsInWhichSomebodyWasSlow(t *testing.T) {
	rounds := []Round{{P99: 10}, {Stalled: true, P99: 12, Slow: 1}, {Stalled: true, P99: 11, Slow: 1}, {P99: 10}, {P99: 20}, {Stalled: true, P99: 11, Slow: 3}}
	if got, err := Cost(rounds); err != nil || got < 0.099 || got > 0.101 {
		t.Errorf("got %v, %v, want 0.1: the median of 11, 11, 12 against that of 10, 10, 20", got, err)
	}
	rounds[1].Slow = 0
	if _, err := Cost(rounds); !errors.Is(err, ErrNobodyStalled) {
		t.Errorf("got %v, want that a round shows nothing", err)
	}
}
