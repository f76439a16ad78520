package chaos

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// lifeOf is events of one ID and what they come to.
func lifeOf(t *testing.T, n int) ([]*event, *expected) {
	t.Helper()
	rng, o := rand.New(rand.NewPCG(1, 1)), newOracle()
	var all []*event
	for i := range n {
		e := &event{id: "a", timeMs: int64(i) * 900, value: rng.Int64N(1000) - 300, hash: rng.Uint64N(1 << 48), hit: rng.IntN(3) == 0}
		o.fold(e, false)
		all = append(all, e)
	}
	x := o.ids["a"]
	if len(x.changes) < 2 {
		t.Fatalf("%d flag changes in the history, want some", len(x.changes))
	}
	return all, x
}

// folded is what the handwritten processor makes of the events.
func folded(t *testing.T, all []*event) *found {
	t.Helper()
	var st stockState
	var changes []change
	for _, e := range all {
		var read stockEvent
		if err := json.Unmarshal(e.appendJSON(nil), &read); err != nil {
			t.Fatalf("read an event: %v", err)
		}
		changed, err := st.fold(&read)
		if err != nil {
			t.Fatalf("fold: %v", err)
		}
		if changed {
			changes = append(changes, change{st.Count, st.Busy})
		}
	}
	f := st.found()
	f.changes = changes
	return f
}

func TestOracle_ConvictsWhatIsLostAndDoubled(t *testing.T) {
	all, x := lifeOf(t, 100)
	again := func(i int) []*event { return slices.Insert(slices.Clone(all), i+1, all[i]) }
	without := func(i int) []*event { return slices.Delete(slices.Clone(all), i, i+1) }
	both := slices.Delete(again(20), 60, 61)
	tests := map[string]struct {
		f             *found
		lost, doubled uint64
		wrong         bool
	}{
		"nothing":                      {folded(t, all), 0, 0, false},
		"missing":                      {nil, 100, 0, true},
		"one lost":                     {folded(t, without(50)), 1, 0, true},
		"one doubled":                  {folded(t, again(50)), 0, 1, true},
		"the last one lost":            {folded(t, without(99)), 1, 0, true},
		"one lost and another doubled": {folded(t, both), 1, 1, true},
		"a flag change twice":          {twice(folded(t, all)), 0, 0, true},
		"a flag change lost":           {oneLess(folded(t, all)), 0, 0, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			faults, lost, doubled := x.faults(test.f)
			if lost != test.lost || doubled != test.doubled || len(faults) > 0 != test.wrong {
				t.Errorf("lost %d doubled %d %v; want %d, %d, wrong %v", lost, doubled, faults, test.lost, test.doubled, test.wrong)
			}
		})
	}
}

func twice(f *found) *found {
	f.changes, f.changesAgain = append(f.changes, f.changes[len(f.changes)-1]), 1
	return f
}

func oneLess(f *found) *found {
	f.changes = f.changes[1:]
	return f
}

func TestCents_AreReadBack(t *testing.T) {
	for want := int64(-12_345); want < 12_345; want += 7 {
		got, err := hundredths(cents(want))
		if err != nil || got != want {
			t.Errorf("%s is read as %d, %v; want %d", cents(want), got, err, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 5: "0.05", -5: "-0.05", 120: "1.2", -1000: "-10"} {
		if got := cents(n); got != want {
			t.Errorf("cents(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestExplain_GivesAGapToTheFaultBeforeIt(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	marks := []mark{{at(10), kindKill}, {at(12), markRestart}, {at(30), kindFreeze}, {at(34), kindTerm}, {at(60), kindTerm}}
	gaps := []gap{{0, at(5), at(6)}, {1, at(9.9), at(14)}, {2, at(30), at(36)}, {0, at(59.9), at(61.9)}}
	got := explain(marks, gaps)
	for kind, want := range map[string]float64{"none": 1, kindKill: 4.1, overlapping: 6, kindTerm: 2} {
		if g := got[kind]; g.N != 1 || fmt.Sprintf("%.1f", g.Max.Seconds()) != fmt.Sprintf("%.1f", want) {
			t.Errorf("%s: %+v, want one of %.1fs", kind, g, want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%v, want 4 kinds", got)
	}
}
