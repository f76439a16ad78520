package rules

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
)

// Random jobs and histories for the model. Values have at most three decimals.

type generator struct {
	*rand.Rand
	m        *model
	lateness int64 // of the job; -1: default
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

func newGenerator(seed uint64) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 17)), m: &model{raised: map[string]mwhy{}}}
	g.lateness = pick[int64](g, -1, -1, 0, 3000, 10_000, 60_000)
	for i := range 1 + g.IntN(5) {
		g.m.totals = append(g.m.totals, g.total(fmt.Sprintf("t%d", i)))
	}
	for i := range g.IntN(4) {
		g.m.flags = append(g.m.flags, mflag{name: fmt.Sprintf("f%d", i)})
	}
	for i := range g.m.totals {
		t := &g.m.totals[i]
		if t.kind != "count" {
			t.value = &mx{op: "event", text: pick(g, "v", "v", "s")}
			if t.kind != "last" && t.kind != "list" {
				t.value.text = "v"
				if g.IntN(5) == 0 {
					t.value = &mx{op: "*", args: []*mx{t.value, {op: "lit", text: "2.5"}}}
				}
			}
		}
		if g.IntN(2) == 0 {
			t.when = g.condition(2, "prior")
		}
	}
	for i := range g.m.flags {
		g.m.flags[i].when = g.condition(2, "total")
		if g.IntN(2) == 0 {
			g.m.flags[i].clear = g.condition(2, "total")
		}
	}
	return g
}

func (g *generator) total(name string) mtotal {
	t := mtotal{name: name, kind: pick(g, "count", "sum", "min", "max", "avg", "last", "list")}
	scalar := t.kind == "last" || t.kind == "list"
	if g.IntN(3) > 0 {
		t.window = pick[int64](g, 2000, 10_000, 10_000, 30_000)
		t.lateness = g.lateness
		if g.lateness < 0 {
			t.lateness = t.window
		}
		if !scalar && g.IntN(4) == 0 {
			t.grain = pick[int64](g, 1000, 2000)
		}
	}
	if t.kind == "list" && (t.window == 0 || g.IntN(2) == 0) {
		t.maxItems = 1 + g.IntN(5)
	}
	return t
}

// condition makes one that compiles; on events with odd fields it may still fail.
func (g *generator) condition(depth int, totals string) *mx {
	if depth > 0 && g.IntN(3) == 0 {
		a, b := g.condition(depth-1, totals), g.condition(depth-1, totals)
		switch op := pick(g, "&&", "||", "!", "?"); op {
		case "!":
			return &mx{op: op, args: []*mx{a}}
		case "?":
			return &mx{op: op, args: []*mx{a, b, g.condition(depth-1, totals)}}
		default:
			return &mx{op: op, args: []*mx{a, b}}
		}
	}
	switch g.IntN(12) {
	case 0:
		return &mx{op: pick(g, "==", "!="), args: []*mx{{op: "event", text: "k"}, {op: "str", text: pick(g, "a", "b")}}}
	case 1:
		return &mx{op: "gap", ms: pick[int64](g, 0, 2000, 8000)}
	case 2:
		if len(g.m.flags) > 0 {
			return &mx{op: "flag", text: pick(g, g.m.flags...).name}
		}
		return &mx{op: pick(g, "has", "isnull"), args: []*mx{{op: "event", text: pick(g, "v", "k", "s")}}}
	case 3:
		return &mx{op: "has", args: []*mx{{op: g.which(totals), text: pick(g, g.m.totals...).name}}}
	}
	return &mx{op: pick(g, ">", ">=", "<", "<="), args: []*mx{g.number(1, totals), g.number(1, totals)}}
}

func (g *generator) which(totals string) string {
	if totals == "prior" {
		return "prior"
	}
	return pick(g, "total", "total", "prior")
}

func (g *generator) number(depth int, totals string) *mx {
	if depth > 0 && g.IntN(4) == 0 {
		return &mx{op: pick(g, "+", "-", "*"), args: []*mx{g.number(0, totals), g.number(0, totals)}}
	}
	switch g.IntN(8) {
	case 0:
		return &mx{op: "lit", text: pick(g, "0", "1", "2", "3", "5", "0.5", "7.25")}
	case 1:
		return &mx{op: "event", text: "v"}
	case 2:
		return &mx{op: "count"}
	}
	t := pick(g, g.m.totals...)
	x := &mx{op: g.which(totals), text: t.name}
	switch t.kind {
	case "list":
		return &mx{op: "size", args: []*mx{x}}
	case "last":
		return &mx{op: "lit", text: pick(g, "1", "2", "4")}
	}
	return x
}

