package rules

import (
	"fmt"

	"github.com/tidemark/tidemark/codecs"
)

// Applier counts events into states. It holds the event between Read and Apply and all scratch space; use one per
// goroutine.
type Applier struct {
	rules   *RuleSet
	decoder *codecs.EventDecoder
	rec     *Record
	env     *env

	by       []contribution   // by total: what the event brings
	takes    []bool           // by total: whether it brings anything
	tooLate  []bool           // by total: the event may not enter the window
	spans    []span           // by total: windows that end elsewhere than at the last time
	sums     []codecs.Decimal // by total: scratch of env.totals
	items    [][]codecs.Value // by total: scratch of env.totals
	older    [][]codecs.Value // by total: scratch of env.prior.totals
	changes  []codecs.FlagChange
	fixed    int64
	ruleWins []int // windowed totals that a total's own expressions name under prior
}

// Outcome is what an applied event did. Changes are good until the next Apply.
type Outcome struct {
	Changes []codecs.FlagChange
	Late    bool // too late for a window
}

// NewApplier returns an Applier for the rules.
func (rs *RuleSet) NewApplier() *Applier {
	n := len(rs.totals)
	a := &Applier{
		rules: rs, decoder: codecs.NewEventDecoder(rs.paths), env: rs.newEnv(),
		by: make([]contribution, n), takes: make([]bool, n), tooLate: make([]bool, n),
		spans: make([]span, n), sums: make([]codecs.Decimal, n),
		items: make([][]codecs.Value, n), older: make([][]codecs.Value, n),
		fixed: rs.fixedBytes(),
	}
	named := make([]bool, n)
	for i := range rs.totals {
		for _, p := range []*program{rs.totals[i].value, rs.totals[i].when} {
			if p == nil {
				continue
			}
			for _, t := range p.priorTotals {
				named[t] = named[t] || rs.totals[t].windowMs > 0
			}
		}
	}
	for i := range named {
		if named[i] {
			a.ruleWins = append(a.ruleWins, i)
		}
	}
	return a
}

// Apply counts the event of the last Read into st. A refusal leaves st as it was: all that can fail comes before the
// first change.
func (a *Applier) Apply(st *State) (Outcome, *Refusal) {
	ms := a.env.timeMs
	last := ms
	if st.count > 0 {
		last = max(ms, st.lastMs)
	}
	behind := last > ms
	anyLate := a.place(st, ms, last)
	a.before(st)
	if behind {
		a.priorAt(st, ms)
	}
	if refusal := a.contribute(st); refusal != nil {
		return Outcome{}, refusal
	}
	a.after(st, ms, behind)
	a.changes = a.changes[:0]
	for i := range a.rules.flags {
		changed, err := a.judge(st, i, ms, behind)
		if err != nil {
			return Outcome{}, &Refusal{ReasonRule, fmt.Sprintf("flag %s: %v", a.rules.flags[i].name, err)}
		}
		if changed {
			a.change(st, i, ms)
		}
	}
	if refusal := a.fits(st, ms, last); refusal != nil {
		return Outcome{}, refusal
	}
	a.count(st, ms, last, anyLate)
	return Outcome{Changes: a.changes, Late: anyLate}, nil
}

// place moves every window to the one that ends at last and finds those that the event is too late for.
func (a *Applier) place(st *State, ms, last int64) (anyLate bool) {
	for i := range st.tallies {
		w := st.tallies[i].win
		if w == nil {
			continue
		}
		a.tooLate[i] = last-ms > w.rule.latenessMs
		anyLate = anyLate || a.tooLate[i]
		w.slide(last)
	}
	return anyLate
}

// before fills in the state without the event, windows ending at the last time.
func (a *Applier) before(st *State) {
	e := a.env
	for i := range st.flags {
		e.flags[i] = st.flags[i].Raised
	}
	e.prior.count, e.prior.lastMs, e.prior.hasLast = st.count, st.lastMs, st.count > 0
	for _, i := range a.rules.usedPrior {
		if w := st.tallies[i].win; w != nil {
			a.window(st, i, &w.now, false, 0)
		} else {
			st.tallies[i].show(&e.prior.totals[i], &a.rules.totals[i])
		}
	}
}

// window fills in one windowed total at the span's end, in env.totals (with the event, which lies at slot) or in
// env.prior.totals.
func (a *Applier) window(st *State, i int, s *span, with bool, slot int64) {
	w := st.tallies[i].win
	dst, items, by := &a.env.prior.totals[i], &a.older[i], (*contribution)(nil)
	if with {
		dst, items = &a.env.totals[i], &a.items[i]
		if a.takes[i] && slot >= s.left {
			by = &a.by[i]
		}
	}
	if a.tooLate[i] {
		*dst = codecs.Value{}
		return
	}
	w.show(dst, s, by, slot, items, &a.sums[i])
}

// contribute evaluates the totals' own expressions.
func (a *Applier) contribute(st *State) *Refusal {
	for i := range a.rules.totals {
		rule := &a.rules.totals[i]
		taken, err := a.take(rule, &a.by[i])
		if err != nil {
			return &Refusal{ReasonRule, fmt.Sprintf("total %s: %v", rule.name, err)}
		}
		a.takes[i] = taken && !a.tooLate[i]
		if a.takes[i] {
			a.by[i].size(rule)
		}
	}
	return nil
}

