package chaos

import (
	"maps"
	"testing"
	"time"
)

// told is a short history of one ID, commits of its partition, and what a view may truly say of it. Event i lies at offset 10i
// and was acknowledged i seconds after the start.
func told(t *testing.T) (l *ledger, say func(version int) answer) {
	t.Helper()
	start := time.Unix(1000, 0)
	all, _ := lifeOf(t, 20)
	o := newOracle()
	o.facts = map[string][]*fact{}
	commits := map[uint64]int64{}
	states := map[int]found{0: {}}
	for i, e := range all {
		f := o.keep(e, false)
		o.fold(e, false)
		f.offset, f.acked = int64(10*i), start.Add(time.Duration(i)*time.Second)
		commits[uint64(i+1)] = int64(10*i + 5)
		states[i+1] = *folded(t, all[:i+1])
	}
	commits[0] = 0
	p := partitionOf("a", 4)
	l = newLedger(o, map[int32]map[uint64]int64{p: commits}, 4, func(*answer, string) {})
	return l, func(version int) answer {
		return answer{
			view: "v", id: "a", asked: start.Add(time.Hour), version: uint64(version), holds: states[version], age: time.Hour,
			asOf: place{p, uint64(version), commits[uint64(version)]},
		}
	}
}

func TestLedger_BelievesWhatIsTrue(t *testing.T) {
	l, say := told(t)
	var answers []answer
	for version := range 21 {
		answers = append(answers, say(version), say(version))
	}
	unknown := say(20)
	unknown.age = -1
	if l.judge(append(answers, unknown)); len(l.reports) > 0 {
		t.Errorf("convicts true answers: %v", l.reports)
	}
}

func TestLedger_ConvictsEachKindOfWrongAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(a *answer)
		want map[string]int
	}{
		"a version that goes back":           {func(a *answer) { a.version, a.holds, a.asOf = 0, found{}, place{a.asOf.partition, 0, 0} }, map[string]int{wentBack: 1}},
		"a commit that there never was":      {func(a *answer) { a.asOf.commit = 77 }, map[string]int{uncommitted: 1}},
		"a commit of another position":       {func(a *answer) { a.asOf.position++ }, map[string]int{uncommitted: 1}},
		"another partition":                  {func(a *answer) { a.asOf.partition++ }, map[string]int{uncommitted: 1}},
		"half a commit, or an event lost":    {func(a *answer) { a.asOf.commit, a.asOf.position = 8, 75 }, map[string]int{incomplete: 1}},
		"an event too many":                  {func(a *answer) { a.asOf.commit, a.asOf.position = 6, 55 }, map[string]int{incomplete: 1}},
		"one event for another":              {func(a *answer) { a.holds.hash = "1" }, map[string]int{wrongValue: 1}},
		"a flag that is not raised":          {func(a *answer) { a.holds.busy = !a.holds.busy }, map[string]int{wrongValue: 1}},
		"younger than it is":                 {func(a *answer) { a.age -= 8 * time.Second }, map[string]int{stale: 1}},
		"an ID that is missing, not waiting": {func(a *answer) { a.version, a.holds = 0, found{} }, map[string]int{wentBack: 1, incomplete: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l, say := told(t)
			lie := say(7)
			c.lie(&lie)
			if l.judge([]answer{say(3), say(7), lie}); !maps.Equal(l.reports, c.want) {
				t.Errorf("finds %v, want %v", l.reports, c.want)
			}
		})
	}
}

func TestLedger_OtherViewsAndIDsKeepTheirOwnOrder(t *testing.T) {
	l, say := told(t)
	other := say(3)
	other.view = "w"
	if l.judge([]answer{say(7)}); len(l.reports) > 0 {
		t.Fatal(l.reports)
	}
	if l.judge([]answer{other}); len(l.reports) > 0 {
		t.Errorf("one view is held to what another said: %v", l.reports)
	}
}
