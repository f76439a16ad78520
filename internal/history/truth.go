// Package history judges what views said. Reads and deliveries of watches are written down with the commits that they
// claim to show, and compared with the order of commits: nothing that was not committed, nothing older than claimed, no
// version that goes back, no ID missing from a view that answers, and each change of a watch once and in order.
//
// It knows nothing of how views work; it sees what they said, and the table.
package history

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// Change is what a commit made of an ID.
type Change struct {
	ID      string
	Version uint64
	Deleted bool
	// Content is the state as the observer sees it; "" is not compared.
	Content string
	// Flags are those that the ID bears after it.
	Flags []string
}

// Truth is the order of commits. Each partition has its own.
type Truth struct {
	partitions map[int32]*partition
	home       map[string]int32 // of every ID that was ever committed
}

type partition struct {
	commits []commit // by rising number
	ids     map[string][]step
}

type commit struct {
	number  uint64
	changes []Change // in the order of the table
}

// step is one change in the life of an ID.
type step struct {
	number uint64
	Change
}

// Commit adds a partition's next commit, with its changes in the order of the table. Numbers rise.
func (t *Truth) Commit(number int32, seq uint64, changes ...Change) {
	if t.partitions == nil {
		t.partitions, t.home = map[int32]*partition{}, map[string]int32{}
	}
	p := t.partitions[number]
	if p == nil {
		p = &partition{ids: map[string][]step{}}
		t.partitions[number] = p
	}
	if n := len(p.commits); n > 0 && p.commits[n-1].number >= seq {
		panic(fmt.Sprintf("history: commit %d of partition %d after %d", seq, number, p.commits[n-1].number))
	}
	p.commits = append(p.commits, commit{seq, changes})
	for _, c := range changes {
		p.ids[c.ID] = append(p.ids[c.ID], step{seq, c})
		t.home[c.ID] = number
	}
}

// Last is the number of a partition's last commit; 0 is none.
func (t *Truth) Last(number int32) uint64 {
	p := t.partitions[number]
	if p == nil || len(p.commits) == 0 {
		return 0
	}
	return p.commits[len(p.commits)-1].number
}

// at gives what an ID was as of a commit; nil is none.
func (p *partition) at(id string, seq uint64) *Change {
	steps := p.ids[id]
	i := sort.Search(len(steps), func(i int) bool { return steps[i].number > seq })
	if i == 0 || steps[i-1].Deleted {
		return nil
	}
	return &steps[i-1].Change
}

// FromTable reads the order of commits from a job's table, which must still have every version: young enough for its
// min.compaction.lag.ms. Content is the state's JSON.
func FromTable(ctx context.Context, k *eos.Kafka, names eos.Names, schema *codecs.Schema) (*Truth, error) {
	cl, err := kgo.NewClient(k.Franz()...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends, err := eos.Ends(ctx, cl, names.Table())
	if err != nil {
		return nil, err
	}
	starts := map[int32]int64{}
	for p, span := range ends {
		starts[p] = span.Start
	}
	r, err := eos.NewReader(k, names.Table(), starts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	t, open := &Truth{}, map[int32]*gathering{}
	for len(ends) > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the order of commits: %w", err)
		}
		for _, b := range batches {
			g := open[b.Partition]
			if g == nil {
				g = &gathering{}
				open[b.Partition] = g
			}
			for _, rec := range b.Records {
				if err := g.take(t, rec, b.Partition, schema); err != nil {
					return nil, fmt.Errorf("%s/%d@%d: %w", names.Table(), b.Partition, rec.Offset, err)
				}
			}
			if span, ok := ends[b.Partition]; ok && b.Next >= span.LSO {
				delete(ends, b.Partition)
			}
		}
	}
	return t, nil
}

// gathering is what lies behind a partition's last position record.
type gathering struct {
	changes []Change
	records uint64 // counted so far, by position records
	since   uint64 // seen since
	state   codecs.State
}

func (g *gathering) take(t *Truth, r *kgo.Record, number int32, schema *codecs.Schema) error {
	g.since++
	switch {
	case eos.IsPositionKey(r.Key):
		pos, err := eos.ParsePosition(r.Value)
		if err != nil {
			return err
		}
		if g.records+g.since != pos.Records {
			return fmt.Errorf("%d records were counted up to here and %d are there: versions are missing", pos.Records, g.records+g.since)
		}
		t.Commit(number, pos.Seq, g.changes...)
		g.changes, g.records, g.since = nil, pos.Records, 0
	case eos.IsUserKey(r.Key):
		c := Change{ID: string(r.Key), Deleted: r.Value == nil}
		if r.Value != nil {
			if err := g.state.UnmarshalBinary(r.Value, schema); err != nil {
				return err
			}
			c.Version, c.Content = g.state.Version, string(g.state.AppendJSON(nil, c.ID, schema))
			for i, f := range g.state.Flags {
				if f.Raised {
					c.Flags = append(c.Flags, schema.Flags[i])
				}
			}
		}
		g.changes = slices.DeleteFunc(g.changes, func(old Change) bool { return old.ID == c.ID })
		g.changes = append(g.changes, c)
	}
	return nil
}

// numbers are the partitions in order.
func (t *Truth) numbers() []int32 {
	var all []int32
	for n := range t.partitions {
		all = append(all, n)
	}
	slices.SortFunc(all, cmp.Compare[int32])
	return all
}
