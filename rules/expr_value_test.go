package rules

import (
	"strings"
	"testing"

	"github.com/tidemark/tidemark/codecs"
)

func TestExpr_Values(t *testing.T) {
	cases := []struct{ text, want string }{
		{"0.1 + 0.2 == 0.3", "true"},
		{"0.1 + 0.2", "0.3"},
		{"1e3 + 0x10 + 2u", "1018"},
		{"-5 - -3", "-2"},
		{"- 5 * 2", "-10"},
		{"event.big * event.big", "99999999999999999999999999999999980000000000000000000000000000000001"},
		{"event.big * event.big * event.big > 0", "true"},
		{"event.big * event.big * event.big * event.big", "ERROR"},
		{"decimal('0.1234567890123456789') * 2", "0.2469135780246913578"},
		{"decimal(event.amount) * 2 == 25", "true"},
		{"totals.n >= 7 && flags.up && !flags.down", "true"},
		{"prior.flags.up", "true"},
		{"prior.totals.n + prior.count", "9"},
		{"totals.l.size() == 2", "true"},
		{"totals.l[1]", "2"},
		{"totals.s", `"seen"`},
		{"totals.s == 'seen'", "true"},
		{"prior.totals.s", "null"},
		{"time - prior.last_time", "60000ms"},
		{"time - prior.last_time >= duration('1m')", "true"},
		{"prior.last_time + duration('60s') == time", "true"},
		{"duration('1d') - duration('24h')", "0ms"},
		{"-duration('1s')", "-1000ms"},
		{"id + '!'", `"an-id!"`},
		{"size('héllo')", "5"},
		{"string(true) + string(1.50) + string(time)", ""},
		{"time.getFullYear() * 100 + time.getMonth() + 1", "202311"},
		{"time.getHours()", "22"},
		{"time.getMilliseconds()", "123"},
		{"(time - prior.last_time).getSeconds()", "60"},
		{"duration('90m').getHours()", "1"},
		{"(-duration('1500ms')).getSeconds()", "-1"},
		{"{'a': 1, 'b': event.one}.b", "1"},
		{"{'a': 1} == {'a': event.one}", "true"},
		{"'a' in {'a': null}", "true"},
		{"event.list[0]", "3"},
		{"event.list[3]", "null"},
		{"event.list[-1]", "null"},
		{"event.list[0.5]", "null"},
		{"event.user['name'] == event.user.name", "true"},
		{"size(event)", "15"},
		{"event['o' + 'ne']", "1"},
		{"event.one == 1.000", "true"},
		{"1 < 2 == true", "true"},
		{"event.text.matches('l{2}')", "true"},
		{"matches(event.text, '^x')", "false"},
		{"1 in [1, 'a']", "true"},
		{"event.text in ['a','b','c','d','e','f','g','h','héllo']", "true"},
		{"[[1, 2], [3]] == [[1, 2], [3]]", "true"},
		{"event.one == 1 ? 'a' : 'b'", `"a"`},
		{"(event.yes ? event.no : event.yes) || event.yes", "true"},
		{"event.yes", "true"},
		{"timestamp('2026-01-01T00:00:00Z') > time", "true"},
		{"decimal(event.one)", "1"},
		{"[event.one, event.one + 1]", "[1 2]"},
	}
	for _, c := range cases {
		got := run(t, c.text)
		if c.want == "" {
			c.want = `"true1.5` + string(codecs.AppendTime(nil, 1_700_000_000_123)) + `"`
		}
		if got != c.want {
			t.Errorf("%s = %s, want %s", c.text, got, c.want)
		}
	}
}

func TestExpr_FirstEventHasNoLastTime(t *testing.T) {
	p, e := mustProgram(t, "time - prior.last_time > duration('1ms')")
	e.prior.hasLast = false
	if holds, err := p.test(e); holds || err != nil {
		t.Errorf("got %v, %v, want false", holds, err)
	}
	p, e = mustProgram(t, "prior.last_time == null")
	e.prior.hasLast = false
	if holds, err := p.test(e); !holds || err != nil {
		t.Errorf("got %v, %v, want true", holds, err)
	}
}

func TestExpr_StepsAreBounded(t *testing.T) {
	big := list()
	for range 2000 {
		big.Items = append(big.Items, num("1"))
	}
	for _, text := range []string{
		"event.big.all(a, event.big.all(b, event.big.all(c, a == b)))",
		"event.big.map(a, event.big.map(b, event.big + event.big)) == []",
		"event.big.all(a, event.big.all(b, event.big.all(c, a == b))) || true",
	} {
		p, e := mustProgram(t, text)
		for i := range e.event {
			e.event[i] = big
		}
		if _, err := p.test(e); err == nil || !strings.Contains(err.Error(), "too many steps") {
			t.Errorf("%s: got %v, want too many steps", text, err)
		}
	}
}

func TestExpr_SameInBothOrdersOfOperands(t *testing.T) {
	operands := []string{
		"event.one", "1.0", "0.5", "event.big", "event.text", "'héllo'", "'x'", "event.yes", "false", "event.nil", "event.text[0]",
		"event.list", "event.mixed", "event.holes", "[3, 1, 2]", "[3, null, 2]", "[3, 'x']", "event.user", "{'name': 'bob', 'age': 1}",
		"time", "timestamp('2026-01-01T00:00:00Z')", "duration('1s')", "totals.n", "prior.totals.s", "totals.l",
	}
	mirrored := map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
	for _, x := range operands {
		for _, y := range operands {
			for op, mirror := range mirrored {
				there, back := x+" "+op+" "+y, y+" "+mirror+" "+x
				_, _, faults1 := tryProgram(there)
				_, _, faults2 := tryProgram(back)
				if (len(faults1) == 0) != (len(faults2) == 0) {
					t.Errorf("%s is refused at load and %s is not, or the other way round", there, back)
				}
				if len(faults1)+len(faults2) > 0 {
					continue
				}
				if got, want := run(t, back), run(t, there); got != want {
					t.Errorf("%s = %s, but %s = %s", back, got, there, want)
				}
			}
			for _, op := range []string{"+", "*"} {
				there, back := x+" "+op+" "+y, y+" "+op+" "+x
				if _, _, faults := tryProgram(there); len(faults) > 0 {
					continue
				}
				got, want := run(t, back), run(t, there)
				if got != want && !strings.ContainsAny(got, `"[`) { // texts and lists have an order
					t.Errorf("%s = %s, but %s = %s", back, got, there, want)
				}
			}
		}
	}
}
