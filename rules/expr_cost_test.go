package rules

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/codecs"
)

func TestExpr_CostIsBoundedAtLoad(t *testing.T) {
	long := func(term string) string { return strings.Repeat(term+" || ", 150) + term }
	for _, c := range []struct{ text, want string }{
		{"event.a.all(x, x > 1)", ""},
		{"event.a.all(x, event.b.exists(y, event.c.exists(z, x == y)))", ""},
		{"event.a.all(x, event.b.exists(y, " + long("x == y") + "))", ""},
		{"event.a.all(x, event.b.exists(y, event.c.exists(z, " + long("x == y") + ")))", "this would take about 76000000 steps on an event with lists of 100 items, more than 1048576"},
		{"event.a.map(x, event.b.map(y, event.c.filter(z, " + long("x == y") + "))) == []", "this would take about"},
		{"[1, 2].all(x, [1, 2].all(y, event.c.exists(z, " + long("x == y") + ")))", ""}, // the items are known
		{`event.s.matches("` + strings.Repeat("x?", 450) + `")`, ""},
		{`event.s.matches("(x?){900}(x?){900}")`, "its repetitions unfold to 7202 instructions, more than 2000"},
	} {
		_, _, faults := tryProgram(c.text)
		got := fmt.Sprint(faults)
		if c.want == "" && len(faults) > 0 || !strings.Contains(got, c.want) {
			t.Errorf("%.90s: got %s, want %q", c.text, got, c.want)
		}
	}
}

// A job is refused where every expression alone is affordable, but not all of them for one event.
func TestLoad_CostOfAllExpressionsIsBounded(t *testing.T) {
	const dear = "event.a.exists(x, event.b.exists(y, event.c.exists(z, x == y)))" // about 2^20 steps
	src := func(n int) string {
		return "name: x\ninput: {topic: t}\nflags:\n" + rows(n, func(i int) string {
			return fmt.Sprintf("  f%03d: {when: '%s'}\n", i, dear)
		})
	}
	if _, err := Load([]byte(src(16))); err != nil {
		t.Errorf("16 dear flags: %v", err)
	}
	_, err := Load([]byte(src(40)))
	if err == nil || strings.Count(err.Error(), "all expressions up to here would take about 17000000 steps") != 1 {
		t.Errorf("40 dear flags: got %v, want one fault at the one that is too many", err)
	}
}

// A loop pays for what its body holds, a pattern for what it unfolds to: else a run within the bound of steps takes
// seconds. The control is the same run with a body, or a pattern, that is small.
func TestExpr_StepsPayForTheBodyOfALoopAndForAPattern(t *testing.T) {
	items := list()
	for range 100_000 {
		items.Items = append(items.Items, num("1"))
	}
	wide := strings.Repeat("x * x * x > 0 && ", 500) + "true"
	letters := text(strings.Repeat("x", 100_000))
	for _, macro := range []string{"%s.all(x, %s)", "%s.exists_one(x, !(%s))", "%s.filter(x, %s) == []", "%s.map(x, %s, x) == []"} {
		bounded(t, fmt.Sprintf(macro, "event.big", "x > 0"), &items, false)
		bounded(t, fmt.Sprintf(macro, "event.big", wide), &items, true)
	}
	bounded(t, `event.text.matches("x+y")`, &letters, false)
	bounded(t, `event.text.matches("(x?){450}y")`, &letters, true)
}

func bounded(t *testing.T, expr string, value *codecs.Value, want bool) {
	t.Helper()
	p, e := mustProgram(t, expr)
	for i := range e.event {
		e.event[i] = *value
	}
	start := time.Now()
	_, err := p.value(e)
	if got := err != nil && strings.Contains(err.Error(), "too many steps"); got != want {
		t.Errorf("%.60s: got %v after %v, want too many steps: %v", expr, err, time.Since(start), want)
	}
}

func TestApply_StepsOfOneEventAreBoundedOverAllExpressions(t *testing.T) {
	src := "name: x\ninput: {topic: t}\nflags:\n" + rows(60, func(i int) string {
		return fmt.Sprintf("  f%03d: {when: 'event.l.exists(x, x > 1)'}\n", i)
	})
	rs, err := Load([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	apply := func(items int) *Refusal {
		a := rs.NewApplier()
		value := `{"l":[` + strings.TrimSuffix(strings.Repeat("1,", items), ",") + `]}`
		if _, refusal := a.Read(&Record{Topic: "t", Key: []byte("id"), Value: []byte(value), TimestampMs: 1}); refusal != nil {
			t.Fatal(refusal)
		}
		_, refusal := a.Apply(rs.NewState())
		return refusal
	}
	if refusal := apply(1000); refusal != nil {
		t.Errorf("lists of 1,000 items: %v", refusal)
	}
	// 500,000 steps are within the bound of one expression, but 60 times of it are not within that of an event.
	if refusal := apply(500_000); refusal == nil || refusal.Reason != ReasonRule || !strings.Contains(refusal.Detail, "too many steps") {
		t.Errorf("lists of 500,000 items: got %v, want too many steps", refusal)
	}
}
