package rules

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/wire"
)

// Bounds of the sums that a state may bring along. They leave room above any that events can reach, and room below
// what arithmetic carries.
const (
	sumDigitsMax   = 68
	entryDigitsMax = 60
)

// decoding is one DecodeState under way.
type decoding struct {
	id    string
	state *State
	shown []codecs.Value
	read  func(key []byte) ([]byte, error)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrStateCorrupt, fmt.Errorf(format, args...))
}

// working takes the totals from what is shown and from Working.
func (d *decoding) working(b []byte) error {
	st := d.state
	next := 0
	err := eachField(b, func(f wire.Field) error {
		if f.Num != fieldWorkingTotals || f.Type != protowire.BytesType {
			return nil
		}
		index, err := totalIndex(f.Bytes)
		if err != nil {
			return err
		}
		if index < uint64(next) || index >= uint64(len(st.tallies)) {
			return corrupt("total %d stands out of order", index)
		}
		for ; next < int(index); next++ {
			if err := d.total(next, nil); err != nil {
				return err
			}
		}
		next++
		return d.total(int(index), f.Bytes)
	})
	for ; err == nil && next < len(st.tallies); next++ {
		err = d.total(next, nil)
	}
	return err
}

func totalIndex(b []byte) (uint64, error) {
	index := uint64(0)
	err := eachField(b, func(f wire.Field) error {
		if f.Num == fieldTotalIndex && f.Type == protowire.VarintType {
			index = f.Varint
		}
		return nil
	})
	return index, err
}

func (d *decoding) total(i int, b []byte) error {
	rule, t := &d.state.rules.totals[i], &d.state.tallies[i]
	var err error
	if t.win != nil {
		err = d.window(i, t.win, b)
	} else {
		err = d.plain(rule, t, &d.shown[i], b)
	}
	if err != nil {
		return fmt.Errorf("total %s: %w", rule.name, err)
	}
	return nil
}

// plain reads a total without a window.
func (d *decoding) plain(rule *total, t *tally, shown *codecs.Value, b []byte) error {
	want := codecs.Number
	switch {
	case rule.kind == kindList:
		want = codecs.List
	case rule.kind == kindLast:
		want = shown.Kind
	}
	empty := shown.Kind == codecs.Null && rule.kind != kindCount && rule.kind != kindSum
	if shown.Kind != want && !empty {
		return corrupt("%s shows a %s", rule.kind, shown.Kind)
	}
	if rule.kind.hasVals() {
		return d.items(rule, t, shown, b)
	}
	switch rule.kind {
	case kindCount:
		n, ok := shown.Num.Int64()
		if !ok || n < 0 || uint64(n) > d.state.count {
			return corrupt("it counts more events than there are")
		}
		t.n = uint64(n)
	case kindSum, kindMin, kindMax:
		if !shown.Num.Within(sumDigitsMax, takenDecimalsMax) {
			return corrupt("its number is out of range")
		}
		t.num = shown.Num
		if !empty {
			t.n = 1
		}
	case kindAvg:
		return d.avg(t, empty, b)
	}
	return nil
}

func (d *decoding) avg(t *tally, empty bool, b []byte) error {
	err := eachField(b, func(f wire.Field) (err error) {
		switch {
		case f.Num == fieldTotalN && f.Type == protowire.VarintType:
			t.n = f.Varint
		case f.Num == fieldTotalSum && f.Type == protowire.BytesType:
			t.num, err = readNum(f.Bytes, sumDigitsMax)
		}
		return err
	})
	if err == nil && (t.n > d.state.count || empty != (t.n == 0)) {
		err = corrupt("it averages more values than there are, or shows none of them")
	}
	return err
}