// text spells the expression as a rule.
func (x *mx) spell() string {
	args := make([]string, len(x.args))
	for i, a := range x.args {
		args[i] = a.spell()
	}
	switch x.op {
	case "lit":
		return x.text
	case "str":
		return fmt.Sprintf("%q", x.text)
	case "event":
		return "event." + x.text
	case "total":
		return "totals." + x.text
	case "prior":
		return "prior.totals." + x.text
	case "flag":
		return "flags." + x.text
	case "count":
		return "prior.count"
	case "gap":
		return fmt.Sprintf(`(time - prior.last_time > duration("%dms"))`, x.ms)
	case "isnull":
		return "(" + args[0] + " == null)"
	case "has", "size":
		return x.op + "(" + args[0] + ")"
	case "!":
		return "!(" + args[0] + ")"
	case "?":
		return "((" + args[0] + ") ? (" + args[1] + ") : (" + args[2] + "))"
	}
	return "(" + args[0] + " " + x.op + " " + args[1] + ")"
}

// jobFile spells the job.
func (g *generator) jobFile() string {
	var b strings.Builder
	b.WriteString("name: model\ninput:\n  topic: in\n  id: event.id\n  time: event.t\n  max_ahead: 100000d\n")
	if g.lateness >= 0 {
		fmt.Fprintf(&b, "  allowed_lateness: %dms\n", g.lateness)
	}
	b.WriteString("totals:\n")
	for _, t := range g.m.totals {
		fmt.Fprintf(&b, "  %s: {%s: ", t.name, t.kind)
		if t.kind == "count" {
			b.WriteString("true")
		} else {
			fmt.Fprintf(&b, "'%s'", t.value.spell())
		}
		if t.when != nil {
			fmt.Fprintf(&b, ", when: '%s'", t.when.spell())
		}
		for _, key := range []struct {
			name string
			ms   int64
		}{{"window", t.window}, {"grain", t.grain}} {
			if key.ms > 0 {
				fmt.Fprintf(&b, ", %s: %dms", key.name, key.ms)
			}
		}
		if t.maxItems > 0 {
			fmt.Fprintf(&b, ", max_items: %d", t.maxItems)
		}
		b.WriteString("}\n")
	}
	if len(g.m.flags) > 0 {
		b.WriteString("flags:\n")
	}
	for _, f := range g.m.flags {
		fmt.Fprintf(&b, "  %s: {when: '%s'", f.name, f.when.spell())
		if f.clear != nil {
			fmt.Fprintf(&b, ", clear: '%s'", f.clear.spell())
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// event makes the next event and its JSON. now is the greatest time so far.
func (g *generator) event(now int64, offset int64) (*mevent, string) {
	ms := now
	switch r := g.IntN(100); {
	case r < 50:
		ms += int64(g.IntN(8)) * 500
	case r < 62: // tie
	case r < 90:
		ms -= int64(g.IntN(40)) * 500
	case r < 94:
		ms -= int64(g.IntN(90_000))
	case r < 97:
		ms += int64(g.IntN(3000))
	default:
		ms += 20_000 + int64(g.IntN(60_000))
	}
	ev := &mevent{ms: ms, offset: offset, fields: map[string]mval{}}
	members := []string{`"id":"x"`, fmt.Sprintf(`"t":%d`, ms)}
	add := func(name, text string, v mval) {
		members = append(members, fmt.Sprintf("%q:%s", name, text))
		ev.fields[name] = v
	}
	switch r := g.IntN(20); {
	case r < 16:
		text, n := g.decimal()
		add("v", text, mnum(n))
	case r < 18:
		add("v", "null", mval{})
	case r == 18 && g.IntN(8) == 0:
		add("v", `{"w":1}`, mval{kind: 'm'})
	}
	if g.IntN(5) > 0 {
		k := pick(g, "a", "b", "c")
		add("k", `"`+k+`"`, mval{kind: 's', s: k})
	}
	switch g.IntN(5) {
	case 0:
		text, n := g.decimal()
		add("s", text, mnum(n))
	case 1, 2:
		s := strings.Repeat(pick(g, "x", "ü"), g.IntN(12))
		add("s", `"`+s+`"`, mval{kind: 's', s: s})
	case 3:
		b := g.IntN(2) == 0
		add("s", fmt.Sprint(b), mbool(b))
	}
	g.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return ev, "{" + strings.Join(members, ",") + "}"
}

func (g *generator) decimal() (string, *big.Rat) {
	text := fmt.Sprint(g.IntN(12) - 3)
	if g.IntN(3) == 0 {
		text += fmt.Sprintf(".%0*d", 1+g.IntN(3), g.IntN(10))
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		panic(text)
	}
	return text, r
}
