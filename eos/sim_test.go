//go:build simruntime

package eos

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rcrowley/go-metrics"
	"github.com/tidemark/tidemark/internal/sim"
)

const (
	simSeedVar    = "SIM_SEED"
	simWeakVar    = "SIM_WEAK"
	simTraceFile  = "SIM_TRACE"
	simCrashesVar = "SIM_CRASHES" // of one history
)

// simReport is what one history answers.
type simReport struct {
	Seed    uint64
	Crashes map[string]int
	Crashed int
	Freezes int
	Stops   int
	Brokers int
	Events  int
	Virtual float64 // seconds
	Real    float64
	Trace   string
	Finds   []string
}

// One history, in a process of its own.
func TestSimulation_OneSeed(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv(simSeedVar), 10, 64)
	if err != nil {
		t.Skip("a child of the other tests; " + simSeedVar + " names a seed")
	}
	metrics.UseNilMetrics = true // a meter's goroutine would outlive the bubble
	runtime.MemProfileRate = 0   // its samples draw from the runtime's chance
	runtime.GOMAXPROCS(1)
	spareThreads()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(3 << 30) // a collection would not repeat
	start := time.Now()
	var report simReport
	synctest.Test(t, func(t *testing.T) {
		sim.SeedRuntime(seed)
		defer sim.SeedRuntime(0)
		began := time.Now()
		w := newSimWorld(t, seed, parseWeakness(os.Getenv(simWeakVar)))
		w.run()
		report = simReport{
			Seed: seed, Crashes: w.crashes, Crashed: w.crashed, Freezes: w.freezes, Stops: w.stops, Brokers: w.brokers,
			Events: w.events, Virtual: time.Since(began).Seconds(), Trace: fmt.Sprintf("%016x", w.hash), Finds: w.finds,
		}
	})
	report.Real = time.Since(start).Seconds()
	line, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s%s\n", simReportPrefix, line)
	for _, f := range report.Finds {
		t.Error(f)
	}
}

const simReportPrefix = "sim-report "

func parseWeakness(list string) (w weakness) {
	for name := range strings.SplitSeq(list, ",") {
		switch name {
		case "noGeneration":
			w.noGeneration = true
		case "noFence":
			w.noFence = true
		case "noStable":
			w.noStable = true
		case "flushFirst":
			w.flushFirst = true
		case "goOn":
			w.goOn = true
		}
	}
	return w
}

// spareThreads has the runtime make the threads that it may want later: making one takes memory, at a moment that the
// machine decides, and addresses are the order of maps keyed by pointers.
func spareThreads() {
	const n = 8
	var all, made sync.WaitGroup
	made.Add(n)
	for range n {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			made.Wait()
		})
	}
	all.Wait()
}
