package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// blamesShown is how many blames Print writes; the file of the run has all.
const blamesShown = 10

// Report is what a run found.
type Report struct {
	Subject       string
	Seed          uint64
	Took          time.Duration
	Faults        map[string]int // by kind
	Events        int64          // acknowledged
	IDs           int
	Lost, Doubled uint64
	Differ        int // IDs
	FlagChanges   int
	FlagsAgain    int // changes that were emitted twice
	OwnEnds       int // processes that ended without having been told to
	Rebalances    int
	Obeyed        int             // orders to stop or die at a step
	Refused       int             // commits that Kafka did not take
	NamedMax      time.Duration   // for which Kafka still named a killed broker
	Gaps          map[string]Gaps // in the commits of a partition, by the fault before

	// Blames is all that must not be.
	Blames []string
}

// OK tells whether nothing was wrong.
func (r *Report) OK() bool { return len(r.Blames) == 0 }

func (r *Report) blame(err error) { r.Blames = append(r.Blames, err.Error()) }

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	total := 0
	for _, n := range r.Faults {
		total += n
	}
	fmt.Fprintf(w, "subject %s, seed %d, %v\n", r.Subject, r.Seed, r.Took.Round(time.Second))
	fmt.Fprintf(w, "  faults        %d %v\n", total, r.Faults)
	fmt.Fprintf(w, "  events        %d acknowledged, %d IDs\n", r.Events, r.IDs)
	fmt.Fprintf(w, "  lost          %d\n", r.Lost)
	fmt.Fprintf(w, "  doubled       %d\n", r.Doubled)
	fmt.Fprintf(w, "  IDs that differ %d\n", r.Differ)
	fmt.Fprintf(w, "  flag changes  %d, emitted twice %d\n", r.FlagChanges, r.FlagsAgain)
	fmt.Fprintf(w, "  rebalances    %d, ended by itself %d\n", r.Rebalances, r.OwnEnds)
	fmt.Fprintf(w, "  stopped or killed at a step %d, commits that Kafka refused %d\n", r.Obeyed, r.Refused)
	for _, kind := range slices.Sorted(maps.Keys(r.Gaps)) {
		g := r.Gaps[kind]
		fmt.Fprintf(w, "  commit gaps after %s: %d, p50 %.1fs, max %.1fs\n", kind, g.N, g.P50.Seconds(), g.Max.Seconds())
	}
	if r.NamedMax > 0 {
		fmt.Fprintf(w, "  Kafka named a killed broker for %.1fs at most\n", r.NamedMax.Seconds())
	}
	for _, b := range r.Blames[:min(len(r.Blames), blamesShown)] {
		fmt.Fprintf(w, "  ! %.200s\n", b)
	}
	if more := len(r.Blames) - blamesShown; more > 0 {
		fmt.Fprintf(w, "  ! and %d more\n", more)
	}
}
