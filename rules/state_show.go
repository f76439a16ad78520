package rules

import "github.com/tidemark/tidemark/codecs"

// show gives the value of a total without a window.
func (t *tally) show(dst *codecs.Value, rule *total) {
	*dst = codecs.Value{}
	switch rule.kind {
	case kindCount:
		setCount(dst, t.n)
	case kindSum:
		setNum(dst, &t.num)
	case kindMin, kindMax:
		if t.n > 0 {
			setNum(dst, &t.num)
		}
	case kindAvg:
		setAvg(dst, &t.num, t.n)
	case kindLast:
		if len(t.vals) > 0 {
			*dst = t.vals[0]
		}
	case kindList:
		setList(dst, t.vals)
	}
}

// showWith is show as it will be once the event of time ms is counted. items and sum are scratch that dst may lie in.
func (t *tally) showWith(dst *codecs.Value, rule *total, ms int64, by *contribution, items *[]codecs.Value, sum *codecs.Decimal) {
	*dst = codecs.Value{}
	switch rule.kind {
	case kindCount:
		setCount(dst, t.n+1)
	case kindSum:
		mustAdd(sum, &t.num, &by.num)
		setNum(dst, sum)
	case kindMin, kindMax:
		setNum(dst, &t.num)
		if t.n == 0 || better(rule.kind, &by.num, &t.num) {
			setNum(dst, &by.num)
		}
	case kindAvg:
		mustAdd(sum, &t.num, &by.num)
		setAvg(dst, sum, t.n+1)
	case kindLast:
		*dst = by.val
		if len(t.vals) > 0 && t.times[0] > ms {
			*dst = t.vals[0]
		}
	case kindList:
		at, full := t.itemPlace(rule, ms)
		list := append(append((*items)[:0], t.vals[:at]...), by.val)
		list = append(list, t.vals[at:]...)
		*items = list
		if full {
			list = list[1:]
		}
		setList(dst, list)
	}
}

// show gives the value of a windowed total in span s. With by, an event of time ms is counted in that has not been
// inserted yet and lies inside the span.
func (w *window) show(dst *codecs.Value, s *span, by *contribution, ms int64, items *[]codecs.Value, sum *codecs.Decimal) {
	*dst = codecs.Value{}
	more := uint64(0)
	if by != nil {
		more = 1
	}
	switch w.rule.kind {
	case kindCount:
		setCount(dst, s.n+more)
	case kindSum, kindAvg:
		num := &s.sum
		if by != nil {
			mustAdd(sum, num, &by.num)
			num = sum
		}
		if w.rule.kind == kindSum {
			setNum(dst, num)
		} else {
			setAvg(dst, num, s.n+more)
		}
	case kindMin, kindMax:
		held := s.from < len(s.best)
		if held {
			setNum(dst, &s.best[s.from].num)
		}
		if by != nil && (!held || better(w.rule.kind, &by.num, &s.best[s.from].num)) {
			setNum(dst, &by.num)
		}
	case kindLast:
		w.showLast(dst, s, by, ms)
	case kindList:
		w.showList(dst, s, by, ms, items)
	}
}

func (w *window) showLast(dst *codecs.Value, s *span, by *contribution, ms int64) {
	at := w.stop(s)
	if at != s.l {
		c, e := w.at(w.before(at))
		if by == nil || c.times[e] > ms {
			*dst = c.vals[e]
			return
		}
	}
	if by != nil {
		*dst = by.val
	}
}

// showList gives the newest items, oldest first.
func (w *window) showList(dst *codecs.Value, s *span, by *contribution, ms int64, items *[]codecs.Value) {
	stop := w.stop(s)
	if by == nil && stop.chunk == s.l.chunk+1 && stop.entry == 0 { // the usual case: all in one chunk
		setList(dst, newestOf(w.chunks[s.l.chunk].vals[s.l.entry:], w.rule.maxItems))
		return
	}
	list := (*items)[:0]
	for at := stop; at != s.l && (w.rule.maxItems == 0 || len(list) < w.rule.maxItems); {
		before := w.before(at)
		c, e := w.at(before)
		if by != nil && c.times[e] <= ms {
			list, by = append(list, by.val), nil
			continue
		}
		list, at = append(list, c.vals[e]), before
	}
	if by != nil && (w.rule.maxItems == 0 || len(list) < w.rule.maxItems) {
		list = append(list, by.val)
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	*items = list
	setList(dst, list)
}

func newestOf(vals []codecs.Value, limit int) []codecs.Value {
	if limit > 0 && len(vals) > limit {
		return vals[len(vals)-limit:]
	}
	return vals
}

// stop is the first place after the span.
func (w *window) stop(s *span) place {
	if s == &w.now {
		return w.end()
	}
	return s.r
}

func (w *window) before(p place) place {
	if p.entry > 0 {
		return place{p.chunk, p.entry - 1}
	}
	return place{p.chunk - 1, len(w.chunks[p.chunk-1].times) - 1}
}

func setCount(dst *codecs.Value, n uint64) {
	dst.Kind = codecs.Number
	dst.Num = codecs.DecimalFromInt64(int64(n))
}

// setNum lets dst share the digits of x: they are read only.
func setNum(dst *codecs.Value, x *codecs.Decimal) {
	dst.Kind = codecs.Number
	dst.Num = *x
}

func setAvg(dst *codecs.Value, sum *codecs.Decimal, n uint64) {
	if n == 0 {
		return
	}
	dst.Kind = codecs.Number
	dst.Num = codecs.Decimal{}
	if err := dst.Num.Avg(sum, n); err != nil {
		panic("rules: an average outgrew its digits: " + err.Error())
	}
}

// setList shows an empty list as null, like every total without a value.
func setList(dst *codecs.Value, items []codecs.Value) {
	if len(items) == 0 {
		return
	}
	dst.Kind, dst.Items = codecs.List, items
}
