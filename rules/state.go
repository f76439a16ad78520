package rules

import (
	"strings"

	"github.com/tidemark/tidemark/codecs"
)

// State is what one ID has come to: counts, totals, flags, and the entries of its windows with their aggregates. It
// belongs to the RuleSet that made it, and to one goroutine at a time.
type State struct {
	rules *RuleSet

	version, count, late uint64
	firstMs, lastMs      int64 // of events, while count > 0

	tallies []tally       // as the schema's totals
	flags   []codecs.Flag // as the schema's flags
	bytes   int64         // bound of the encoded size, without the fixed part
}

// A tally is one total of one ID.
type tally struct {
	n     uint64         // without a window: events (count), values (min, max, avg)
	num   codecs.Decimal // without a window: sum, min, max; the sum of avg
	times []int64        // without a window: of vals
	vals  []codecs.Value // without a window: the newest values of last and list, oldest first
	win   *window        // nil without a window
}

// NewState returns the state of an ID that has had no event.
func (rs *RuleSet) NewState() *State {
	st := &State{rules: rs, tallies: make([]tally, len(rs.totals))}
	if len(rs.flags) > 0 {
		st.flags = make([]codecs.Flag, len(rs.flags))
	}
	for i := range rs.totals {
		if rs.totals[i].windowMs > 0 {
			st.tallies[i].win = &window{rule: &rs.totals[i]}
		}
	}
	return st
}

// Version counts the events applied.
func (st *State) Version() uint64 { return st.version }

// Late counts the events that came too late for a window.
func (st *State) Late() uint64 { return st.late }

// fixedBytes bounds what every state of the rules takes.
func (rs *RuleSet) fixedBytes() int64 {
	return stateFixedBytes + totalFixedBytes*int64(len(rs.totals)) + flagFixedBytes*int64(len(rs.flags))
}

// SizeBound bounds the bytes that the state takes encoded, its chunks included and keys left out. It is a function of
// the events alone.
func (st *State) SizeBound() int64 { return st.rules.fixedBytes() + st.bytes }

// capacity is how many values the total without a window keeps; 0: no limit.
func (t *total) capacity() int {
	if t.kind == kindLast {
		return 1
	}
	return t.maxItems
}

// item puts a value in its place among the newest, and returns by how many bytes the tally grew.
func (t *tally) item(rule *total, ms int64, by *contribution) int64 {
	at, full := t.itemPlace(rule, ms)
	if full && at == 0 {
		return 0
	}
	grown := by.bytes
	if full {
		grown -= itemBytes(&t.vals[0])
		at--
		if at == len(t.vals)-1 && at == 0 { // last, in order
			t.times[0] = ms
			retain(&t.vals[0], &by.val)
			return grown
		}
		t.times = trimColumn(t.times, 1)
		t.vals = trimColumn(t.vals, 1)
	}
	t.times = insertAt(t.times, at, ms)
	t.vals = insertAt(t.vals, at, codecs.Value{})
	retain(&t.vals[at], &by.val)
	return grown
}

// itemPlace is where a value of time ms belongs, and whether the oldest has to go for it.
func (t *tally) itemPlace(rule *total, ms int64) (at int, full bool) {
	at = len(t.times)
	for at > 0 && t.times[at-1] > ms {
		at--
	}
	limit := rule.capacity()
	return at, limit > 0 && len(t.times) >= limit
}

// itemGrowth is what item would return.
func (t *tally) itemGrowth(rule *total, ms int64, by *contribution) int64 {
	at, full := t.itemPlace(rule, ms)
	switch {
	case full && at == 0:
		return 0
	case full:
		return by.bytes - itemBytes(&t.vals[0])
	}
	return by.bytes
}

// retain copies a scalar so that it outlives the event and the run of a program.
func retain(dst, src *codecs.Value) {
	*dst = codecs.Value{Kind: src.Kind}
	switch src.Kind {
	case codecs.Bool:
		dst.Bool = src.Bool
	case codecs.Number:
		dst.Num = src.Num
	case codecs.String:
		dst.Str = strings.Clone(src.Str)
	}
}

// shown returns the totals as an answer gives them: windows are those that end at the last time. Lists may lie in the
// state: they are good until the next event.
func (st *State) shown(dst []codecs.Value) []codecs.Value {
	dst = dst[:0]
	for i := range st.tallies {
		var v codecs.Value
		tally, rule := &st.tallies[i], &st.rules.totals[i]
		if tally.win != nil {
			tally.win.slide(st.lastMs)
			var items []codecs.Value
			var sum codecs.Decimal
			tally.win.show(&v, &tally.win.now, nil, 0, &items, &sum)
		} else {
			tally.show(&v, rule)
		}
		dst = append(dst, v)
	}
	return dst
}
