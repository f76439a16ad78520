package rules

import "github.com/tidemark/tidemark/codecs"

// An event behind the ID's last time is put in its place: windows that end at its time, and at later entries while the
// event is inside, hold it too.

// priorAt fills in, for the totals' own expressions, the windows that end at the event's time.
func (a *Applier) priorAt(st *State, ms int64) {
	for _, i := range a.ruleWins {
		if !a.tooLate[i] {
			w := st.tallies[i].win
			a.spans[i].rebuild(w, w.rule.left(ms), w.rule.slot(ms))
		}
		a.window(st, i, &a.spans[i], false, 0)
	}
}

// anyEnd reports whether the flag's when holds at any of the event's ends. All windows are taken at the same end; a
// window that the event is too late for is null at each of them, and adds no end.
func (a *Applier) anyEnd(st *State, f *flag, ms int64) (bool, error) {
	open := false
	for _, i := range f.whenWindows {
		if a.tooLate[i] {
			a.env.totals[i], a.env.prior.totals[i] = codecs.Value{}, codecs.Value{}
			continue
		}
		w := st.tallies[i].win
		a.spans[i].rebuild(w, w.rule.left(ms), w.rule.slot(ms))
		open = true
	}
	for {
		for _, i := range f.whenWindows {
			if !a.tooLate[i] {
				a.window(st, i, &a.spans[i], false, 0)
				a.window(st, i, &a.spans[i], true, st.tallies[i].win.rule.slot(ms))
			}
		}
		if holds, err := f.when.test(a.env); err != nil || holds || !open {
			return holds, err
		}
		if !a.nextEnd(st, f, ms) {
			return false, nil
		}
	}
}

// nextEnd moves the spans of the flag to the next later entry, while the event is inside one of the windows there.
func (a *Applier) nextEnd(st *State, f *flag, ms int64) bool {
	end, more := int64(0), false
	for _, i := range f.whenWindows {
		s, w := &a.spans[i], st.tallies[i].win
		if a.tooLate[i] || s.r.chunk >= len(w.chunks) {
			continue
		}
		c, e := w.at(s.r)
		if !more || c.times[e] < end {
			end, more = c.times[e], true
		}
	}
	if !more {
		return false
	}
	inside := false
	for _, i := range f.whenWindows {
		if a.tooLate[i] {
			continue
		}
		w := st.tallies[i].win
		a.spans[i].advance(w, w.rule.left(end), w.rule.slot(end))
		inside = inside || w.rule.slot(ms) >= w.rule.left(end)
	}
	return inside
}
