package rules

import (
	"errors"
	"math/big"
	"slices"
	"sort"
)

// The plain model: everything is recomputed from the full list of an ID's events after every event. It shares no code
// with Apply, its windows or its expressions.

// A mval is a value of the model. Kinds: 0 null or unknown, 'n', 's', 'b', 'l', 'm' for a map.
type mval struct {
	kind byte
	n    *big.Rat
	s    string
	b    bool
	l    []mval
	six  int64 // of a contribution: n in millionths
}

// An mx is an expression of the model.
type mx struct {
	op   string
	args []*mx
	text string // literal, field, total or flag name
	ms   int64
}

type mtotal struct {
	name, kind              string
	value, when             *mx
	window, lateness, grain int64
	maxItems                int
}

type mflag struct {
	name        string
	when, clear *mx
}

type mevent struct {
	ms, offset int64
	fields     map[string]mval
	brings     []*mval // by total: what it brought when it arrived; nil for nothing
}

type mwhy struct{ ms, offset int64 }

type mchange struct {
	flag    string
	raised  bool
	version uint64
	why     mwhy
}

type model struct {
	totals []mtotal // sorted by name
	flags  []mflag  // sorted by name

	events  []*mevent // in the order (time, arrival)
	late    uint64
	last    int64
	first   int64
	raised  map[string]mwhy
	current *mevent // while it is evaluated
	with    []*mevent
	tooLate []bool
	end     int64
}

var errModel = errors.New("wrong type")

func mnum(r *big.Rat) mval { return mval{kind: 'n', n: r} }
func mint(n int64) mval    { return mnum(big.NewRat(n, 1)) }
func mbool(b bool) mval    { return mval{kind: 'b', b: b} }

func floorTo(ms, grain int64) int64 {
	if grain == 0 {
		return ms
	}
	q := ms / grain
	if ms%grain < 0 {
		q--
	}
	return q * grain
}

// apply answers what changed, whether the event was late, or an error for a refusal.
func (m *model) apply(ev *mevent) (changes []mchange, late bool, err error) {
	last, first := ev.ms, ev.ms
	if len(m.events) > 0 {
		last, first = max(last, m.last), min(first, m.first)
	}
	m.current, m.end = ev, ev.ms
	m.tooLate = make([]bool, len(m.totals))
	for i, t := range m.totals {
		m.tooLate[i] = t.window > 0 && last-ev.ms > t.lateness
		late = late || m.tooLate[i]
	}
	ev.brings = make([]*mval, len(m.totals))
	m.with = nil
	for i, t := range m.totals {
		brings, err := m.contribution(t)
		if err != nil {
			return nil, false, err
		}
		if !m.tooLate[i] {
			ev.brings[i] = brings
		}
	}
	at := sort.Search(len(m.events), func(i int) bool { return m.events[i].ms > ev.ms })
	m.with = slices.Insert(slices.Clone(m.events), at, ev)
	version := uint64(len(m.with))
	for _, f := range m.flags {
		turned, err := m.judge(f, last)
		if err != nil {
			return nil, false, err
		}
		if turned {
			_, was := m.raised[f.name]
			changes = append(changes, mchange{f.name, !was, version, mwhy{ev.ms, ev.offset}})
		}
	}
	for _, c := range changes {
		delete(m.raised, c.flag)
		if c.raised {
			m.raised[c.flag] = c.why
		}
	}
	m.events, m.last, m.first = m.with, last, first
	if late {
		m.late++
	}
	return changes, late, nil
}

func (m *model) contribution(t mtotal) (*mval, error) {
	if t.when != nil {
		v, err := m.eval(t.when)
		if err != nil || v.kind != 'b' || !v.b {
			return nil, err
		}
	}
	if t.kind == "count" {
		return &mval{}, nil
	}
	v, err := m.eval(t.value)
	if err != nil || v.kind == 0 {
		return nil, err
	}
	if scalars := t.kind == "last" || t.kind == "list"; (!scalars && v.kind != 'n') || v.kind == 'm' {
		return nil, errModel
	}
	if v.kind == 'n' {
		six := new(big.Rat).Mul(v.n, big.NewRat(1e6, 1))
		if !six.IsInt() || !six.Num().IsInt64() {
			panic("the histories hold finer numbers than millionths")
		}
		v.six = six.Num().Int64()
	}
	return &v, nil
}

