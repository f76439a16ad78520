package rules

import (
	"errors"
	"fmt"
	"sync"

	"github.com/tidemark/tidemark/codecs"
)

// ErrStateCorrupt is in the chain of every error of DecodeState that blames the bytes.
var ErrStateCorrupt = errors.New("corrupt state")

// chunkKeyPrefix begins the keys of chunks. No UTF-8 text has this byte, so no ID can be taken for one.
const chunkKeyPrefix = 0xFE

// encodeScratch is what one Encode needs besides what it hands out.
type encodeScratch struct {
	state   codecs.State
	totals  []codecs.Value
	working []byte
	part    []byte
}

var encodeScratches = sync.Pool{New: func() any { return new(encodeScratch) }}

// Encode hands out the records to write for the ID since the last Encode or DecodeState: its own, under the ID's bytes,
// and those chunks of windows that have changed, under keys that are not UTF-8; a nil value is a tombstone. The bytes
// are the callee's to keep. After the same events in the same order the records that stand are the same, whenever
// Encode was called in between.
func (st *State) Encode(id string, write func(key, value []byte)) {
	s := encodeScratches.Get().(*encodeScratch)
	defer encodeScratches.Put(s)
	for i := range st.tallies {
		if w := st.tallies[i].win; w != nil {
			s.part = w.encodeChunks(id, i, s.part, write)
		}
	}
	s.totals = st.shown(s.totals)
	s.working = st.appendWorking(s.working[:0], &s.part)
	s.state = codecs.State{
		Version: st.version, Count: st.count, Late: st.late, FirstMs: st.firstMs, LastMs: st.lastMs,
		Totals: s.totals, Flags: st.flags, Working: s.working,
	}
	s.part = s.state.AppendBinary(s.part[:0], st.rules.schema)
	write([]byte(id), append([]byte(nil), s.part...))
	clear(s.totals)
	s.state = codecs.State{}
}

// encodeChunks writes the changed chunks of a window and the tombstones of those that are gone.
func (w *window) encodeChunks(id string, total int, part []byte, write func(key, value []byte)) []byte {
	for _, number := range w.dropped {
		write(chunkKey(id, total, number), nil)
	}
	w.dropped = w.dropped[:0]
	for i := 0; i < len(w.chunks)-1; i++ {
		c := w.chunks[i]
		if !c.dirty {
			continue
		}
		part = appendChunkRecord(part[:0], w.rule, c)
		write(chunkKey(id, total, c.number), append([]byte(nil), part...))
		c.dirty, c.stored = false, true
	}
	return part
}

// DecodeState reads back what Encode wrote for the ID. read gets the chunks: it answers nil where there is none. It
// checks all that Apply relies on; bytes that fail are an ErrStateCorrupt.
func (rs *RuleSet) DecodeState(id string, base []byte, read func(key []byte) ([]byte, error)) (*State, error) {
	var in codecs.State
	if err := in.UnmarshalBinary(base, rs.schema); err != nil {
		return nil, fmt.Errorf("state of %q: %w", id, err)
	}
	st := rs.NewState()
	st.version, st.count, st.late, st.firstMs, st.lastMs = in.Version, in.Count, in.Late, in.FirstMs, in.LastMs
	if err := st.check(&in); err != nil {
		return nil, fmt.Errorf("state of %q: %w: %w", id, ErrStateCorrupt, err)
	}
	copy(st.flags, in.Flags)
	d := decoding{id: id, state: st, shown: in.Totals, read: read}
	if err := d.working(in.Working); err != nil {
		return nil, fmt.Errorf("state of %q: %w", id, err)
	}
	return st, nil
}

// check looks at what needs no Working.
func (st *State) check(in *codecs.State) error {
	switch {
	case in.Version != in.Count || in.Late > in.Count:
		return errors.New("its counts contradict each other")
	case in.Count >= 1<<62:
		return errors.New("its count is out of range")
	case in.FirstMs > in.LastMs, in.FirstMs < timeMinMs, in.LastMs > timeMaxMs:
		return errors.New("its times are out of range")
	case len(in.Totals) != len(st.tallies) || len(in.Flags) != len(st.flags):
		return errors.New("it has other totals or flags than the rules")
	}
	return nil
}
