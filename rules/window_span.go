package rules

import "github.com/tidemark/tidemark/codecs"

// A span is what one window holds at one end: the entries from left to right, both included, and their aggregate. Its
// edges move forward at a cost of O(1) an entry; anything else is a rebuild over whole chunks.
type span struct {
	left, right int64
	l, r        place // first entry inside, first entry after; r is unused in window.now

	n    uint64         // count, avg: events inside
	sum  codecs.Decimal // sum, avg
	best []extreme      // min, max: those that no later one betters, in order of time
	from int            // of best: those before have left
}

// An extreme is a candidate for min or max.
type extreme struct {
	time int64
	num  codecs.Decimal
}

// An aggregate is what all entries of a chunk come to.
type aggregate struct {
	n   uint64
	num codecs.Decimal
}

// endless is the right edge of window.now: no entry lies beyond the last time.
const endless = 1<<62 - 1

// slide moves w.now to the window that ends at ms, forward or back.
func (w *window) slide(ms int64) {
	left := w.rule.left(ms)
	switch s := &w.now; {
	case left > s.left:
		s.drop(w, left)
	case left < s.left:
		s.rebuild(w, left, endless)
	}
}

// rebuild computes the span afresh, by whole chunks where it can.
func (s *span) rebuild(w *window, left, right int64) {
	s.left, s.right = left, right
	s.l, s.r = w.seek(left), w.seek(right+1)
	s.n, s.best, s.from = 0, s.best[:0], 0
	s.sum = codecs.Decimal{}
	if w.rule.kind.hasVals() {
		return
	}
	for c := min(s.r.chunk, len(w.chunks)-1); c >= s.l.chunk; c-- {
		part, lo, hi := w.chunks[c], 0, len(w.chunks[c].times)
		if c == s.r.chunk {
			hi = s.r.entry
		}
		if c == s.l.chunk {
			lo = s.l.entry
		}
		if lo == 0 && hi == len(part.times) && c < len(w.chunks)-1 && s.takeWhole(w.rule, part) {
			continue
		}
		for e := hi - 1; e >= lo; e-- {
			s.takeOlder(w.rule, part, e)
		}
	}
	for i, j := 0, len(s.best)-1; i < j; i, j = i+1, j-1 {
		s.best[i], s.best[j] = s.best[j], s.best[i]
	}
}

// takeWhole takes a chunk by its aggregate. It answers false where single entries matter.
func (s *span) takeWhole(rule *total, c *chunk) bool {
	whole := c.aggregate(rule)
	switch rule.kind {
	case kindCount:
		s.n += whole.n
	case kindSum, kindAvg:
		s.n += whole.n
		mustAdd(&s.sum, &s.sum, &whole.num)
	case kindMin, kindMax:
		return len(s.best) > 0 && !better(rule.kind, &whole.num, &s.best[len(s.best)-1].num)
	}
	return true
}

// takeOlder takes an entry that lies before all taken so far. best is in reverse while a span is rebuilt.
func (s *span) takeOlder(rule *total, c *chunk, e int) {
	switch rule.kind {
	case kindCount:
		s.n += c.counts[e]
	case kindAvg:
		s.n += c.counts[e]
		mustAdd(&s.sum, &s.sum, &c.nums[e])
	case kindSum:
		mustAdd(&s.sum, &s.sum, &c.nums[e])
	case kindMin, kindMax:
		if len(s.best) == 0 || better(rule.kind, &c.nums[e], &s.best[len(s.best)-1].num) {
			s.best = append(s.best, extreme{c.times[e], c.nums[e]})
		}
	}
}

func (c *chunk) aggregate(rule *total) *aggregate {
	if c.summed {
		return &c.whole
	}
	c.whole, c.summed = aggregate{}, true
	for e := range c.times {
		if rule.kind.hasCounts() {
			c.whole.n += c.counts[e]
		}
		switch rule.kind {
		case kindSum, kindAvg:
			mustAdd(&c.whole.num, &c.whole.num, &c.nums[e])
		case kindMin, kindMax:
			if e == 0 || better(rule.kind, &c.nums[e], &c.whole.num) {
				c.whole.num = c.nums[e]
			}
		}
	}
	return &c.whole
}

