package rules

import (
	"encoding/binary"
	"strings"
)

// OrderFree tells, by the schema's totals, which come out the same whatever the order of the ID's events: counts, sums,
// extremes and averages of everything, whose own expressions look at the event alone. It may say no to one that does.
func (rs *RuleSet) OrderFree() []bool {
	free := make([]bool, len(rs.totals))
	for i := range rs.totals {
		t := &rs.totals[i]
		free[i] = t.windowMs == 0 && !t.kind.hasVals() && t.value.readsEventAlone() && t.when.readsEventAlone()
	}
	return free
}

// readsEventAlone looks at the canonical text: a literal that happens to spell a name only makes it say no.
func (p *program) readsEventAlone() bool {
	return p == nil || !strings.Contains(p.canon, "prior") && !strings.Contains(p.canon, "flags")
}

// ChunkOwner gives the ID that a record of entries belongs to; ok is false for a key that no Encode wrote.
func ChunkOwner(key []byte) (id string, ok bool) {
	if len(key) == 0 || key[0] != chunkKeyPrefix {
		return "", false
	}
	length, n := binary.Uvarint(key[1:])
	if n <= 0 || length > IDBytesMax || uint64(len(key)-1-n) < length {
		return "", false
	}
	return string(key[1+n : 1+n+int(length)]), true
}

// TimeMs is the time of the event of the last Read that was not refused.
func (a *Applier) TimeMs() int64 { return a.env.timeMs }
