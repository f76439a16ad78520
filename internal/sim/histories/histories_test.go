package histories

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/tidemark/tidemark/eos" // so that go test does not take the result of another version from its cache
	_ "github.com/tidemark/tidemark/internal/sim"
)

// built is made once, by the first test that asks.
var built = sync.OnceValues(func() (*Runner, error) {
	dir, err := os.MkdirTemp("", "tidemark-sim-")
	if err != nil {
		return nil, err
	}
	builtIn = dir
	if err := readSources(); err != nil {
		return nil, err
	}
	return Build(context.Background(), dir)
})

var builtIn string

// readSources lets go test know what the histories are built of besides the packages above: its cache heeds what a test reads.
func readSources() error {
	files, err := filepath.Glob("../../../eos/sim_*_test.go")
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no sim_*_test.go in eos: %v", err)
	}
	for _, file := range files {
		if _, err := os.ReadFile(file); err != nil {
			return err
		}
	}
	return nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(builtIn)
	os.Exit(code)
}

func mustBuild(t *testing.T) *Runner {
	t.Helper()
	r, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sumOf lives through histories from seed 1 on until enough says so, or one finds something.
func sumOf(t *testing.T, without string, enough func(*Sum) bool) *Sum {
	t.Helper()
	r, began, sum := mustBuild(t), time.Now(), &Sum{}
	err := r.From(t.Context(), History{Seed: 1, Without: without}, func(report Report) bool {
		sum.Add(report)
		return len(sum.Finds) == 0 && !enough(sum)
	})
	if err != nil {
		t.Fatal(err)
	}
	sum.Took = time.Since(began)
	t.Log(sum)
	return sum
}

// Crashes, freezes, lost requests and replies, late markers, brokers that go and roles that move: every event is counted once.
func TestSimulation_EveryEventIsCountedOnce(t *testing.T) {
	most := 2000
	if testing.Short() {
		most = 200
	}
	sum := sumOf(t, "", func(s *Sum) bool { return s.Crashed >= most })
	for _, found := range sum.Finds {
		t.Error(found)
	}
	if len(sum.Finds) > 0 {
		t.Errorf("again, with its trace: make sim ARGS=\"-seed %d\"", sum.Wrong)
		return
	}
	if sum.Crashed < most {
		t.Errorf("%d crashes, want %d", sum.Crashed, most)
	}
	for step, n := range sum.Crashes {
		if n == 0 && !testing.Short() {
			t.Errorf("no crash at %q", step)
		}
	}
}

// A seed that failed can be looked at again: it takes the same course, to the last request, also while the machine is busy with
// others, be they the same history.
func TestSimulation_ASeedTakesTheSameCourseAgain(t *testing.T) {
	r := *mustBuild(t)
	r.Parallel = 1 // in each of two at once
	const seeds = 6
	var mu sync.Mutex
	courses, traces := map[uint64]string{}, map[string]uint64{}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			err := r.From(t.Context(), History{Seed: 1}, func(report Report) bool {
				mu.Lock()
				defer mu.Unlock()
				course := fmt.Sprintf("%s, %d events, %v s", report.Trace, report.Events, report.Virtual)
				if first, again := courses[report.Seed]; again && first != course {
					t.Errorf("seed %d: %s; then %s", report.Seed, first, course)
				}
				courses[report.Seed] = course
				if other, taken := traces[report.Trace]; taken && other != report.Seed {
					t.Errorf("seeds %d and %d take the same course", other, report.Seed)
				}
				traces[report.Trace] = report.Seed
				return report.Seed < seeds
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if len(courses) < seeds {
		t.Errorf("%d seeds, want %d", len(courses), seeds)
	}
}

// The trace itself is what its hash says, and not empty.
func TestSimulation_ATraceTellsEachStepAndRequest(t *testing.T) {
	file := t.TempDir() + "/trace"
	report, err := mustBuild(t).Run(t.Context(), History{Seed: 3, Crashes: 5, Trace: file})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"EndTxn", "JoinGroup", "TxnOffsetCommit", ": before Produce", " crashes: "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the trace of seed %d, %d bytes, has no %q", report.Seed, len(text), want)
		}
	}
}

// The controls: with a protection switched off the same histories must show that something is wrong. Some protections
// stand for each other, and only without both do events get lost.
func TestSimulation_FindsWhatAProtectionIsFor(t *testing.T) {
	for _, without := range []string{"noGeneration,noFence", "noStable", "flushFirst", "goOn"} {
		t.Run(without, func(t *testing.T) {
			sum := sumOf(t, without, func(s *Sum) bool { return s.Histories >= 200 })
			if len(sum.Finds) == 0 {
				t.Fatalf("nothing is wrong in %d histories", sum.Histories)
			}
			t.Logf("%.200s", sum.Finds[0])
		})
	}
}

// A zombie is refused by its generation and by its epoch. Each alone is enough: the counterpart of the control above.
func TestSimulation_EitherOfTwoFencesIsEnough(t *testing.T) {
	for _, without := range []string{"noGeneration", "noFence"} {
		t.Run(without, func(t *testing.T) {
			for _, found := range sumOf(t, without, func(s *Sum) bool { return s.Histories >= 6 && s.Freezes >= 10 }).Finds {
				t.Error(found)
			}
		})
	}
}