// advance moves both edges forward. The window must not have changed since the rebuild.
func (s *span) advance(w *window, left, right int64) {
	s.right = right
	for s.r.chunk < len(w.chunks) {
		c, e := w.at(s.r)
		if c.times[e] > right {
			break
		}
		s.takeNewer(w.rule, c, e)
		s.r = w.next(s.r)
	}
	if left > s.left {
		s.drop(w, left)
	}
}

func (s *span) takeNewer(rule *total, c *chunk, e int) {
	switch rule.kind {
	case kindCount:
		s.n += c.counts[e]
	case kindAvg:
		s.n += c.counts[e]
		mustAdd(&s.sum, &s.sum, &c.nums[e])
	case kindSum:
		mustAdd(&s.sum, &s.sum, &c.nums[e])
	case kindMin, kindMax:
		s.push(rule.kind, c.times[e], &c.nums[e])
	}
}

// drop moves the left edge forward.
func (s *span) drop(w *window, left int64) {
	s.left = left
	moved := false
	for s.l.chunk < len(w.chunks) {
		c, e := w.at(s.l)
		if c.times[e] >= left {
			break
		}
		moved = true
		switch w.rule.kind {
		case kindCount:
			s.n -= c.counts[e]
		case kindAvg:
			s.n -= c.counts[e]
			mustSub(&s.sum, &s.sum, &c.nums[e])
		case kindSum:
			mustSub(&s.sum, &s.sum, &c.nums[e])
		}
		s.l = w.next(s.l)
	}
	if !moved {
		return
	}
	for s.from < len(s.best) && s.best[s.from].time < left {
		s.from++
	}
	if s.from == len(s.best) {
		s.best, s.from = s.best[:0], 0
	}
	if s.l.chunk == len(w.chunks) {
		s.sum = codecs.Decimal{} // decimals that have left leave no trailing zeros behind
	}
}

// push adds a candidate at its place in time, and lets those go that it betters and that leave before it.
func (s *span) push(kind totalKind, time int64, num *codecs.Decimal) {
	at := len(s.best)
	for at > s.from && s.best[at-1].time > time {
		at--
	}
	if at < len(s.best) && !better(kind, num, &s.best[at].num) {
		return
	}
	if at > s.from && s.best[at-1].time == time && !better(kind, num, &s.best[at-1].num) {
		return
	}
	low := at
	for low > s.from && !better(kind, &s.best[low-1].num, num) {
		low--
	}
	one := extreme{time: time, num: *num}
	if low < at {
		s.best[low] = one
		s.best = append(s.best[:low+1], s.best[at:]...)
		return
	}
	if s.from > 0 && len(s.best) == cap(s.best) {
		s.best = append(s.best[:0], s.best[s.from:]...)
		at, s.from = at-s.from, 0
	}
	s.best = insertAt(s.best, at, one)
}

// counted tells w.now that a contribution entered the window at slot. Places may have moved: moved says so.
func (w *window) counted(slot int64, by *contribution, moved bool) {
	s := &w.now
	if slot >= s.left {
		switch w.rule.kind {
		case kindCount:
			s.n++
		case kindAvg:
			s.n++
			mustAdd(&s.sum, &s.sum, &by.num)
		case kindSum:
			mustAdd(&s.sum, &s.sum, &by.num)
		case kindMin, kindMax:
			s.push(w.rule.kind, slot, &by.num)
		}
	}
	if moved {
		s.l = w.seek(s.left)
	}
}

// better reports whether x takes the place of y as the min or the max.
func better(kind totalKind, x, y *codecs.Decimal) bool {
	if kind == kindMin {
		return x.Cmp(y) < 0
	}
	return x.Cmp(y) > 0
}

// mustAdd and mustSub cannot fail: what a total takes is bounded (contribution), so that any sum fits the digits carried.
func mustAdd(z, x, y *codecs.Decimal) {
	if err := z.Add(x, y); err != nil {
		panic("rules: a sum outgrew its digits: " + err.Error())
	}
}

func mustSub(z, x, y *codecs.Decimal) {
	if err := z.Sub(x, y); err != nil {
		panic("rules: a sum outgrew its digits: " + err.Error())
	}
}
