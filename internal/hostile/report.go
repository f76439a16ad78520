package hostile

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample is the view's memory at one time.
type sample struct {
	at                  time.Duration
	resident            float64 // MiB
	heap                float64 // MiB, with what the next collection frees
	live                float64 // MiB that the last collection left, about: with GOGC's default the next one comes at twice as much
	goroutines, streams float64
}

// memory is how it went.
type memory struct{ samples []sample }

// follow takes samples until the context ends.
func (m *memory) follow(ctx context.Context, s *subject, log io.Writer) {
	start, told := time.Now(), time.Time{}
	every(ctx, time.Second, func() {
		all, err := s.figures(ctx)
		if err != nil {
			return // that the view answers is the good client's to measure
		}
		now := sample{
			time.Since(start), s.resident(), all["go_memstats_heap_inuse_bytes"] / (1 << 20), all["go_memstats_next_gc_bytes"] / (2 << 20),
			all["go_goroutines"], all["tidemark_guard_streams_in_flight"],
		}
		m.samples = append(m.samples, now)
		if time.Since(told) >= 30*time.Second {
			told = time.Now()
			fmt.Fprintf(log, "%6.0fs  resident %6.1f MiB  heap %6.1f MiB, live %5.1f  goroutines %5.0f  streams %3.0f\n",
				now.at.Seconds(), now.resident, now.heap, now.live, now.goroutines, now.streams)
		}
	})
}

// resident is the memory of the view's process; 0 where the system does not tell.
func (s *subject) resident() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.view.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.ParseFloat(strings.Fields(rest + " 0")[0], 64)
	if err != nil {
		return 0
	}
	return kib / 1024
}

// growth compares the last third of the time with the one before: at the beginning everything grows.
func (m *memory) growth() (before, after float64) {
	third := len(m.samples) / 3
	if third == 0 {
		return 0, 0
	}
	mean := func(some []sample) (sum float64) {
		for _, s := range some {
			sum += s.resident
		}
		return sum / float64(len(some))
	}
	return mean(m.samples[third : 2*third]), mean(m.samples[2*third:])
}

// What memory may grow by from one third of the time to the next and still be flat.
const (
	growthShareMax = 0.15
	growthMiBMax   = 16
)

func (m *memory) flat() bool {
	before, after := m.growth()
	return after <= before*(1+growthShareMax) || after <= before+growthMiBMax
}

func (m *memory) peak() (most float64) {
	for _, s := range m.samples {
		most = max(most, s.resident)
	}
	return most
}

// Report is what came of it.
type Report struct {
	p99Max              time.Duration
	memoryMax           float64 // MiB; 0: memory must be flat
	calm, during, after *measurement
	memory              memory
	tallies             []*tally
	refused             map[string]float64
	faults              []string
}

func (r *Report) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// Faults are what did not hold; none is that the view stood.
func (r *Report) Faults() []string {
	all := slices.Clone(r.faults)
	fault := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for name, m := range map[string]*measurement{"before": r.calm, "under attack": r.during, "afterwards": r.after} {
		if m.failed > 0 {
			fault("%s, %d of %d reads of the well-behaved client failed: %s", name, m.failed, len(m.took), m.first)
		}
		if m.broken != "" {
			fault("%s, its watch ended: %s", name, m.broken)
		}
	}
	if r.during.heard == 0 {
		fault("under attack its watch heard nothing")
	}
	if p99 := r.during.quantile(0.99); p99 > r.p99Max {
		fault("under attack the well-behaved client's p99 is %v, want at most %v", p99, r.p99Max)
	}
	if r.memoryMax > 0 {
		if peak := r.memory.peak(); peak > r.memoryMax {
			fault("the view took %.0f MiB, want %.0f at most", peak, r.memoryMax)
		}
	} else if before, after := r.memory.growth(); !r.memory.flat() {
		fault("memory is not flat: %.0f MiB in the second third of the time, %.0f MiB in the last", before, after)
	}
	return append(all, r.idle()...)
}

// idle are the attacks of which none was turned away, and the limits that nobody met.
func (r *Report) idle() (all []string) {
	for _, t := range r.tallies {
		if t.tried.Load() == 0 || t.turned.Load() == 0 {
			all = append(all, fmt.Sprintf("%s: tried %d times, turned away %d times; want some of both", t.name, t.tried.Load(), t.turned.Load()))
		}
	}
	for _, reason := range []string{"bad_token", "too_many_failures", "client_rate", "url_too_long", "tls_handshake", "view_limit"} {
		if r.refused[reason] == 0 {
			all = append(all, "nothing was refused as "+reason)
		}
	}
	return all
}

// Print writes the report.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "\nthe well-behaved client\n  before        %v\n  under attack  %v\n  afterwards    %v\n", r.calm, r.during, r.after)
	before, after := r.memory.growth()
	fmt.Fprintf(w, "\nmemory of the view: %.1f MiB on average in the second third of the time, %.1f MiB in the last\n\nattacks                              tried  turned away\n", before, after)
	for _, t := range r.tallies {
		fmt.Fprintf(w, "  %-34s %7d  %7d\n", t.name, t.tried.Load(), t.turned.Load())
	}
	fmt.Fprintln(w, "\nrefused by the view, by reason")
	for _, reason := range slices.Sorted(maps.Keys(r.refused)) {
		fmt.Fprintf(w, "  %-22s %9.0f\n", reason, r.refused[reason])
	}
	for _, fault := range r.Faults() {
		fmt.Fprintln(w, "DOES NOT HOLD:", fault)
	}
}
