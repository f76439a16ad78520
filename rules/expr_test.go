package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark/tidemark/codecs"
)

// testScope knows totals n (a number), s (of any scalar), l (a list) and the flags up and down.
func testScope() (*scope, *compiler) {
	sc := &scope{totals: map[string]typeOf{"n": number, "s": anyType, "l": anyList}, flags: set("up", "down")}
	c := &compiler{totals: map[string]int{"l": 0, "n": 1, "s": 2}, flags: map[string]int{"down": 0, "up": 1}, slots: map[string]int{}}
	return sc, c
}

func tryProgram(text string) (*program, *compiler, []exprFault) {
	sc, c := testScope()
	p, faults := parseExpr(text, sc)
	if len(faults) > 0 {
		return nil, nil, faults
	}
	compiled, faults := c.compile("test", text, p)
	return compiled, c, faults
}

func mustProgram(t testing.TB, text string) (*program, *env) {
	t.Helper()
	p, c, faults := tryProgram(text)
	if len(faults) > 0 {
		t.Fatalf("%s: %v", text, faults)
	}
	rs := &RuleSet{paths: c.paths, totals: make([]total, 3), flags: make([]flag, 2), scratch: c.scratch, locals: c.locals}
	e := rs.newEnv()
	for i, path := range c.paths {
		e.event[i] = *descend(testEvent(), path)
	}
	e.timeMs, e.id = 1_700_000_000_123, "an-id"
	e.totals[0] = list(num("1"), num("2"))
	e.totals[1] = num("7")
	e.totals[2] = codecs.Value{Kind: codecs.String, Str: "seen"}
	e.flags[1] = true
	e.prior.totals[1] = num("6")
	e.prior.count, e.prior.lastMs, e.prior.hasLast = 3, e.timeMs-60_000, true
	return p, e
}

func num(text string) codecs.Value {
	d, err := codecs.ParseDecimal([]byte(text))
	if err != nil {
		panic(err)
	}
	return codecs.Value{Kind: codecs.Number, Num: d}
}
func text(s string) codecs.Value { return codecs.Value{Kind: codecs.String, Str: s} }
func list(items ...codecs.Value) codecs.Value {
	return codecs.Value{Kind: codecs.List, Items: items}
}

func testEvent() *codecs.Value {
	return &codecs.Value{Kind: codecs.Map, Members: []codecs.Member{
		{Name: "one", Value: num("1")},
		{Name: "big", Value: num("9999999999999999999999999999999999")},
		{Name: "text", Value: text("héllo")},
		{Name: "empty", Value: text("")},
		{Name: "amount", Value: text("12.50")},
		{Name: "when", Value: text("2026-01-31T23:59:59.5Z")},
		{Name: "yes", Value: *trueValue},
		{Name: "no", Value: *falseValue},
		{Name: "nil", Value: codecs.Value{}},
		{Name: "list", Value: list(num("3"), num("1"), num("2"))},
		{Name: "holes", Value: list(num("3"), codecs.Value{}, num("1"))},
		{Name: "mixed", Value: list(num("3"), text("x"))},
		{Name: "none", Value: list()},
		{Name: "truths", Value: list(*trueValue, codecs.Value{}, *falseValue)},
		{Name: "user", Value: codecs.Value{Kind: codecs.Map, Members: []codecs.Member{
			{Name: "name", Value: text("bob")}, {Name: "age", Value: codecs.Value{}},
		}}},
	}}
}

// descend is what the decoder does for a path.
func descend(v *codecs.Value, path codecs.Path) *codecs.Value {
	for _, name := range path {
		var below *codecs.Value
		for i := range v.Members {
			if v.Members[i].Name == name {
				below = &v.Members[i].Value
			}
		}
		if v = below; v == nil {
			return &codecs.Value{}
		}
	}
	return v
}

