//go:build simruntime

package eos

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rcrowley/go-metrics"
	"github.com/tidemark/tidemark/internal/sim"
	"github.com/tidemark/tidemark/internal/sim/histories"
)

// One history, in a process of its own: package histories runs this test.
func TestSimulation_History(t *testing.T) {
	asked, err := histories.Asked()
	if err != nil {
		t.Skip("package internal/sim/histories runs this: ", err)
	}
	metrics.UseNilMetrics = true // a meter's goroutine would outlive the bubble
	runtime.MemProfileRate = 0   // its samples draw from the runtime's chance
	runtime.GOMAXPROCS(1)
	spareThreads()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(3 << 30) // a collection would not repeat
	var report histories.Report
	synctest.Test(t, func(t *testing.T) {
		sim.SeedRuntime(asked.Seed)
		defer sim.SeedRuntime(0)
		began := time.Now()
		w := newSimWorld(t, asked)
		w.run()
		report = histories.Report{
			Seed: asked.Seed, Crashes: w.crashes, Crashed: w.crashed, Freezes: w.freezes, Stops: w.stops, Brokers: w.brokers,
			Events: w.events, Virtual: time.Since(began).Seconds(), Trace: fmt.Sprintf("%016x", w.hash), Finds: w.finds,
		}
	})
	if err := report.Print(os.Stdout); err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Finds {
		t.Error(f)
	}
}

// simWeakness switches the named protections off.
func simWeakness(t *testing.T, list string) (w weakness) {
	switches := map[string]*bool{
		"": new(bool), "noGeneration": &w.noGeneration, "noFence": &w.noFence, "noStable": &w.noStable, "flushFirst": &w.flushFirst, "goOn": &w.goOn,
	}
	for name := range strings.SplitSeq(list, ",") {
		if switches[name] == nil {
			t.Fatalf("no protection is called %q", name)
		}
		*switches[name] = true
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
