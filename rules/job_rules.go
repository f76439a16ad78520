package rules

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/types"
	"go.yaml.in/yaml/v4"
)

func (l *loader) readTotals(n *yaml.Node) {
	if n == nil {
		return
	}
	values, keys, order := l.fields(n, "totals", nil)
	if len(order) > namedMax {
		l.fault(n, "more than %d totals", namedMax)
		return
	}
	for _, name := range order {
		l.named(keys[name])
		l.total(&l.rs.totals[l.totals[name]], name, keys[name], values[name])
	}
}

func (l *loader) total(t *total, name string, key, n *yaml.Node) {
	t.name = name
	values, keys, order := l.fields(n, "total "+name, totalKeys)
	if n.Kind != yaml.MappingNode {
		return
	}
	var kinds []string
	for _, word := range order {
		if i := slices.Index(totalKinds[:], word); i >= 0 {
			kinds = append(kinds, word)
			t.kind = totalKind(i)
		}
	}
	for _, word := range kinds {
		l.kind(t, name, word, values[word])
	}
	if e := values["when"]; e != nil {
		t.when = l.expression(e, "totals."+name+".when", &l.inner, wantCondition)
	}
	switch len(kinds) {
	case 0:
		l.fault(key, "total %s needs one of %s", name, strings.Join(totalKinds[:], ", "))
	case 1:
		l.keeps(t, key, values)
	default:
		l.fault(keys[kinds[1]], "total %s has both %s: one is enough", name, strings.Join(kinds, " and "))
	}
	l.window(t, values)
}

// kind reads what a total takes.
func (l *loader) kind(t *total, name, word string, n *yaml.Node) {
	if word == totalKinds[kindCount] {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Value != "true" {
			l.fault(n, "count takes true; a condition stands under when")
		}
		return
	}
	want := wantNumber
	if word == totalKinds[kindLast] || word == totalKinds[kindList] {
		want = wantScalar
	}
	t.value = l.expression(n, "totals."+name+"."+word, &l.inner, want)
}

// keeps looks at the keys that only some kinds have a use for.
func (l *loader) keeps(t *total, key *yaml.Node, values map[string]*yaml.Node) {
	items, grain := values["max_items"], values["grain"]
	switch {
	case items != nil && t.kind != kindList:
		l.fault(items, "max_items has a meaning with list alone")
	case items == nil && t.kind == kindList && values["window"] == nil:
		l.fault(key, "list without a window needs max_items")
	}
	if grain != nil && t.kind.hasVals() {
		l.fault(grain, "grain has no meaning with %s", t.kind)
	}
}

// window reads how far back a total looks, and how much of it is kept.
func (l *loader) window(t *total, values map[string]*yaml.Node) {
	if n := values["window"]; n != nil {
		ms, ok := l.duration(n, "window")
		if ok && ms == 0 {
			l.fault(n, "window must be longer than 0")
		}
		t.windowMs, t.latenessMs = ms, ms
		if late := l.rs.job.Input.AllowedLatenessMs; late != nil {
			t.latenessMs = *late
		}
	}
	if n := values["grain"]; n != nil {
		ms, ok := l.duration(n, "grain")
		switch {
		case !ok:
		case values["window"] == nil:
			l.fault(n, "grain needs a window")
		case ms == 0 || t.windowMs%ms != 0:
			l.fault(n, "grain must divide the window")
		}
		t.grainMs = ms
	}
	if n := values["max_items"]; n != nil {
		items, _ := l.whole(n, "max_items", maxItemsMax)
		t.maxItems = int(items)
	}
}

func (l *loader) readFlags(n *yaml.Node) {
	if n == nil {
		return
	}
	values, keys, order := l.fields(n, "flags", nil)
	if len(order) > namedMax {
		l.fault(n, "more than %d flags", namedMax)
		return
	}
	for _, name := range order {
		l.named(keys[name])
		f := &l.rs.flags[l.compiler.flags[name]]
		f.name = name
		parts, _, _ := l.fields(values[name], "flag "+name, flagKeys)
		if values[name].Kind != yaml.MappingNode {
			continue
		}
		if e := parts["when"]; e == nil {
			l.fault(keys[name], "flag %s needs when", name)
		} else {
			f.when = l.expression(e, "flags."+name+".when", &l.all, wantCondition)
		}
		if e := parts["clear"]; e != nil {
			f.clear = l.expression(e, "flags."+name+".clear", &l.all, wantCondition)
		}
	}
}

