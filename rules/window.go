package rules

import (
	"slices"
	"sort"

	"github.com/tidemark/tidemark/codecs"
)

// chunkLimits say where chunks begin and end. The tail, which every event in order changes, travels with the ID's own
// record; the others lie under keys of their own and are written once, unless a late event falls into them.
type chunkLimits struct {
	tailEntries, chunkEntries int // most in the tail; how many a full tail seals off; a late event splits at twice as many
	tailBytes, chunkBytes     int64
}

// chunking is part of what states are: with other limits the same events give other bytes. Tests shrink it.
var chunking = chunkLimits{tailEntries: 64, chunkEntries: 48, tailBytes: 3 << 10, chunkBytes: 2 << 10}

// A window holds the entries of one windowed total of one ID, in the order (time, arrival). Equal instants are one
// entry for count, sum, min, max and avg. Where chunks begin and end is decided by the events alone, never by when the
// state was encoded.
type window struct {
	rule    *total
	chunks  []*chunk // none is empty; the last one is the tail
	numbers uint64   // given to chunks so far
	bytes   int64    // of all entries, as entryBytes counts them
	dropped []uint64 // numbers of chunks whose records are to be deleted
	now     span     // the window that ends at the ID's last time
}

// A chunk is a run of entries in columns; only those of its kind of total are filled.
type chunk struct {
	number uint64
	times  []int64
	counts []uint64         // count, avg
	nums   []codecs.Decimal // sum, avg, min, max
	vals   []codecs.Value   // last, list
	bytes  int64

	whole  aggregate // of all entries, when summed
	summed bool
	dirty  bool // differs from its record
	stored bool // has a record
}

// A contribution is what one event brings to one total.
type contribution struct {
	num   codecs.Decimal // sum, avg, min, max
	val   codecs.Value   // last, list
	bytes int64          // as an entry, or as an item of a list
}

// A place is the index of a chunk and of an entry in it. The end is (len(chunks), 0).
type place struct{ chunk, entry int }

func (k totalKind) hasCounts() bool { return k == kindCount || k == kindAvg }
func (k totalKind) hasNums() bool   { return k >= kindSum && k <= kindAvg }
func (k totalKind) hasVals() bool   { return k == kindLast || k == kindList }

// slot is where the total keeps an event of time ms: the time itself, or the grain that it falls into.
func (t *total) slot(ms int64) int64 {
	if t.grainMs == 0 {
		return ms
	}
	rest := ms % t.grainMs
	if rest < 0 {
		rest += t.grainMs
	}
	return ms - rest
}

// left is the lower edge of the window that ends at ms.
func (t *total) left(ms int64) int64 { return t.slot(ms) - t.windowMs }

// oldest is the time from which on entries are kept once the ID's last time is lastMs: no event that may still enter
// a window sees further back.
func (t *total) oldest(lastMs int64) int64 { return t.left(lastMs - t.latenessMs) }

func (w *window) end() place { return place{len(w.chunks), 0} }

func (w *window) at(p place) (*chunk, int) { return w.chunks[p.chunk], p.entry }

func (w *window) next(p place) place {
	if p.entry+1 < len(w.chunks[p.chunk].times) {
		return place{p.chunk, p.entry + 1}
	}
	return place{p.chunk + 1, 0}
}

// seek returns the first entry at or after ms.
func (w *window) seek(ms int64) place {
	n := len(w.chunks)
	if n == 0 {
		return place{}
	}
	if n == 1 { // the usual case, mostly near an end
		return w.within(0, ms)
	}
	c := sort.Search(n, func(i int) bool { return w.chunks[i].last() >= ms })
	if c == n {
		return w.end()
	}
	return w.within(c, ms)
}

func (w *window) within(c int, ms int64) place {
	times := w.chunks[c].times
	e := sort.Search(len(times), func(i int) bool { return times[i] >= ms })
	if e == len(times) {
		return place{c + 1, 0}
	}
	return place{c, e}
}

