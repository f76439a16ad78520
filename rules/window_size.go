package rules

import (
	"math/bits"

	"github.com/tidemark/tidemark/codecs"
)

// Sizes here bound what the codec writes. They are functions of values alone, so that an event is refused for size, or
// not, whatever was encoded, decoded or cached in between.

// Bounds of the parts that a state has once: version, counts, times and digests; a number in plain notation, shown and
// working; a flag with its why.
const (
	stateFixedBytes = 128
	totalFixedBytes = 320
	flagFixedBytes  = 400
)

// entryBytes is what entry e takes in its chunk.
func (c *chunk) entryBytes(rule *total, e int) int64 {
	n := int64(0)
	if rule.kind.hasCounts() {
		n += uvarintBytes(c.counts[e])
	}
	if rule.kind.hasNums() {
		n += numBytes(&c.nums[e])
	}
	if rule.kind.hasVals() {
		n += 2 * valBytes(&c.vals[e]) // once more where it is shown
	}
	return c.stepBytes(e) + withFraming(n)
}

// stepBytes is what the distance from entry e to the next one takes; the last one has none.
func (c *chunk) stepBytes(e int) int64 {
	if e < 0 || e+1 >= len(c.times) {
		return 0
	}
	return uvarintBytes(uint64(c.times[e+1] - c.times[e]))
}

// stepBytesMax bounds stepBytes: entries that lie side by side were kept at the same time.
func stepBytesMax(rule *total) int64 {
	return uvarintBytes(uint64(rule.windowMs + rule.latenessMs + rule.grainMs))
}

// withFraming adds an entry's part in the framing of its chunk.
func withFraming(n int64) int64 { return n + 1 + n/32 }

func uvarintBytes(x uint64) int64 { return int64(bits.Len64(x|1)+6) / 7 }

func numBytes(x *codecs.Decimal) int64 { return 2 + int64(x.TextLen()) }

func valBytes(v *codecs.Value) int64 {
	switch v.Kind {
	case codecs.Number:
		return 6 + int64(v.Num.TextLen())
	case codecs.String:
		return 6 + uvarintBytes(uint64(len(v.Str)))*2 + int64(len(v.Str))
	}
	return 6
}

// size fills in what the contribution costs at most as an entry of its own, or as an item.
func (c *contribution) size(rule *total) {
	switch {
	case rule.windowMs == 0 && rule.kind.hasVals():
		c.bytes = itemBytes(&c.val)
	case rule.windowMs == 0:
		c.bytes = 0
	default:
		n := int64(0)
		if rule.kind.hasCounts() {
			n++
		}
		if rule.kind.hasNums() {
			n += numBytes(&c.num)
		}
		if rule.kind.hasVals() {
			n += 2 * valBytes(&c.val)
		}
		c.bytes = stepBytesMax(rule) + withFraming(n)
	}
}

// itemBytes bounds a value and its time in a total without a window.
func itemBytes(v *codecs.Value) int64 { return 10 + valBytes(v) }
