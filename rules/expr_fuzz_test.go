package rules

import "testing"

func FuzzExpr(f *testing.F) {
	for _, seed := range []string{
		`event.type == "x" && totals.n >= 3`, `time - prior.last_time > duration("2h")`, `event.list.map(x, x * 2).exists(y, y in event.list)`,
		`has(event.user.name) ? event.user.name + id : string(totals.n)`, `decimal(event.amount) * 0.1 <= 1e3`, `[1, null] == [event.one, 2]`,
		`event.text.matches("a+") || !(event.holes.all(h, h > 1))`, `{"a": -1}["a"]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, _, faults := tryProgram(text)
		if len(faults) > 0 {
			return
		}
		_, e := mustProgram(t, text)
		first, err1 := p.value(e)
		shown := ""
		if err1 == nil {
			shown = show(first)
		}
		second, err2 := p.value(e)
		if (err1 == nil) != (err2 == nil) || err2 == nil && show(second) != shown {
			t.Errorf("two runs of %q differ", text)
		}
		if p.cond != nil {
			_, _ = p.test(e)
		}
	})
}

func BenchmarkExpr(b *testing.B) {
	for _, text := range []string{
		`event.text == "failed_password"`,
		`event.text == "héllo" && totals.n >= 3`,
		`event.one >= 90`,
		`prior.count >= 3 && event.one * prior.count > 3 * prior.totals.n`,
		`prior.count > 0 && time - prior.last_time > duration("2h")`,
		`event.text in ["accepted_password", "accepted_publickey"] && totals.n >= 3`,
		`event.list.exists(x, x == 2)`,
	} {
		b.Run(text, func(b *testing.B) {
			p, e := mustProgram(b, text)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.test(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