func (c *chunk) last() int64 { return c.times[len(c.times)-1] }

// newest returns the last entry's time.
func (w *window) newest() (int64, bool) {
	if len(w.chunks) == 0 {
		return 0, false
	}
	return w.chunks[len(w.chunks)-1].last(), true
}

// insert puts the contribution at the time slot, after entries of the same time, or into the one of that time. The
// caller has clipped what slid out of the window and tells w.now.
func (w *window) insert(slot int64, c *contribution) {
	if len(w.chunks) == 0 {
		w.open()
	}
	at := len(w.chunks) - 1
	if at > 0 && slot < w.chunks[at].times[0] {
		at = max(0, sort.Search(at, func(i int) bool { return w.chunks[i].times[0] > slot })-1)
	}
	into := w.chunks[at]
	before := into.bytes
	into.insert(w.rule, slot, c)
	into.dirty, into.summed = true, false
	w.bytes += into.bytes - before
	if at == len(w.chunks)-1 {
		w.seal()
	} else if len(into.times) > 2*chunking.chunkEntries || (into.bytes > 2*chunking.chunkBytes && len(into.times) > 1) {
		w.split(at)
	}
}

// open begins a tail, in the arrays of the one before where that has been emptied.
func (w *window) open() {
	if cap(w.chunks) > 0 && w.chunks[:1][0] != nil {
		w.chunks = w.chunks[:1]
		return
	}
	w.chunks = append(w.chunks, &chunk{})
}

func (c *chunk) insert(rule *total, slot int64, by *contribution) {
	e := len(c.times)
	for e > 0 && c.times[e-1] > slot {
		e--
	}
	if !rule.kind.hasVals() && e > 0 && c.times[e-1] == slot {
		c.merge(rule, e-1, by)
		return
	}
	c.bytes -= c.stepBytes(e - 1)
	c.times = insertAt(c.times, e, slot)
	if rule.kind.hasCounts() {
		c.counts = insertAt(c.counts, e, 1)
	}
	if rule.kind.hasNums() {
		c.nums = insertAt(c.nums, e, by.num)
	}
	if rule.kind.hasVals() {
		c.vals = insertAt(c.vals, e, codecs.Value{})
		retain(&c.vals[e], &by.val)
	}
	c.bytes += c.stepBytes(e-1) + c.entryBytes(rule, e)
}

// merge adds the contribution to the entry of the same instant.
func (c *chunk) merge(rule *total, e int, by *contribution) {
	c.bytes -= c.entryBytes(rule, e)
	if rule.kind.hasCounts() {
		c.counts[e]++
	}
	switch rule.kind {
	case kindSum, kindAvg:
		mustAdd(&c.nums[e], &c.nums[e], &by.num)
	case kindMin, kindMax:
		if better(rule.kind, &by.num, &c.nums[e]) {
			c.nums[e] = by.num
		}
	}
	c.bytes += c.entryBytes(rule, e)
}

// seal cuts the older part of an overfull tail off, under a number of its own. Some entries stay, so that events that
// are a little late do not touch what is sealed.
func (w *window) seal() {
	tail := w.chunks[len(w.chunks)-1]
	if len(tail.times) <= chunking.tailEntries && (tail.bytes <= chunking.tailBytes || len(tail.times) == 1) {
		return
	}
	cut, bytes := 0, int64(0)
	for cut < min(chunking.chunkEntries, len(tail.times)-1) && bytes < chunking.chunkBytes {
		bytes += tail.entryBytes(w.rule, cut)
		cut++
	}
	step := tail.stepBytes(cut - 1) // to an entry that is no longer beside it
	w.bytes -= step
	sealed := tail.cut(0, cut)
	sealed.bytes = bytes - step
	sealed.number = w.numbers
	sealed.dirty = true
	w.numbers++
	w.chunks[len(w.chunks)-1] = sealed
	rest := tail.cut(cut, len(tail.times))
	rest.bytes = tail.bytes - bytes
	w.chunks = append(w.chunks, rest)
}

