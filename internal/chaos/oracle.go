package chaos

import (
	"fmt"
	"slices"
)

// expected is what the events of one ID come to, folded in the order in which they were produced. It is written on its
// own, not from package rules.
type expected struct {
	count, hash uint64 // hash sums are below 1<<64 for fewer than 1<<16 events an ID
	sum, max    int64
	lastMs      int64
	hits        []int64 // times of events within the window that ends at lastMs
	busy        bool
	changes     []change // of the flag, in order
	rekeyed     bool     // some events took the way through the loop, so their order is anybody's
}

// change is a change of the flag at a version of the ID.
type change struct {
	version uint64
	raised  bool
}

func (c change) String() string {
	if c.raised {
		return fmt.Sprintf("raised@%d", c.version)
	}
	return fmt.Sprintf("cleared@%d", c.version)
}

// oracle knows what every ID has to be.
type oracle struct {
	ids   map[string]*expected
	facts map[string][]*fact // nil: they are not kept
}

func newOracle() *oracle { return &oracle{ids: map[string]*expected{}} }

// keep notes an event for the judgement of views. What the producer is told of it is filled in later.
func (o *oracle) keep(e *event, rekeyed bool) *fact {
	f := &fact{event: *e, rekeyed: rekeyed}
	if o.facts != nil {
		o.facts[e.id] = append(o.facts[e.id], f)
	}
	return f
}

// fold counts an event in. Times of one ID must not go back.
func (o *oracle) fold(e *event, rekeyed bool) {
	x := o.ids[e.id]
	if x == nil {
		x = &expected{max: e.value}
		o.ids[e.id] = x
	}
	x.rekeyed = x.rekeyed || rekeyed
	x.count++
	x.hash += e.hash
	x.sum += e.value
	x.max = max(x.max, e.value)
	x.lastMs = max(x.lastMs, e.timeMs)
	if e.hit {
		x.hits = append(x.hits, e.timeMs)
	}
	x.hits = slices.DeleteFunc(x.hits, func(ms int64) bool { return ms < x.lastMs-recentMs })
	switch {
	case !x.busy && len(x.hits) >= raiseAt, x.busy && len(x.hits) < clearBelow:
		x.busy = !x.busy
		x.changes = append(x.changes, change{version: x.count, raised: x.busy})
	}
}

// found is what the subject holds of one ID.
type found struct {
	count        uint64
	sum, hash    string // decimals
	max          string
	recent       uint64
	busy         bool
	changes      []change // as they lie in the flags topic
	changesAgain int      // changes of a version that had one before
}

// faults says what is wrong with one ID; lost and doubled are the fewest events that explain it.
func (x *expected) faults(f *found) (faults []string, lost, doubled uint64) {
	if f == nil {
		return []string{"missing"}, x.count, 0
	}
	differ := func(what string, got, want any) {
		if got != want {
			faults = append(faults, fmt.Sprintf("%s %v, want %v", what, got, want))
		}
	}
	differ("count", f.count, x.count)
	differ("hash", f.hash, fmt.Sprint(x.hash))
	differ("sum", f.sum, cents(x.sum))
	differ("max", f.max, cents(x.max))
	switch {
	case f.count < x.count:
		lost = x.count - f.count
	case f.count > x.count:
		doubled = f.count - x.count
	case len(faults) > 0: // as many were lost as were doubled
		lost, doubled = 1, 1
	}
	differ("recent", f.recent, uint64(len(x.hits)))
	if f.changesAgain > 0 {
		faults = append(faults, fmt.Sprintf("%d flag changes twice", f.changesAgain))
	}
	if x.rekeyed {
		return faults, lost, doubled
	}
	differ("busy", f.busy, x.busy)
	if !slices.Equal(f.changes, x.changes) {
		faults = append(faults, fmt.Sprintf("flag changes %v, want %v", f.changes, x.changes))
	}
	return faults, lost, doubled
}
