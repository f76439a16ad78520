package histories

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Sum is of the histories that were added to it.
type Sum struct {
	Report    // Seed is the first one, Trace is none's
	Histories int
	Last      uint64 // seed
	Wrong     uint64 // the least seed with a finding
	Took      time.Duration
}

// Add counts a history in.
func (s *Sum) Add(r Report) {
	if s.Histories == 0 {
		s.Seed, s.Crashes = r.Seed, map[string]int{}
	}
	s.Histories++
	s.Seed, s.Last = min(s.Seed, r.Seed), max(s.Last, r.Seed)
	s.Crashed += r.Crashed
	s.Freezes += r.Freezes
	s.Stops += r.Stops
	s.Brokers += r.Brokers
	s.Events += r.Events
	s.Virtual += r.Virtual
	for step, n := range r.Crashes {
		s.Crashes[step] += n
	}
	if len(r.Finds) > 0 && (s.Wrong == 0 || r.Seed < s.Wrong) {
		s.Wrong = r.Seed
	}
	for _, found := range r.Finds {
		s.Finds = append(s.Finds, fmt.Sprintf("seed %d: %s", r.Seed, found))
	}
}

// Line is the sum in one line.
func (s *Sum) Line() string {
	return fmt.Sprintf("%d crashes in %d histories of seeds %d to %d, %d findings; %d freezes, %d clean stops, %d faults of brokers, %d events; %v simulated in %v (%.0f crashes/s)",
		s.Crashed, s.Histories, s.Seed, s.Last, len(s.Finds), s.Freezes, s.Stops, s.Brokers, s.Events,
		time.Duration(s.Virtual*1e9).Round(time.Minute), s.Took.Round(time.Second), float64(s.Crashed)/max(s.Took.Seconds(), 0.001))
}

// String is the sum with its crashes by step and its findings.
func (s *Sum) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.Line())
	for _, step := range slices.Sorted(maps.Keys(s.Crashes)) {
		fmt.Fprintf(&b, "  %7d crashes: %s\n", s.Crashes[step], step)
	}
	for _, found := range s.Finds {
		fmt.Fprintf(&b, "  WRONG: %s\n", found)
	}
	return b.String()
}
