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
	Subject         string
	Seed            uint64
	Took            time.Duration
	Faults          map[string]int // by kind
	Events          int64          // acknowledged
	IDs             int
	Lost, Doubled   uint64
	Differ          int // IDs
	FlagChanges     int
	FlagsAgain      int // changes that were emitted twice
	OwnEnds         int // processes that ended without having been told to
	Rebalances      int
	Obeyed          map[string]int // by kind: faults in which a process came by the step at which it was ordered to stop or die
	Refused         int            // commits that Kafka did not take
	RepliesLost     map[string]int // by the request of a commit
	Zombies         map[string]int // commits that were sent after a successor's Setup, by the step at which they had stopped
	ZombiesAccepted int
	Answers         int             // of views
	Unanswered      int64           // questions to views
	Wrong           map[string]int  // answers of views
	Silence         time.Duration   // the longest of a view to which nothing was being done
	TokenReads      *TokenReads     // nil: none were asked for
	Watches         *Watches        // nil: there were none
	NamedMax        time.Duration   // for which Kafka still named a killed broker
	Gaps            map[string]Gaps // in the commits of a partition, by the fault before

	// Blames is all that must not be.
	Blames []string
}

// OK tells whether nothing was wrong.
func (r *Report) OK() bool { return len(r.Blames) == 0 }

func (r *Report) blame(err error) { r.Blames = append(r.Blames, err.Error()) }

// holdTo blames what is longer, or less, than the configuration allows.
func (r *Report) holdTo(cfg *Config) {
	for kind, g := range r.Gaps {
		most, ok := cfg.Within[kind]
		if !ok {
			most, ok = cfg.Within[Any]
		}
		if ok && g.Max > most {
			r.blame(fmt.Errorf("a partition had no commit for %.1fs after %s, want %v at most", g.Max.Seconds(), kind, most))
		}
	}
	if cfg.ViewsWithin > 0 && r.Silence > cfg.ViewsWithin {
		r.blame(fmt.Errorf("a view was silent for %.1fs, want %v at most", r.Silence.Seconds(), cfg.ViewsWithin))
	}
	for _, kind := range stepKinds {
		if n := r.Faults[kind]; n > 0 && r.Obeyed[kind] == 0 {
			r.blame(fmt.Errorf("%s: none of %d came by its step", kind, n))
		}
	}
	if n := sum(r.Zombies); n < cfg.ZombiesMin {
		r.blame(fmt.Errorf("%d zombie commits were tried, want %d", n, cfg.ZombiesMin))
	}
	if n := sum(r.RepliesLost); n < cfg.RepliesLostMin {
		r.blame(fmt.Errorf("%d replies to commits were lost, want %d", n, cfg.RepliesLostMin))
	}
	if r.TokenReads != nil {
		r.TokenReads.holdTo(cfg, r.blame)
	}
}

func sum(of map[string]int) (n int) {
	for _, m := range of {
		n += m
	}
	return n
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	total := sum(r.Faults)
	fmt.Fprintf(w, "subject %s, seed %d, %v\n", r.Subject, r.Seed, r.Took.Round(time.Second))
	fmt.Fprintf(w, "  faults        %d %v\n", total, r.Faults)
	fmt.Fprintf(w, "  events        %d acknowledged, %d IDs\n", r.Events, r.IDs)
	fmt.Fprintf(w, "  lost          %d\n", r.Lost)
	fmt.Fprintf(w, "  doubled       %d\n", r.Doubled)
	fmt.Fprintf(w, "  IDs that differ %d\n", r.Differ)
	fmt.Fprintf(w, "  flag changes  %d, emitted twice %d\n", r.FlagChanges, r.FlagsAgain)
	fmt.Fprintf(w, "  rebalances    %d, ended by itself %d\n", r.Rebalances, r.OwnEnds)
	fmt.Fprintf(w, "  commits that Kafka refused %d\n", r.Refused)
	for _, kind := range stepKinds {
		if n := r.Faults[kind]; n > 0 {
			fmt.Fprintf(w, "  %s: at its step %d of %d\n", kind, r.Obeyed[kind], n)
		}
	}
	if len(r.Zombies) > 0 {
		fmt.Fprintf(w, "  zombie commits %d %v, accepted %d\n", sum(r.Zombies), r.Zombies, r.ZombiesAccepted)
	}
	if len(r.RepliesLost) > 0 {
		fmt.Fprintf(w, "  replies lost  %d %v\n", sum(r.RepliesLost), r.RepliesLost)
	}
	if r.Answers > 0 {
		fmt.Fprintf(w, "  views         %d answers, wrong %d %v; %d unanswered, silent for %.1fs at most\n", r.Answers, sum(r.Wrong), r.Wrong, r.Unanswered, r.Silence.Seconds())
	}
	if r.TokenReads != nil {
		r.TokenReads.print(w)
	}
	if r.Watches != nil {
		r.Watches.print(w)
	}
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
