package view

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
)

// spot is a place in one partition of the table. It is true of the table, not of a view: any view finds the same.
type spot struct {
	// next is the table offset of what is told next.
	next int64
	// records counts the partition's data records before next, as the position records do (eos.Position.Records). With it
	// the table itself proves that nothing is missing between two spots: compaction and deletion leave fewer records than
	// the counts differ by.
	records uint64
}

// place is where a watch stands: a spot in the one partition where its ID lives, or one in each.
type place struct {
	first int32 // the partition of spots[0]
	spots []spot
}

// origin is the table that a place belongs to.
type origin struct {
	generation uint32
	tableID    [16]byte
	partitions int32
}

// placeNow is the place that every view has: what is committed from now on.
const placeNow = "now"

const placeFormat = 1

// text gives a place that any view of the job takes. instead, where partition is not negative, stands for that one's spot.
func (o *origin) text(p place, partition int32, instead spot) string {
	b := make([]byte, 0, 32+12*len(p.spots))
	b = append(b, placeFormat)
	b = binary.AppendUvarint(b, uint64(o.generation))
	b = append(b, o.tableID[:]...)
	b = binary.AppendUvarint(b, uint64(o.partitions))
	b = binary.AppendUvarint(b, uint64(p.first))
	b = binary.AppendUvarint(b, uint64(len(p.spots)))
	for i, s := range p.spots {
		if p.first+int32(i) == partition {
			s = instead
		}
		b = binary.AppendUvarint(b, uint64(s.next))
		b = binary.AppendUvarint(b, s.records)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// parse reads what text gave. What no view gave is *Invalid; a place of another table or generation is gone, and says why.
func (o *origin) parse(text string) (p place, gone string, err error) {
	malformed := &Invalid{"from is no place that a view gave"}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) == 0 || b[0] != placeFormat {
		return place{}, "", malformed
	}
	b = b[1:]
	bad := false
	number := func(most uint64) uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > most {
			bad, b = true, nil
			return 0
		}
		b = b[size:]
		return n
	}
	found := origin{generation: uint32(number(math.MaxUint32))}
	if len(b) < len(found.tableID) {
		return place{}, "", malformed
	}
	b = b[copy(found.tableID[:], b):]
	found.partitions = int32(number(math.MaxInt32))
	p.first = int32(number(math.MaxInt32))
	n := number(uint64(len(b))) // each takes two bytes at least
	for range n {
		p.spots = append(p.spots, spot{int64(number(math.MaxInt64)), number(math.MaxUint64)})
	}
	whole := p.first == 0 && int32(n) == found.partitions || n == 1 && p.first < found.partitions
	switch {
	case bad || len(b) > 0 || !whole:
		return place{}, "", malformed
	case found.generation != o.generation:
		return place{}, fmt.Sprintf("the place is of generation %d, this is generation %d", found.generation, o.generation), nil
	case found.tableID != o.tableID:
		return place{}, "the place is of a table that was deleted and made again", nil
	case found.partitions != o.partitions:
		return place{}, fmt.Sprintf("the place is of a table of %d partitions, this one has %d", found.partitions, o.partitions), nil
	}
	return p, "", nil
}

// narrow gives the part of a place that a watch of n partitions from first needs.
func (p place) narrow(first, n int32) (place, error) {
	from := first - p.first
	if from < 0 || from+n > int32(len(p.spots)) {
		return place{}, &Invalid{fmt.Sprintf("from is the place of a watch of one ID, which lives on partition %d; it says nothing of what is asked now", p.first)}
	}
	return place{first, p.spots[from : from+n : from+n]}, nil
}
