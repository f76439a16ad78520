package view

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// Change is a committed version of an ID. What one commit coalesced is one version, so numbers may skip. It is shared
// between watchers: nobody may change it.
type Change struct {
	ID string
	// AsOf names the commit that made it; its ages are not known.
	AsOf AsOf

	after  spot
	stored []byte // the state without the rules' own part; nil: the ID was deleted
	schema *codecs.Schema
	forms  [2][formsMax]atomic.Pointer[[]byte] // of a watch of one partition, of one of all
}

// Deleted tells that the ID is no more.
func (c *Change) Deleted() bool { return c.stored == nil }

// State decodes the state; it is an error where the ID was deleted.
func (c *Change) State(into *codecs.State) error {
	if c.Deleted() {
		return fmt.Errorf("state of %q: %w", c.ID, ErrNotFound)
	}
	return into.UnmarshalBinary(c.stored, c.schema)
}

// changeOverheadBytes is about what a change takes beside its ID and state.
const changeOverheadBytes = 256

func (c *Change) bytes() int { return len(c.ID) + len(c.stored) + changeOverheadBytes }

// commit is what a partition's table holds between two position records, as watchers are told of it.
type commit struct {
	asOf        AsOf
	committedMs int64
	end         spot
	offsets     []int64 // of every data record, its position record included
	told        []told
	// flagsOf tells which flags an ID bore before and bears after the commit; nil is none.
	flagsOf func(*told) (was, is []bool, err error)
	// stored gives the state without the rules' own part, in memory of its own; nil for a deletion.
	stored func(*told) ([]byte, error)
}

// told is one ID of a commit. Where the bytes of its state are, only the one who gathered it knows.
type told struct {
	id     string
	offset int64
	value  []byte
	was    []bool
	is     []bool
}

func newCommit(partition int32, input string, end int64, pos *eos.Position) *commit {
	c := &commit{
		asOf:        AsOf{Partition: partition, Commit: pos.Seq, Age: NotKnown, TableAge: NotKnown},
		committedMs: pos.CommittedMs, end: spot{end, pos.Records},
	}
	if src := pos.Source(input); src != nil {
		c.asOf.Position, c.asOf.TimeMs = src.Next, src.TimeMs
	}
	return c
}

// since counts the commit's data records from an offset on.
func (c *commit) since(offset int64) uint64 {
	i, _ := slices.BinarySearch(c.offsets, offset)
	return uint64(len(c.offsets) - i)
}

// follows tells whether the commit ends where one must that has everything from s on: no record is missing, and none
// that the processor did not count is there.
func (c *commit) follows(s spot) bool {
	if s.next >= c.end.next {
		return s.next > c.end.next || s.records == c.end.records
	}
	return s.records+c.since(s.next) == c.end.records
}

// change makes what watchers are told of one ID.
func (c *commit) change(t *told, schema *codecs.Schema) (*Change, error) {
	stored, err := c.stored(t)
	if err != nil {
		return nil, err
	}
	behind := c.since(t.offset + 1)
	return &Change{
		ID: t.id, AsOf: c.asOf, stored: stored, schema: schema,
		after: spot{t.offset + 1, c.end.records - behind},
	}, nil
}

// gathering collects the records of a partition up to a position record. Of an ID that comes twice the last is told.
type gathering struct {
	offsets []int64
	told    []told
	index   map[string]int
}

func (g *gathering) add(offset int64, id string, value []byte) {
	if g.index == nil {
		g.index = map[string]int{}
	}
	i, ok := g.index[id]
	if !ok {
		i = len(g.told)
		g.index[id] = i
		g.told = append(g.told, told{id: id})
	}
	g.told[i].offset, g.told[i].value = offset, value
}

// end gives the commit that a position record closes, and begins anew.
func (g *gathering) end(partition int32, input string, next int64, pos *eos.Position) *commit {
	c := newCommit(partition, input, next, pos)
	c.offsets, c.told = g.offsets, g.told
	c.sort()
	*g = gathering{}
	return c
}

func (c *commit) sort() {
	slices.SortFunc(c.told, func(a, b told) int { return cmp.Compare(a.offset, b.offset) })
}

// commit gives what watchers are told of the records since the last one; nil where nobody watches.
func (p *partition) commit(next int64, pos *eos.Position) *commit {
	if p.told == nil {
		return nil
	}
	c := newCommit(p.number, p.view.cfg.Input, next, pos)
	c.offsets, c.told = p.offsets, p.told
	c.sort()
	c.flagsOf = func(t *told) (was, is []bool, err error) { return t.was, t.is, nil }
	c.stored = func(t *told) ([]byte, error) { return strip(t.value, &p.state, p.view.cfg.Schema) }
	return c
}

// strip leaves out what no answer shows. The result is memory of its own; nil stays nil.
func strip(value []byte, scratch *codecs.State, schema *codecs.Schema) ([]byte, error) {
	if value == nil {
		return nil, nil
	}
	if err := scratch.UnmarshalBinary(value, schema); err != nil {
		return nil, err
	}
	scratch.Working = nil
	return scratch.AppendBinary(nil, schema), nil
}
