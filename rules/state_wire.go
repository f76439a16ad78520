package rules

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemark/tidemark/codecs"
)

// The messages Working, WorkingTotal, WorkingChunk and WorkingValue of codecs/tidemark.proto, written field by field in
// order of their numbers, so that equal states are equal bytes.
const (
	fieldWorkingTotals = 1

	fieldTotalIndex   = 1
	fieldTotalN       = 2
	fieldTotalSum     = 3
	fieldTotalTimes   = 4
	fieldTotalNumbers = 5
	fieldTotalChunks  = 6
	fieldTotalTail    = 7

	fieldChunkFormat = 1
	fieldChunkFirst  = 2
	fieldChunkSteps  = 3
	fieldChunkCounts = 4
	fieldChunkNums   = 5
	fieldChunkVals   = 6

	fieldValueBool   = 1
	fieldValueNumber = 2
	fieldValueText   = 3
)

// chunkFormat is the version of a chunk's record.
const chunkFormat = 1

// chunkKey is where a chunk lies: after the prefix, the length-prefixed ID, the total's index, the chunk's number.
func chunkKey(id string, total int, number uint64) []byte {
	key := make([]byte, 0, len(id)+16)
	key = append(key, chunkKeyPrefix)
	key = binary.AppendUvarint(key, uint64(len(id)))
	key = append(key, id...)
	key = binary.AppendUvarint(key, uint64(total))
	return binary.AppendUvarint(key, number)
}

func (st *State) appendWorking(dst []byte, part *[]byte) []byte {
	for i := range st.tallies {
		*part = st.tallies[i].appendWorking((*part)[:0], i, &st.rules.totals[i])
		if len(*part) > 0 {
			dst = protowire.AppendTag(dst, fieldWorkingTotals, protowire.BytesType)
			dst = protowire.AppendBytes(dst, *part)
		}
	}
	return dst
}

// appendWorking writes what the shown value does not say; nothing where that is all.
func (t *tally) appendWorking(dst []byte, index int, rule *total) []byte {
	start := len(dst)
	dst = protowire.AppendTag(dst, fieldTotalIndex, protowire.VarintType)
	dst = protowire.AppendVarint(dst, uint64(index))
	bare := len(dst)
	switch {
	case t.win != nil:
		dst = t.win.append(dst)
	case rule.kind == kindAvg && t.n > 0:
		dst = protowire.AppendTag(dst, fieldTotalN, protowire.VarintType)
		dst = protowire.AppendVarint(dst, t.n)
		dst = protowire.AppendTag(dst, fieldTotalSum, protowire.BytesType)
		dst = appendNum(dst, &t.num)
	case rule.kind.hasVals() && len(t.times) > 0:
		dst = protowire.AppendTag(dst, fieldTotalTimes, protowire.BytesType)
		dst = appendMessage(dst, func(dst []byte) []byte {
			at := int64(0)
			for _, ms := range t.times {
				dst = protowire.AppendVarint(dst, protowire.EncodeZigZag(ms-at))
				at = ms
			}
			return dst
		})
	}
	if len(dst) == bare {
		return dst[:start]
	}
	return dst
}

// append writes the window: which chunks have their own records, as runs of numbers, and the tail.
func (w *window) append(dst []byte) []byte {
	if w.numbers > 0 {
		dst = protowire.AppendTag(dst, fieldTotalNumbers, protowire.VarintType)
		dst = protowire.AppendVarint(dst, w.numbers)
	}
	if len(w.chunks) == 0 {
		return dst
	}
	if sealed := w.chunks[:len(w.chunks)-1]; len(sealed) > 0 {
		dst = protowire.AppendTag(dst, fieldTotalChunks, protowire.BytesType)
		dst = appendMessage(dst, func(dst []byte) []byte {
			for i := 0; i < len(sealed); {
				run := 1
				for i+run < len(sealed) && sealed[i+run].number == sealed[i].number+uint64(run) {
					run++
				}
				dst = protowire.AppendVarint(dst, sealed[i].number)
				dst = protowire.AppendVarint(dst, uint64(run))
				i += run
			}
			return dst
		})
	}
	dst = protowire.AppendTag(dst, fieldTotalTail, protowire.BytesType)
	tail := w.chunks[len(w.chunks)-1]
	return appendMessage(dst, func(dst []byte) []byte { return tail.append(dst, w.rule) })
}

func appendChunkRecord(dst []byte, rule *total, c *chunk) []byte {
	dst = protowire.AppendTag(dst, fieldChunkFormat, protowire.VarintType)
	dst = protowire.AppendVarint(dst, chunkFormat)
	return c.append(dst, rule)
}

func (c *chunk) append(dst []byte, rule *total) []byte {
	dst = protowire.AppendTag(dst, fieldChunkFirst, protowire.VarintType)
	dst = protowire.AppendVarint(dst, protowire.EncodeZigZag(c.times[0]))
	if len(c.times) > 1 {
		dst = protowire.AppendTag(dst, fieldChunkSteps, protowire.BytesType)
		dst = appendMessage(dst, func(dst []byte) []byte {
			for i, ms := range c.times[1:] {
				dst = protowire.AppendVarint(dst, uint64(ms-c.times[i]))
			}
			return dst
		})
	}
	if rule.kind.hasCounts() {
		dst = protowire.AppendTag(dst, fieldChunkCounts, protowire.BytesType)
		dst = appendMessage(dst, func(dst []byte) []byte {
			for _, n := range c.counts {
				dst = protowire.AppendVarint(dst, n)
			}
			return dst
		})
	}
	for i := range c.nums {
		dst = protowire.AppendTag(dst, fieldChunkNums, protowire.BytesType)
		dst = appendNum(dst, &c.nums[i])
	}
	for i := range c.vals {
		dst = protowire.AppendTag(dst, fieldChunkVals, protowire.BytesType)
		dst = appendMessage(dst, func(dst []byte) []byte { return appendVal(dst, &c.vals[i]) })
	}
	return dst
}

func appendVal(dst []byte, v *codecs.Value) []byte {
	switch v.Kind {
	case codecs.Bool:
		dst = protowire.AppendTag(dst, fieldValueBool, protowire.VarintType)
		return protowire.AppendVarint(dst, protowire.EncodeBool(v.Bool))
	case codecs.Number:
		dst = protowire.AppendTag(dst, fieldValueNumber, protowire.BytesType)
		return appendNum(dst, &v.Num)
	}
	dst = protowire.AppendTag(dst, fieldValueText, protowire.BytesType)
	return protowire.AppendString(dst, v.Str)
}

// appendNum writes a number's plain text with its length.
func appendNum(dst []byte, x *codecs.Decimal) []byte {
	return appendMessage(dst, x.AppendText)
}

// appendMessage writes what body appends, with its length before it.
func appendMessage(dst []byte, body func([]byte) []byte) []byte {
	start := len(dst)
	dst = append(dst, 0) // the length, while it fits
	dst = body(dst)
	n := len(dst) - start - 1
	if n < 1<<7 {
		dst[start] = byte(n)
		return dst
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	for range more {
		dst = append(dst, 0)
	}
	copy(dst[start+1+more:], dst[start+1:start+1+n])
	protowire.AppendVarint(dst[:start], uint64(n))
	return dst
}