func (a *Applier) take(rule *total, by *contribution) (bool, error) {
	if rule.when != nil {
		if holds, err := rule.when.test(a.env); err != nil || !holds {
			return false, err
		}
	}
	if rule.kind == kindCount {
		return true, nil
	}
	v, err := rule.value.value(a.env)
	if err != nil || v.Kind == codecs.Null {
		return false, err
	}
	return true, by.set(rule.kind, v)
}

// after fills in totals with the event counted in, windows ending at the last time. What a late event does to windows
// is filled in by each flag.
func (a *Applier) after(st *State, ms int64, behind bool) {
	for _, i := range a.rules.usedTotals {
		rule, t := &a.rules.totals[i], &st.tallies[i]
		switch {
		case t.win != nil && !behind:
			a.window(st, i, &t.win.now, true, rule.slot(ms))
		case t.win != nil:
		case a.takes[i]:
			t.showWith(&a.env.totals[i], rule, ms, &a.by[i], &a.items[i], &a.sums[i])
		default:
			t.show(&a.env.totals[i], rule)
		}
	}
}

// judge decides whether flag i changes.
func (a *Applier) judge(st *State, i int, ms int64, behind bool) (bool, error) {
	f, raised := &a.rules.flags[i], st.flags[i].Raised
	switch {
	case raised && f.clear == nil:
		return false, nil
	case !behind && raised:
		return f.clear.test(a.env)
	case !behind:
		return f.when.test(a.env)
	case f.clear == nil:
		return a.anyEnd(st, f, ms)
	}
	p, named := f.when, f.whenWindows
	if raised {
		p, named = f.clear, f.clearWindows
	}
	for _, t := range named {
		w := st.tallies[t].win
		a.window(st, t, &w.now, false, 0)
		a.window(st, t, &w.now, true, w.rule.slot(ms))
	}
	return p.test(a.env)
}

// change notes that flag i changes.
func (a *Applier) change(st *State, i int, ms int64) {
	a.changes = append(a.changes, codecs.FlagChange{
		ID: a.env.id, Flag: a.rules.flags[i].name, Raised: !st.flags[i].Raised, Version: st.version + 1,
		Why: codecs.Why{
			TimeMs: ms, Topic: a.rec.Topic, Partition: a.rec.Partition, Offset: a.rec.Offset,
			Rules: a.rules.schema.Digest,
		},
	})
}

// fits refuses an event that would bring the state beyond its limit, once the event's eviction is taken off.
func (a *Applier) fits(st *State, ms, last int64) *Refusal {
	limit, size := a.rules.job.StateBytesMax, a.fixed+st.bytes
	for i := range st.tallies {
		switch {
		case !a.takes[i]:
		case st.tallies[i].win == nil && a.rules.totals[i].kind.hasVals():
			size += st.tallies[i].itemGrowth(&a.rules.totals[i], ms, &a.by[i])
		default:
			size += a.by[i].bytes
		}
	}
	if size <= limit {
		return nil
	}
	for i := range st.tallies {
		if w := st.tallies[i].win; w != nil {
			size -= w.evictable(w.rule.oldest(last))
		}
	}
	if size <= limit {
		return nil
	}
	return &Refusal{ReasonStateBytes, fmt.Sprintf("the state of this ID would take up to %d bytes, more than state_bytes_max, %d", size, limit)}
}

// count makes the changes. Nothing in it can fail.
func (a *Applier) count(st *State, ms, last int64, late bool) {
	for i := range st.tallies {
		rule, t := &a.rules.totals[i], &st.tallies[i]
		if t.win != nil {
			a.countWindow(st, i, ms, last)
			continue
		}
		if !a.takes[i] {
			continue
		}
		by := &a.by[i]
		switch rule.kind {
		case kindSum, kindAvg:
			mustAdd(&t.num, &t.num, &by.num)
		case kindMin, kindMax:
			if t.n == 0 || better(rule.kind, &by.num, &t.num) {
				t.num = by.num
			}
		case kindLast, kindList:
			st.bytes += t.item(rule, ms, by)
			continue
		}
		t.n++
	}
	if st.count == 0 || ms < st.firstMs {
		st.firstMs = ms
	}
	st.lastMs = last
	st.count++
	st.version++
	if late {
		st.late++
	}
	a.raise(st)
}

func (a *Applier) countWindow(st *State, i int, ms, last int64) {
	w := st.tallies[i].win
	bytes := w.bytes
	moved := w.evict(w.rule.oldest(last))
	if a.takes[i] {
		slot := w.rule.slot(ms)
		chunks := len(w.chunks)
		newest, any := w.newest()
		w.insert(slot, &a.by[i])
		w.counted(slot, &a.by[i], moved || !any || slot < newest || len(w.chunks) != chunks || w.now.l == w.end())
	} else if moved {
		w.now.l = w.seek(w.now.left)
	}
	st.bytes += w.bytes - bytes
}

// raise carries the noted changes out.
func (a *Applier) raise(st *State) {
	next := 0
	for i := range a.rules.flags {
		if next == len(a.changes) {
			return
		}
		change := &a.changes[next]
		if a.rules.flags[i].name != change.Flag {
			continue
		}
		next++
		st.flags[i] = codecs.Flag{Raised: change.Raised}
		if change.Raised {
			st.flags[i].Why = change.Why
		}
	}
}
