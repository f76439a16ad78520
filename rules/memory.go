package rules

import (
	"unsafe"

	"github.com/tidemark/tidemark/codecs"
)

// MemoryBytes is about how much memory the state holds: columns by their capacity, texts and large decimals by the bound
// of their encoded size. Caches are bounded by it.
func (st *State) MemoryBytes() int64 {
	n := int64(unsafe.Sizeof(*st)) + int64(cap(st.tallies))*int64(unsafe.Sizeof(tally{})) + int64(cap(st.flags))*int64(unsafe.Sizeof(codecs.Flag{}))
	for i := range st.tallies {
		t := &st.tallies[i]
		n += 8*int64(cap(t.times)) + int64(cap(t.vals))*int64(unsafe.Sizeof(codecs.Value{}))
		if t.win != nil {
			n += t.win.memoryBytes()
		}
	}
	return n + st.bytes
}

func (w *window) memoryBytes() int64 {
	n := int64(unsafe.Sizeof(*w)) + 8*int64(cap(w.chunks)+cap(w.dropped))
	for _, c := range w.chunks {
		n += int64(unsafe.Sizeof(*c)) + 8*int64(cap(c.times)+cap(c.counts)) +
			int64(cap(c.nums))*int64(unsafe.Sizeof(codecs.Decimal{})) + int64(cap(c.vals))*int64(unsafe.Sizeof(codecs.Value{}))
	}
	return n
}