// split halves a chunk that late events have filled.
func (w *window) split(at int) {
	old := w.chunks[at]
	cut, bytes := 0, int64(0)
	for cut < len(old.times)-1 && (cut == 0 || (cut < len(old.times)/2 && bytes < old.bytes/2)) {
		bytes += old.entryBytes(w.rule, cut)
		cut++
	}
	step := old.stepBytes(cut - 1)
	w.bytes -= step
	left, right := old.cut(0, cut), old.cut(cut, len(old.times))
	left.number, left.stored, left.bytes, left.dirty = old.number, old.stored, bytes-step, true
	right.number, right.bytes, right.dirty = w.numbers, old.bytes-bytes, true
	w.numbers++
	w.chunks[at] = left
	w.chunks = insertAt(w.chunks, at+1, right)
}

// cut copies a range of entries.
func (c *chunk) cut(from, to int) *chunk {
	return &chunk{
		times:  append([]int64(nil), c.times[from:to]...),
		counts: append([]uint64(nil), cutColumn(c.counts, from, to)...),
		nums:   append([]codecs.Decimal(nil), cutColumn(c.nums, from, to)...),
		vals:   append([]codecs.Value(nil), cutColumn(c.vals, from, to)...),
	}
}

// evict lets go of entries before oldest: of whole chunks only, and in the tail one by one. It reports whether places
// have moved.
func (w *window) evict(oldest int64) bool {
	gone := 0
	for gone < len(w.chunks)-1 && w.chunks[gone].last() < oldest {
		c := w.chunks[gone]
		w.bytes -= c.bytes
		if c.stored {
			w.dropped = append(w.dropped, c.number)
		}
		gone++
	}
	if gone > 0 {
		w.chunks = slices.Delete(w.chunks, 0, gone)
	}
	return (len(w.chunks) == 1 && w.trim(oldest)) || gone > 0
}

func (w *window) trim(oldest int64) bool {
	tail := w.chunks[0]
	n := 0
	for n < len(tail.times) && tail.times[n] < oldest {
		bytes := tail.entryBytes(w.rule, n)
		tail.bytes -= bytes
		w.bytes -= bytes
		n++
	}
	if n == 0 {
		return false
	}
	tail.summed = false
	tail.times = trimColumn(tail.times, n)
	tail.counts = trimColumn(tail.counts, n)
	tail.nums = trimColumn(tail.nums, n)
	tail.vals = trimColumn(tail.vals, n)
	if len(tail.times) == 0 {
		w.chunks = w.chunks[:0]
	}
	return true
}

// evictable is how many bytes evict would free.
func (w *window) evictable(oldest int64) int64 {
	var freed int64
	for i, c := range w.chunks {
		if i == len(w.chunks)-1 {
			for e := 0; e < len(c.times) && c.times[e] < oldest; e++ {
				freed += c.entryBytes(w.rule, e)
			}
			break
		}
		if c.last() >= oldest {
			break
		}
		freed += c.bytes
	}
	return freed
}

func cutColumn[T any](column []T, from, to int) []T {
	if column == nil {
		return nil
	}
	return column[from:to]
}

// trimColumn drops the first n. A short column moves down, so that its array serves on; a long one moves on.
func trimColumn[T any](column []T, n int) []T {
	if column == nil {
		return nil
	}
	if rest := len(column) - n; rest <= 16 {
		copy(column, column[n:])
		clear(column[rest:])
		return column[:rest]
	}
	clear(column[:n])
	return column[n:]
}

func insertAt[T any](s []T, i int, v T) []T {
	s = append(s, v)
	if i < len(s)-1 {
		copy(s[i+1:], s[i:])
		s[i] = v
	}
	return s
}