func (d *decoding) items(rule *total, t *tally, shown *codecs.Value, b []byte) error {
	switch shown.Kind {
	case codecs.Null:
	case codecs.List:
		t.vals = append(t.vals, shown.Items...)
	default:
		t.vals = append(t.vals, *shown)
	}
	err := eachField(b, func(f wire.Field) error {
		if f.Num != fieldTotalTimes || f.Type != protowire.BytesType {
			return nil
		}
		at := int64(0)
		return eachVarint(f.Bytes, func(step uint64) error {
			at += protowire.DecodeZigZag(step)
			t.times = append(t.times, at)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if limit := rule.capacity(); len(t.times) != len(t.vals) || (limit > 0 && len(t.vals) > limit) {
		return corrupt("it has %d values and %d times", len(t.vals), len(t.times))
	}
	for i := range t.vals {
		if !isScalar(&t.vals[i]) {
			return corrupt("it holds a %s", t.vals[i].Kind)
		}
		if ms := t.times[i]; ms < d.state.firstMs || ms > d.state.lastMs || (i > 0 && ms < t.times[i-1]) {
			return corrupt("its times are out of order")
		}
		d.state.bytes += itemBytes(&t.vals[i])
	}
	return nil
}

func isScalar(v *codecs.Value) bool {
	switch v.Kind {
	case codecs.Bool, codecs.String:
		return true
	case codecs.Number:
		return v.Num.Within(takenDigitsMax, takenDecimalsMax)
	}
	return false
}

// window reads the directory, the chunks under their own keys, and the tail.
func (d *decoding) window(index int, w *window, b []byte) error {
	var runs []uint64
	var tail *chunk
	err := eachField(b, func(f wire.Field) (err error) {
		switch {
		case f.Num == fieldTotalNumbers && f.Type == protowire.VarintType:
			w.numbers = f.Varint
		case f.Num == fieldTotalChunks && f.Type == protowire.BytesType:
			err = eachVarint(f.Bytes, func(x uint64) error {
				runs = append(runs, x)
				return nil
			})
		case f.Num == fieldTotalTail && f.Type == protowire.BytesType:
			tail, err = readChunk(f.Bytes, w.rule)
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(runs)%2 != 0 || (len(runs) > 0 && tail == nil) {
		return corrupt("its directory of chunks is cut")
	}
	for ; len(runs) > 0; runs = runs[2:] {
		for k := range runs[1] {
			number := runs[0] + k
			if number >= w.numbers {
				return corrupt("chunk %d was never numbered", number)
			}
			if err := d.chunk(index, w, number); err != nil {
				return err
			}
		}
	}
	if tail != nil {
		if err := d.add(w, tail); err != nil {
			return err
		}
	}
	if d.state.count > 0 {
		w.now.rebuild(w, w.rule.left(d.state.lastMs), endless)
	}
	d.state.bytes += w.bytes
	return nil
}

func (d *decoding) chunk(index int, w *window, number uint64) error {
	b, err := d.read(chunkKey(d.id, index, number))
	if err != nil {
		return fmt.Errorf("read chunk %d: %w", number, err)
	}
	if b == nil {
		return corrupt("chunk %d is missing", number)
	}
	c, err := readChunk(b, w.rule)
	if err != nil {
		return fmt.Errorf("chunk %d: %w", number, err)
	}
	c.number, c.stored = number, true
	return d.add(w, c)
}

// add checks a chunk against its neighbour and the ID's times.
func (d *decoding) add(w *window, c *chunk) error {
	rule := w.rule
	if newest, any := w.newest(); any && (c.times[0] < newest || (c.times[0] == newest && !rule.kind.hasVals())) {
		return corrupt("its chunks are out of order")
	}
	if c.times[0] < rule.slot(d.state.firstMs) || c.last() > rule.slot(d.state.lastMs) {
		return corrupt("its entries are older or newer than the events")
	}
	if c.aggregate(rule).n > d.state.count {
		return corrupt("it counts more events than there are")
	}
	for e := range c.times {
		c.bytes += c.entryBytes(rule, e)
	}
	w.bytes += c.bytes
	w.chunks = append(w.chunks, c)
	return nil
}

// readChunk reads a chunk that is complete in itself.
func readChunk(b []byte, rule *total) (*chunk, error) {
	c := &chunk{}
	format, first := uint64(chunkFormat), false
	err := eachField(b, func(f wire.Field) (err error) {
		switch {
		case f.Num == fieldChunkFormat && f.Type == protowire.VarintType:
			format = f.Varint
		case f.Num == fieldChunkFirst && f.Type == protowire.VarintType && !first:
			first = true
			c.times = append(c.times, protowire.DecodeZigZag(f.Varint))
		case f.Num == fieldChunkSteps && f.Type == protowire.BytesType && first:
			err = eachVarint(f.Bytes, func(step uint64) error {
				if step > timeMaxMs-timeMinMs {
					return corrupt("a time is out of range")
				}
				c.times = append(c.times, c.last()+int64(step))
				return nil
			})
		case f.Num == fieldChunkCounts && f.Type == protowire.BytesType:
			err = eachVarint(f.Bytes, func(n uint64) error {
				c.counts = append(c.counts, n)
				return nil
			})
		case f.Num == fieldChunkNums && f.Type == protowire.BytesType:
			var num codecs.Decimal
			num, err = readNum(f.Bytes, entryDigitsMax)
			c.nums = append(c.nums, num)
		case f.Num == fieldChunkVals && f.Type == protowire.BytesType:
			var val codecs.Value
			val, err = readVal(f.Bytes)
			c.vals = append(c.vals, val)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if format != chunkFormat {
		return nil, fmt.Errorf("%w: chunk of format %d, this binary knows %d", codecs.ErrFormat, format, chunkFormat)
	}
	return c, c.check(rule)
}

func (c *chunk) check(rule *total) error {
	n := len(c.times)
	columns := [...]struct {
		has bool
		n   int
	}{{rule.kind.hasCounts(), len(c.counts)}, {rule.kind.hasNums(), len(c.nums)}, {rule.kind.hasVals(), len(c.vals)}}
	for _, column := range columns {
		if (column.has && column.n != n) || (!column.has && column.n != 0) || n == 0 {
			return corrupt("its columns differ in length")
		}
	}
	for e, ms := range c.times {
		if ms < timeMinMs-rule.grainMs || ms > timeMaxMs || ms != rule.slot(ms) {
			return corrupt("a time is out of range")
		}
		if e > 0 && ms == c.times[e-1] && !rule.kind.hasVals() {
			return corrupt("two entries of one instant")
		}
	}
	for _, n := range c.counts {
		if n == 0 || n >= 1<<40 {
			return corrupt("a count is out of range")
		}
	}
	return nil
}

func readNum(b []byte, digits int) (codecs.Decimal, error) {
	x, err := codecs.ParseStoredDecimal(b)
	if err != nil || !x.Within(digits, takenDecimalsMax) {
		return codecs.Decimal{}, corrupt("number %.80q is out of range", b)
	}
	return x, nil
}

func readVal(b []byte) (v codecs.Value, err error) {
	err = eachField(b, func(f wire.Field) (err error) {
		switch {
		case f.Num == fieldValueBool && f.Type == protowire.VarintType:
			v = codecs.Value{Kind: codecs.Bool, Bool: protowire.DecodeBool(f.Varint)}
		case f.Num == fieldValueNumber && f.Type == protowire.BytesType:
			v = codecs.Value{Kind: codecs.Number}
			v.Num, err = readNum(f.Bytes, takenDigitsMax)
		case f.Num == fieldValueText && f.Type == protowire.BytesType:
			v = codecs.Value{Kind: codecs.String, Str: string(f.Bytes)}
		}
		return err
	})
	if err == nil && v.Kind == codecs.Null {
		err = corrupt("a value is missing")
	}
	return v, err
}

// eachField walks a message of the rules.
func eachField(b []byte, do func(wire.Field) error) error {
	err := wire.Each(b, do)
	if errors.Is(err, wire.ErrMalformed) && !errors.Is(err, ErrStateCorrupt) {
		return corrupt("%w", err)
	}
	return err
}

func eachVarint(b []byte, do func(uint64) error) error {
	for len(b) > 0 {
		x, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return corrupt("%w", wire.ErrMalformed)
		}
		b = b[n:]
		if err := do(x); err != nil {
			return err
		}
	}
	return nil
}