// A want is the type that a place in the job file takes.
type want struct {
	message string
	kinds   []types.Kind
}

var (
	wantCondition = want{"a condition must be true or false", []types.Kind{types.BoolKind}}
	wantNumber    = want{"sum, min, max and avg take numbers", []types.Kind{types.DoubleKind}}
	wantScalar    = want{"last and list take numbers, text and booleans", []types.Kind{types.DoubleKind, types.StringKind, types.BoolKind}}
	wantID        = want{"the ID must be text", []types.Kind{types.StringKind}}
	wantTime      = want{"the time must be RFC 3339 text or a number of epoch milliseconds", []types.Kind{types.StringKind, types.DoubleKind, types.TimestampKind}}
)

// expression parses, checks and compiles one expression. Its faults are placed within the file.
func (l *loader) expression(n *yaml.Node, name string, sc *scope, w want) *program {
	text, ok := l.text(n, name)
	if !ok || l.full() {
		return nil
	}
	p, faults := parseExpr(text, sc)
	if len(faults) == 0 && !isDyn(p.root) && !slices.Contains(w.kinds, p.root.Kind()) {
		l.fault(n, "%s: this is %s", w.message, typeName(p.root))
		return nil
	}
	var compiled *program
	if len(faults) == 0 {
		compiled, faults = l.compile(name, text, p)
	}
	if compiled != nil {
		if l.steps += compiled.steps; l.steps > eventStepsMax && l.steps-compiled.steps <= eventStepsMax {
			l.fault(n, "all expressions up to here would take about %s steps on an event with lists of %d items, more than %d: use fewer macros", about(l.steps), listItemsAssumed, eventStepsMax)
		}
	}
	for _, f := range faults {
		line, column := l.place(n, f.offset)
		if l.cut[n] || f.syntax && looksCut(n) {
			f.message += "; quote the expression"
		}
		l.faultAt(line, column, f.message)
	}
	return compiled
}

func typeName(t *types.Type) string { return typeWords.Replace(t.String()) }

// looksCut sees an unquoted expression that lost its end: to a comma, or to a # that began a comment.
func looksCut(n *yaml.Node) bool {
	const quotes = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&quotes != 0 {
		return false
	}
	s := n.Value
	return strings.Count(s, "(") != strings.Count(s, ")") || strings.Count(s, "[") != strings.Count(s, "]") ||
		strings.Count(s, `"`)%2 != 0 || strings.Count(s, `'`)%2 != 0
}

// finish fills in what follows from all expressions together.
func (l *loader) finish() {
	rs := l.rs
	rs.paths, rs.scratch, rs.locals = l.paths, l.compiler.scratch, l.compiler.locals
	used, prior := map[int]bool{}, map[int]bool{}
	add := func(p *program) {
		if p == nil {
			return
		}
		for _, i := range p.totals {
			used[i] = true
		}
		for _, i := range p.priorTotals {
			prior[i] = true
		}
	}
	for i := range rs.totals {
		add(rs.totals[i].value)
		add(rs.totals[i].when)
	}
	for i := range rs.flags {
		f := &rs.flags[i]
		add(f.when)
		add(f.clear)
		f.whenWindows, f.clearWindows = rs.windowsOf(f.when), rs.windowsOf(f.clear)
	}
	rs.usedTotals, rs.usedPrior = sorted(used), sorted(prior)
	rs.schema.Job, rs.schema.InputTopic, rs.schema.Generation = rs.job.Name, rs.job.Input.Topic, 1
	rs.schema.Digest = rs.digest()
}

// windowsOf lists the windowed totals that p names, under totals or prior.totals.
func (rs *RuleSet) windowsOf(p *program) []int {
	if p == nil {
		return nil
	}
	windows := map[int]bool{}
	for _, i := range slices.Concat(p.totals, p.priorTotals) {
		if rs.totals[i].windowMs > 0 {
			windows[i] = true
		}
	}
	return sorted(windows)
}

func sorted(m map[int]bool) []int {
	var out []int
	for i := range m {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}