func (m *model) judge(f mflag, last int64) (bool, error) {
	_, raised := m.raised[f.name]
	if raised && f.clear == nil {
		return false, nil
	}
	ends, cond := m.ends(f), f.when
	if f.clear != nil {
		ends = []int64{last}
	}
	if raised {
		cond = f.clear
	}
	for _, end := range ends {
		m.end = end
		v, err := m.eval(cond)
		if err != nil {
			return false, err
		}
		if v.kind == 'b' && v.b {
			return true, nil
		}
	}
	return false, nil
}

// ends are the event's time and the later times of entries of the named windowed totals, while the event is within.
func (m *model) ends(f mflag) []int64 {
	ends := []int64{m.current.ms}
	named := map[string]bool{}
	f.when.names(named)
	inside := func(end int64) bool {
		for i, t := range m.totals {
			if named[t.name] && t.window > 0 && !m.tooLate[i] &&
				floorTo(m.current.ms, t.grain) >= floorTo(end, t.grain)-t.window {
				return true
			}
		}
		return false
	}
	for i, t := range m.totals {
		if !named[t.name] || t.window == 0 || m.tooLate[i] {
			continue
		}
		for _, ev := range m.with {
			if end := floorTo(ev.ms, t.grain); ev.brings[i] != nil && end > m.current.ms && inside(end) {
				ends = append(ends, end)
			}
		}
	}
	slices.Sort(ends)
	return slices.Compact(ends)
}

func (x *mx) names(into map[string]bool) {
	if x.op == "total" || x.op == "prior" {
		into[x.text] = true
	}
	for _, a := range x.args {
		a.names(into)
	}
}

// total is the value of a total over the events given; a window ends at end.
func (m *model) total(i int, events []*mevent, end int64) mval {
	t := m.totals[i]
	var in []mval
	for _, ev := range events {
		if ev.brings[i] == nil {
			continue
		}
		if at, to := floorTo(ev.ms, t.grain), floorTo(end, t.grain); t.window == 0 || (at >= to-t.window && at <= to) {
			in = append(in, *ev.brings[i])
		}
	}
	sum := int64(0)
	for _, v := range in {
		sum += v.six
	}
	switch {
	case t.kind == "count":
		return mint(int64(len(in)))
	case t.kind == "sum":
		return mnum(big.NewRat(sum, 1e6))
	case len(in) == 0:
		return mval{}
	case t.kind == "avg":
		return mnum(round16(big.NewRat(sum, int64(len(in))*1e6)))
	case t.kind == "last":
		return in[len(in)-1]
	case t.kind == "list":
		if t.maxItems > 0 && len(in) > t.maxItems {
			in = in[len(in)-t.maxItems:]
		}
		return mval{kind: 'l', l: in}
	}
	best := in[0]
	for _, v := range in[1:] {
		if (t.kind == "min" && v.six < best.six) || (t.kind == "max" && v.six > best.six) {
			best = v
		}
	}
	return best
}

// round16 rounds half to even at 16 significant digits.
func round16(r *big.Rat) *big.Rat {
	if r.Sign() == 0 {
		return r
	}
	ten, unit := big.NewRat(10, 1), big.NewRat(1, 1)
	low, high := big.NewRat(1e15, 1), big.NewRat(1e16, 1)
	x := new(big.Rat).Abs(r)
	for x.Cmp(low) < 0 {
		x.Mul(x, ten)
		unit.Quo(unit, ten)
	}
	for x.Cmp(high) >= 0 {
		x.Quo(x, ten)
		unit.Mul(unit, ten)
	}
	q, rest := new(big.Int).QuoRem(x.Num(), x.Denom(), new(big.Int))
	switch rest.Lsh(rest, 1).Cmp(x.Denom()) {
	case 1:
		q.Add(q, big.NewInt(1))
	case 0:
		q.Add(q, new(big.Int).And(q, big.NewInt(1)))
	}
	x.SetInt(q)
	x.Mul(x, unit)
	if r.Sign() < 0 {
		x.Neg(x)
	}
	return x
}