// show spells a result: null, an error as ERROR, or the value.
func show(v *codecs.Value) string {
	switch v.Kind {
	case codecs.Bool:
		return fmt.Sprint(v.Bool)
	case codecs.Number:
		return v.Num.String()
	case codecs.String:
		return fmt.Sprintf("%q", v.Str)
	case codecs.Time:
		return string(codecs.AppendTime(nil, v.Int))
	case codecs.Duration:
		return fmt.Sprintf("%dms", v.Int)
	case codecs.List:
		var parts []string
		for i := range v.Items {
			parts = append(parts, show(&v.Items[i]))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case codecs.Map:
		var parts []string
		for i := range v.Members {
			parts = append(parts, v.Members[i].Name+":"+show(&v.Members[i].Value))
		}
		return "{" + strings.Join(parts, " ") + "}"
	}
	return "null"
}

func run(t testing.TB, text string) string {
	t.Helper()
	p, e := mustProgram(t, text)
	v, err := p.value(e)
	if err != nil {
		return "ERROR"
	}
	got := show(v)
	again, err := p.value(e)
	if err != nil || show(again) != got {
		t.Errorf("%s: a second run differs", text)
	}
	return got
}

// Operands of the null table. Each is a type known only at run time, as the fields of an event are.
const (
	nullOf  = "event.nil"
	errorOf = "event.text[0]"
	failing = "(event.text < 1)"
)

func TestExpr_StrictOperatorsFollowTheNullTable(t *testing.T) {
	type op struct{ form, x, y, want string } // form with two places, and good operands
	ops := []op{
		{"%s + %s", "event.one", "2", "3"},
		{"%s - %s", "event.one", "2", "-1"},
		{"%s * %s", "event.one", "2", "2"},
		{"%s < %s", "event.one", "2", "true"},
		{"%s <= %s", "event.one", "2", "true"},
		{"%s > %s", "event.one", "2", "false"},
		{"%s >= %s", "event.one", "2", "false"},
		{"%s == %s", "event.one", "2", "false"},
		{"%s != %s", "event.one", "2", "true"},
		{"%s == %s", "event.text", "'x'", "false"},
		{"%s != %s", "event.text", "'x'", "true"},
		{"%s + %s", "event.text", "'x'", `"héllox"`},
		{"%s < %s", "event.text", "'x'", "true"},
		{"%s < %s", "event.no", "event.yes", "true"},
		{"%s == %s", "event.list", "[3, 1, 2]", "true"},
		{"%s + %s", "event.list", "[4]", "[3 1 2 4]"},
		{"%s in %s", "event.one", "event.list", "true"},
		{"%s in %s", "event.text", "['x', 'y']", "false"},
		{"%s in %s", "'name'", "event.user", "true"},
		{"%s[%s]", "event.list", "event.one", "1"},
		{"%s[%s]", "event.user", "string('name')", `"bob"`},
		{"%s.contains(%s)", "event.text", "'l'", "true"},
		{"%s.startsWith(%s)", "event.text", "'h'", "true"},
		{"%s.endsWith(%s)", "event.text", "'h'", "false"},
		{"time - duration(%s) < timestamp(%s)", "string('1s')", "event.when", "true"},
	}
	for _, o := range ops {
		sides := []struct{ x, y, want string }{
			{o.x, o.y, o.want},
			{nullOf, o.y, "null"},
			{o.x, nullOf, "null"},
			{nullOf, nullOf, "null"},
			{errorOf, o.y, "ERROR"},
			{o.x, errorOf, "ERROR"},
			{errorOf, nullOf, "ERROR"},
			{nullOf, errorOf, "ERROR"},
			{errorOf, errorOf, "ERROR"},
		}
		for _, s := range sides {
			text := fmt.Sprintf(o.form, s.x, s.y)
			if got := run(t, text); got != s.want {
				t.Errorf("%s = %s, want %s", text, got, s.want)
			}
		}
	}
}

func TestExpr_UnaryFunctionsFollowTheNullTable(t *testing.T) {
	ops := []struct{ form, x, want string }{
		{"-%s", "event.one", "-1"},
		{"!%s", "event.yes", "false"},
		{"size(%s)", "event.text", "5"},
		{"%s.size()", "event.list", "3"},
		{"decimal(%s)", "event.amount", "12.5"},
		{"string(%s)", "event.one", `"1"`},
		{"timestamp(%s)", "event.when", show(&codecs.Value{Kind: codecs.Time, Int: 1769903999500})},
		{"duration(%s)", "string('2h')", "7200000ms"},
		{"timestamp(%s).getDayOfMonth()", "event.when", "30"},
		{"%s.matches('^h.*o$')", "event.text", "true"},
		{"%s.name", "event['u' + 'ser']", `"bob"`},
		{"%s ? 1 : 2", "event.no", "2"},
		{"%s.all(x, x > 0)", "event.list", "true"},
		{"%s.exists(x, x > 2)", "event.list", "true"},
		{"%s.exists_one(x, x > 2)", "event.list", "true"},
		{"%s.map(x, x * 2)", "event.list", "[6 2 4]"},
		{"%s.filter(x, x > 1)", "event.list", "[3 2]"},
	}
	for _, o := range ops {
		for _, s := range [][2]string{{o.x, o.want}, {nullOf, "null"}, {"null", "null"}, {errorOf, "ERROR"}} {
			text := fmt.Sprintf(o.form, s[0])
			if got := run(t, text); got != s[1] {
				t.Errorf("%s = %s, want %s", text, got, s[1])
			}
		}
	}
}

func TestExpr_LogicFollowsTheNullTable(t *testing.T) {
	operand := map[string]string{"T": "event.yes", "F": "event.no", "?": nullOf, "E": failing}
	spelled := map[string]string{"T": "true", "F": "false", "?": "null", "E": "ERROR"}
	tables := map[string]string{ // rows and columns T F ? E
		"&&": "TF?E FFFF ?F?E EFEE",
		"||": "TTTT TF?E T??E TEEE",
	}
	for op, table := range tables {
		for i, row := range strings.Fields(table) {
			for j, want := range row {
				text := fmt.Sprintf("%s %s %s", operand["TF?E"[i:i+1]], op, operand["TF?E"[j:j+1]])
				if got := run(t, text); got != spelled[string(want)] {
					t.Errorf("%s = %s, want %s", text, got, spelled[string(want)])
				}
				p, e := mustProgram(t, text)
				holds, err := p.test(e)
				if holds != (want == 'T') || (err != nil) != (want == 'E') {
					t.Errorf("test of %s = %v, %v", text, holds, err)
				}
			}
		}
	}
}

func TestExpr_OnlyNullItselfAndHasAskForNull(t *testing.T) {
	cases := []struct{ text, want string }{
		{"event.nil == null", "true"},
		{"null == event.nil", "true"},
		{"event.missing == null", "true"},
		{"event.one == null", "false"},
		{"event.nil != null", "false"},
		{"null != event.one", "true"},
		{"null == null", "true"},
		{"null != null", "false"},
		{"(event.nil + 1) == null", "true"},
		{failing + " == null", "ERROR"},
		{errorOf + " != null", "ERROR"},
		{"has(event.one)", "true"},
		{"has(event.nil)", "false"},
		{"has(event.missing)", "false"},
		{"has(event.missing.deeper)", "false"},
		{"has(event.user.age)", "false"},
		{"has(event['one'])", "true"},
		{"has(prior.last_time)", "true"},
		{"has(totals.n)", "true"},
		{"has(event.list[0])", "true"},
		{"has(event.list[9])", "false"},
		{"event.nil == event.nil", "null"},
		{"event.nil in [null]", "null"},
		{"1 in [null]", "null"},
		{"1 in [null, 1]", "true"},
		{"event.nil ? 1 : 2", "null"},
		{"true ? event.nil : 2", "null"},
		{failing + " ? 1 : 2", "ERROR"},
		{"true ? 1 : event.text * 2", "1"},
		{"event.nil ? event.text * 2 : 2", "null"},
		{"event.yes ? null : 1", "null"},
		{"[1, null] == [1, event.one]", "null"},
		{"[1, null] == [2, 2]", "false"},
		{"event.missing.deeper.still", "null"},
		{"event.nil.x == 1", "null"},
	}
	for _, c := range cases {
		if got := run(t, c.text); got != c.want {
			t.Errorf("%s = %s, want %s", c.text, got, c.want)
		}
	}
}

func TestExpr_ComparisonAbsorptionInLists(t *testing.T) {
	cases := []struct{ text, want string }{
		{"event.mixed.exists(x, x > 2)", "true"},
		{"event.mixed.exists(x, x > 5)", "ERROR"},
		{"event.mixed.all(x, x > 2)", "ERROR"},
		{"event.mixed.all(x, x > 5)", "false"},
		{"event.holes.exists(x, x > 2)", "true"},
		{"event.holes.exists(x, x > 5)", "null"},
		{"event.holes.all(x, x > 0)", "null"},
		{"event.holes.all(x, x > 2)", "false"},
		{"event.holes.exists_one(x, x > 2)", "true"},
		{"event.holes.filter(x, x > 0)", "[3 1]"},
		{"event.holes.map(x, x + 1)", "[4 null 2]"},
		{"event.mixed.map(x, x + 1)", "ERROR"},
		{"event.mixed.filter(x, x > 0)", "ERROR"},
		{"event.mixed.exists_one(x, x == 3)", "ERROR"},
		{"3 in event.mixed", "true"},
		{"4 in event.mixed", "ERROR"},
		{"4 in event.holes", "null"},
		{"3 in event.holes", "true"},
		{"4 in event.none", "false"},
		{"event.none.all(x, x)", "true"},
		{"event.none.exists(x, x)", "false"},
		{"event.truths.exists(x, x)", "true"},
		{"event.truths.all(x, x)", "false"},
		{"event.list.map(x, x > 1, x * 10)", "[30 20]"},
		{"event.user.map(k, k)", `["age" "name"]`},
		{"event.list.map(x, event.list.filter(y, y < x))", "[[1 2] [] [1]]"},
		{"event.list.map(x, x + 1).map(x, x * x)", "[16 4 9]"},
		{"event.list.all(x, event.list.exists(y, x == y))", "true"},
	}
	for _, c := range cases {
		if got := run(t, c.text); got != c.want {
			t.Errorf("%s = %s, want %s", c.text, got, c.want)
		}
	}
}

func TestExpr_WrongTypesAreErrors(t *testing.T) {
	for _, text := range []string{
		"event.one == 'x'", "event.text == 1", "event.text == event.one", "event.one < event.text", "event.one + event.text",
		"event.list < event.list", "event.yes + event.yes", "-event.text", "!event.one", "event.one && true", "event.text.size().x == 1",
		"event.one.contains('x')", "event.text[0]", "event.one in event.text", "event['u' + 'ser'].name.deeper", "decimal(event.text)",
		"timestamp(event.one)", "duration(event.text)", "event.user + 1", "event.one ? 1 : 2", "event.one.all(x, x)", "event.when - time",
		"size(event.one)", "string(event.list)", "event.user == event.list",
	} {
		p, _, faults := tryProgram(text)
		if p == nil {
			if text == "event.text.size().x == 1" {
				continue // the checker knows this one
			}
			t.Errorf("%s is refused at load: %v", text, faults)
			continue
		}
		if got := run(t, text); got != "ERROR" {
			t.Errorf("%s = %s, want an error", text, got)
		}
	}
}

func TestExpr_RefusedAtLoad(t *testing.T) {
	cases := []struct {
		text, want string
		offset     int
	}{
		{"1 / 2", "there is no division: multiply out", 2},
		{"event.x % 2", "there is no division: multiply out", 8},
		{"event.x == 0.1234567890123456789", `write decimal("0.1234567890123456789")`, 11},
		{"1e400 > 1", "1e400: not a number within the limits: magnitude of 1e34 or more", 0},
		{"event.x == 1e34", "1e34: not a number within the limits: magnitude of 1e34 or more", 11},
		{"event.x == 12345678901234567890123456789012345", "more than 34 significant digits", 11},
		{"12345678901234567890 > 1", `write decimal("12345678901234567890")`, 0},
		{"1 > -12345678901234567890", `write decimal("-12345678901234567890")`, 4},
		{"1 == -9007199254740993.5", `write decimal("-9007199254740993.5")`, 5},
		{"totals.nn > 1", `there is no total named nn; did you mean "n"?`, 0},
		{"1 == 1 && flags.upp", `there is no flag named upp; did you mean "up"?`, 10},
		{"totals > 1", "name a total", 0},
		{"prior.totals.x == 1", "there is no total named x", 0},
		{"prior.counts > 1", "prior has totals, flags, count and last_time", 0},
		{"nope > 1", "unknown name nope", 0},
		{"totals.n == 'x'", "== cannot take (number, string)", 9},
		{"totals.n.x == 1", "totals.n has no members", 0},
		{"time > 5", "> cannot take (timestamp, number)", 5},
		{"id + 1 == 'a'", "+ cannot take (string, number)", 3},
		{"int(event.x) > 1", "there is no int()", 3},
		{"dyn(1) == 1", "there is no dyn()", 3},
		{"foo(event.x)", "unknown function 'foo'", 3},
		{"event.x.matches(event.y)", "must be a constant text", 21},
		{"event.x.matches('(')", "missing closing )", 16},
		{"duration('1.5h') > duration('1h')", "is no duration", 9},
		{"timestamp('today') > time", "timestamp(", 10},
		{"decimal('1,5') > 1", "decimal(", 8},
		{"event.x.getHours('Europe/Berlin') == 1", "getHours cannot take", 16},
		{"event.l.all(event, event > 1)", "event cannot be the variable of a macro", 11},
		{"event.l.all(a, a.all(b, b.all(c, c.all(d, d))))", "macros are nested more than 3 deep", 38},
		{"event.l.all(1, true)", "must be a plain name", 12},
		{"has(event)", "has() asks for a field", 4},
		{"event.x ==", "the expression ends too early", 10},
		{"event.x == )", "')' is not expected here", 11},
		{"f(event.a", "missing ')' at the end", 9},
		{"event.x == 'a", "''a' cannot be read", 11},
		{"{1: 2} == event.x", "a key must be a constant text", 1},
		{"b'x' == event.x", "bytes have no meaning", 0},
		{"Foo{a: 1} == event.x", "messages cannot be built", 3},
	}
	for _, c := range cases {
		_, _, faults := tryProgram(c.text)
		if len(faults) != 1 || !strings.Contains(faults[0].message, c.want) || faults[0].offset != c.offset {
			t.Errorf("%s: got %+v, want one fault at %d with %q", c.text, faults, c.offset, c.want)
		}
	}
}

func TestExpr_NamesItsTotals(t *testing.T) {
	p, _ := mustProgram(t, "totals.s == 'x' || totals.l == [] || totals.s == 'y' || prior.totals.n > 1")
	if !slices.Equal(p.totals, []int{0, 2}) || !slices.Equal(p.priorTotals, []int{1}) {
		t.Errorf("got totals %v and prior %v, want [0 2] and [1]", p.totals, p.priorTotals)
	}
}
