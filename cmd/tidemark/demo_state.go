package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark/tidemark/view"
)

// demoState is a state as the view answers it.
type demoState struct {
	ID        string              `json:"id"`
	Count     int64               `json:"count,string"`
	FirstTime time.Time           `json:"first_time"`
	LastTime  time.Time           `json:"last_time"`
	Totals    map[string]*string  `json:"totals"`
	Flags     map[string]*demoWhy `json:"flags"`
}

// demoWhy is why a flag is raised.
type demoWhy struct {
	Time      time.Time `json:"time"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset,string"`
}

// written remembers which line of the events lies where in the topic.
type written map[int32][]int64

func (w written) add(line int64, partition int32, offset int64) {
	at := w[partition]
	for int64(len(at)) <= offset {
		at = append(at, -1)
	}
	at[offset] = line
	w[partition] = at
}

func (w written) line(why *demoWhy) int64 {
	if at := w[why.Partition]; why.Offset >= 0 && why.Offset < int64(len(at)) {
		return at[why.Offset]
	}
	return -1
}

// readStates asks the view for everything.
func readStates(ctx context.Context, v *view.View, d *demo) ([]*demoState, error) {
	var all []*demoState
	f := view.Filter{Limit: 1000}
	for {
		page, more, _, err := v.List(ctx, f, view.Read{})
		if err != nil {
			return nil, err
		}
		for i := range page {
			s := &demoState{}
			if err := json.Unmarshal(page[i].State.AppendJSON(nil, page[i].ID, d.conn.job.Schema), s); err != nil {
				return nil, fmt.Errorf("state of %q: %w", page[i].ID, err)
			}
			all = append(all, s)
			f.After = page[i].ID
		}
		if !more {
			return all, nil
		}
	}
}

// compare counts the IDs that are as the oracle says, and describes the first one that is not.
func compare(states []*demoState, oracle map[string]*oracleEntry, w written) (equal int, first string) {
	seen := map[string]bool{}
	for _, s := range states {
		seen[s.ID] = true
		diff := "not in the oracle"
		if o := oracle[s.ID]; o != nil {
			diff = s.differs(o, w)
		}
		if diff == "" {
			equal++
		} else if first == "" {
			first = s.ID + ": " + diff
		}
	}
	for id := range oracle {
		if !seen[id] && first == "" {
			first = id + ": missing"
		}
	}
	return equal, first
}

// differs says in what a state is not as the oracle says, "" if in nothing.
func (s *demoState) differs(o *oracleEntry, w written) string {
	if s.Count != o.Count {
		return fmt.Sprintf("count is %d, the oracle says %d", s.Count, o.Count)
	}
	if s.FirstTime.UnixMilli() != o.FirstMs || s.LastTime.UnixMilli() != o.LastMs {
		return fmt.Sprintf("from %s to %s, the oracle says %d to %d", s.FirstTime, s.LastTime, o.FirstMs, o.LastMs)
	}
	for name, want := range map[string]*string{"sum": o.Sum, "min": o.Min, "max": o.Max} {
		if got := s.Totals[name]; textOf(got) != textOf(want) {
			return fmt.Sprintf("%s is %s, the oracle says %s", name, textOf(got), textOf(want))
		}
	}
	for name, why := range s.Flags {
		want, ok := o.Flags[name]
		if !ok {
			return fmt.Sprintf("flag %s is raised, not so in the oracle", name)
		}
		if line := w.line(why); line != want.Line || !why.Time.Equal(want.Time) {
			return fmt.Sprintf("flag %s was raised by line %d, the oracle says %d", name, line, want.Line)
		}
	}
	for name := range o.Flags {
		if s.Flags[name] == nil {
			return fmt.Sprintf("flag %s is not raised, the oracle says so", name)
		}
	}
	return ""
}

func textOf(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// flagged counts the IDs that bear each flag.
func flagged(states []*demoState) map[string]int {
	n := map[string]int{}
	for _, s := range states {
		for name := range s.Flags {
			n[name]++
		}
	}
	return n
}

// mostTelling gives the flagged IDs, those with rare flags and many of them first; rarest is the order of the flags.
func mostTelling(states []*demoState, rarest []string) []*demoState {
	bearers := flagged(states)
	score := map[string]float64{}
	var all []*demoState
	for _, s := range states {
		for _, name := range flagNames(s.Flags, rarest) {
			score[s.ID] += 1 / float64(bearers[name])
		}
		if len(s.Flags) > 0 {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *demoState) int {
		return cmp.Or(cmp.Compare(score[b.ID], score[a.ID]), cmp.Compare(b.Count, a.Count))
	})
	return all
}

// flagNames gives the flags of a state, the rarest first.
func flagNames(flags map[string]*demoWhy, order []string) []string {
	var names []string
	for _, name := range order {
		if flags[name] != nil {
			names = append(names, name)
		}
	}
	return names
}
