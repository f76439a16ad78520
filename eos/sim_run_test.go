//go:build simruntime

package eos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// simFrom is the first seed, SIM_FROM or 1.
func simFrom() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("SIM_FROM"), 10, 64); err == nil {
		return n
	}
	return 1
}

// memoryDir is a file system in memory, where Linux has one.
const memoryDir = "/dev/shm"

// runSeed lives through one history in a process of its own: nothing that an earlier one left in this process's memory
// can then change its course.
func runSeed(t *testing.T, seed uint64, weak string) (simReport, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSimulation_OneSeed$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), simSeedVar+"="+strconv.FormatUint(seed, 10), simWeakVar+"="+weak, "GOMAXPROCS=1", "GOGC=off")
	if info, err := os.Stat(memoryDir); err == nil && info.IsDir() {
		cmd.Env = append(cmd.Env, "TMPDIR="+memoryDir) // thousands of state directories are made and thrown away
	}
	out, err := cmd.CombinedOutput()
	var report simReport
	for line := range bytes.Lines(out) {
		if text, ok := bytes.CutPrefix(line, []byte(simReportPrefix)); ok {
			if err := json.Unmarshal(text, &report); err != nil {
				t.Errorf("seed %d: report %q: %v", seed, text, err)
			}
			return report, true
		}
	}
	t.Errorf("seed %d ended without a report: %v\n%.4000s", seed, err, out)
	return report, false
}

// runSeeds lives through histories from simFrom on, one on each processor at a time, until enough says so.
func runSeeds(t *testing.T, weak string, enough func(simReport) bool) {
	t.Helper()
	var seeds atomic.Uint64
	seeds.Store(simFrom() - 1)
	var mu sync.Mutex // guards over, and orders calls of enough
	over := false
	var running sync.WaitGroup
	for range runtime.NumCPU() {
		running.Go(func() {
			for {
				mu.Lock()
				stop := over || t.Failed()
				mu.Unlock()
				if stop {
					return
				}
				report, ok := runSeed(t, seeds.Add(1), weak)
				mu.Lock()
				over = over || !ok || enough(report)
				mu.Unlock()
			}
		})
	}
	running.Wait()
}

// simSum adds histories up.
type simSum struct {
	simReport
	Histories int
	Began     time.Time
}

func (s *simSum) add(r simReport) {
	s.Histories++
	s.Crashed += r.Crashed
	s.Freezes += r.Freezes
	s.Stops += r.Stops
	s.Brokers += r.Brokers
	s.Events += r.Events
	s.Virtual += r.Virtual
	if s.Crashes == nil {
		s.Crashes = map[string]int{}
	}
	for step, n := range r.Crashes {
		s.Crashes[step] += n
	}
}

func (s *simSum) String() string {
	took := time.Since(s.Began)
	var b strings.Builder
	fmt.Fprintf(&b, "%d histories, %d crashes, %d freezes, %d clean stops, %d faults of brokers, %d events, %v of simulated time in %v: %.1f histories/s, %.0f crashes/s\n",
		s.Histories, s.Crashed, s.Freezes, s.Stops, s.Brokers, s.Events, time.Duration(s.Virtual*1e9).Round(time.Second), took.Round(100*time.Millisecond),
		float64(s.Histories)/took.Seconds(), float64(s.Crashed)/took.Seconds())
	for _, step := range slices.Sorted(maps.Keys(s.Crashes)) {
		fmt.Fprintf(&b, "  %6d crashes: %s\n", s.Crashes[step], step)
	}
	return b.String()
}

// Crashes, freezes, lost requests and replies, late markers, brokers that go and roles that move: every event is counted
// once, on every seed. SIM_TOTAL says how many crashes there are to be, SIM_FROM the first seed.
func TestSimulation_EveryEventIsCountedOnce(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("SIM_TOTAL"))
	if err != nil {
		total = 2000
	}
	sum := simSum{Began: time.Now()}
	runSeeds(t, "", func(r simReport) bool {
		sum.add(r)
		for _, found := range r.Finds {
			t.Errorf("seed %d: %s", r.Seed, found)
		}
		if len(r.Finds) > 0 {
			t.Errorf("replay: make sim-seed SEED=%d", r.Seed)
		}
		if sum.Histories%200 == 0 {
			t.Logf("so far: %v", &sum)
		}
		return sum.Crashed >= total
	})
	t.Log(&sum)
	if sum.Crashed < total && !t.Failed() {
		t.Errorf("%d crashes, want %d", sum.Crashed, total)
	}
	for _, step := range crashSteps {
		if sum.Crashes[step] == 0 && total >= 1000 {
			t.Errorf("no crash at %q", step)
		}
	}
}

// A seed that failed can be looked at again: it takes the same course, to the last request.
func TestSimulation_ASeedTakesTheSameCourseAgain(t *testing.T) {
	traces := map[string]uint64{}
	for seed := simFrom(); seed < simFrom()+6; seed++ {
		first, ok := runSeed(t, seed, "")
		again, okAgain := runSeed(t, seed, "")
		if !ok || !okAgain {
			return
		}
		if first.Trace != again.Trace || first.Events != again.Events || first.Virtual != again.Virtual {
			t.Errorf("seed %d: %s, %d events, %vs; then %s, %d events, %vs", seed, first.Trace, first.Events, first.Virtual, again.Trace, again.Events, again.Virtual)
		}
		if other, taken := traces[first.Trace]; taken {
			t.Errorf("seeds %d and %d take the same course", seed, other)
		}
		traces[first.Trace] = seed
	}
}

// The controls: with a protection switched off the same histories must show that something is wrong. Some protections
// stand for each other, and only without both do events get lost.
func TestSimulation_FindsWhatAProtectionIsFor(t *testing.T) {
	for _, weak := range []string{"noGeneration,noFence", "noStable", "flushFirst", "goOn"} {
		t.Run(weak, func(t *testing.T) {
			sum, found := simSum{Began: time.Now()}, simReport{}
			runSeeds(t, weak, func(r simReport) bool {
				sum.add(r)
				if len(r.Finds) > 0 && len(found.Finds) == 0 {
					found = r
				}
				return len(found.Finds) > 0 || sum.Histories >= 200
			})
			if len(found.Finds) == 0 {
				t.Fatalf("nothing is wrong: %v", &sum)
			}
			t.Logf("seed %d, of %d histories with %d crashes: %.200s", found.Seed, sum.Histories, sum.Crashed, found.Finds[0])
		})
	}
}

// A zombie is refused by its generation and by its epoch. Each alone is enough: the counterpart of the control above.
func TestSimulation_EitherOfTwoFencesIsEnough(t *testing.T) {
	for _, weak := range []string{"noGeneration", "noFence"} {
		t.Run(weak, func(t *testing.T) {
			sum := simSum{Began: time.Now()}
			runSeeds(t, weak, func(r simReport) bool {
				sum.add(r)
				for _, found := range r.Finds {
					t.Errorf("seed %d: %s", r.Seed, found)
				}
				return sum.Histories >= 20
			})
			t.Log(&sum)
		})
	}
}
