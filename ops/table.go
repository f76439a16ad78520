package ops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// Table is what a job's table held at one moment, read from Kafka alone. It lies in a temporary LevelDB, so that it may
// be larger than memory and is in ID order.
type Table struct {
	// Partitions is how many the table has; Read lists those that were read, in order.
	Partitions int32
	Read       []TablePartition
	// Misplaced is an ID that was found on a partition where it does not belong, "" if there is none. It is left out.
	Misplaced string

	dir  string
	disk *eos.Disk
}

// TablePartition is one partition of a Table.
type TablePartition struct {
	Partition int32
	// Position is the last commit that was read; nil where there has been none.
	Position *eos.Position
	// Opening is the partition's very first position record, where compaction has left it.
	Opening *eos.Position
	// Next is the table offset up to which it was read.
	Next int64

	end int64
}

// openTable reads the partitions (nil: all) up to the last stable offset of this moment, which is always the end of a
// commit. keep chooses the keys to hold on to; nil is all.
func (j *Job) openTable(ctx context.Context, partitions []int32, keep func(key []byte) bool, tell Progress) (*Table, error) {
	spans, err := j.ends(ctx, j.Names.Table())
	if errors.Is(err, eos.ErrUnknownTopic) || errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, &Problem{
			What: fmt.Sprintf("job %s has no table here: topic %s does not exist", j.Names.Job, j.Names.Table()),
			Mend: "start the job with `tidemark run`, or name the cluster that it runs on", Err: err,
		}
	} else if err != nil {
		return nil, err
	}
	t := &Table{Partitions: int32(len(spans))}
	if t.dir, err = os.MkdirTemp(j.TempDir, "tidemark-"); err != nil {
		return nil, fmt.Errorf("temporary directory: %w", err)
	}
	t.disk, err = eos.OpenDisk(t.dir, eos.DiskID{Topic: j.Names.Table(), Layout: "ops"}, 0, time.Now())
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(t.dir))
	}
	for p := range t.Partitions {
		if partitions == nil || contains(partitions, p) {
			t.Read = append(t.Read, TablePartition{Partition: p, Next: spans[p].Start, end: spans[p].LSO})
		}
	}
	if err := t.fill(ctx, j, keep, tell); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func contains(partitions []int32, p int32) bool {
	for _, q := range partitions {
		if p == q {
			return true
		}
	}
	return false
}

func (j *Job) ends(ctx context.Context, topic string) (map[int32]eos.Span, error) {
	cl, err := kgo.NewClient(j.Kafka.Franz()...)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	defer cl.Close()
	return eos.Ends(ctx, cl, topic)
}

// Close removes what was kept.
func (t *Table) Close() error { return errors.Join(t.disk.Close(), os.RemoveAll(t.dir)) }

func (t *Table) fill(ctx context.Context, j *Job, keep func(key []byte) bool, tell Progress) error {
	starts, total, done := map[int32]int64{}, int64(0), int64(0)
	byPartition := map[int32]*TablePartition{}
	for i := range t.Read {
		p := &t.Read[i]
		byPartition[p.Partition] = p
		if p.Next < p.end {
			starts[p.Partition] = p.Next
			total += p.end - p.Next
		}
	}
	if len(starts) == 0 {
		return nil
	}
	r, err := eos.NewReader(j.Kafka, j.Names.Table(), starts)
	if err != nil {
		return err
	}
	defer r.Close()
	for open := len(starts); open > 0; {
		batches, err := r.Poll(ctx)
		if err != nil {
			return fmt.Errorf("read table %s: %w", j.Names.Table(), err)
		}
		for i := range batches {
			p := byPartition[batches[i].Partition]
			if p.Next >= p.end {
				continue
			}
			if err := t.take(p, &batches[i], keep); err != nil {
				return err
			}
			done += min(batches[i].Next, p.end) - p.Next
			if p.Next = batches[i].Next; p.Next >= p.end {
				p.Next = p.end
				open--
			}
		}
		tell.tell(done, total)
	}
	for i := range t.Read {
		if err := j.believe(&t.Read[i], r.TopicID()); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) take(p *TablePartition, b *eos.Batch, keep func(key []byte) bool) error {
	var batch eos.DiskBatch
	for _, r := range b.Records {
		switch {
		case r.Offset >= p.end:
		case eos.IsPositionKey(r.Key):
			pos, err := eos.ParsePosition(r.Value)
			if err != nil {
				return eos.Stop(err, "use a binary at least as new as the one that wrote it", "position record %s/%d@%d: %v", r.Topic, r.Partition, r.Offset, err)
			}
			if p.Position = pos; pos.Seq == 1 {
				p.Opening = pos
			}
		case eos.IsUserKey(r.Key) && eos.Place(r.Key, t.Partitions) != p.Partition:
			t.Misplaced = string(r.Key)
		case keep != nil && !keep(r.Key):
		case r.Value == nil:
			batch.Delete(r.Key)
		default:
			batch.Put(r.Key, r.Value)
		}
	}
	return t.disk.Apply(&batch, 0, nil)
}

// believe refuses a table that is not of this job file.
func (j *Job) believe(p *TablePartition, tableID [16]byte) error {
	pos := p.Position
	table := fmt.Sprintf("table %s/%d", j.Names.Table(), p.Partition)
	switch {
	case pos == nil && p.Next > 0:
		return eos.Stop(nil, "give the job a name that no other program uses, or remove the topic",
			"%s has records, but no position record: it is not a table of this version of Tidemark", table)
	case pos == nil:
		return nil
	case pos.Digest != j.Schema.Digest || pos.Generation != max(j.Names.Generation, 1):
		return eos.Stop(nil, "use the job file that the state was made with; a changed one needs a new name (its `name:`)",
			"%s was made by rules %.12s (generation %d), this job file means %.12s (generation %d)",
			table, pos.Digest, pos.Generation, j.Schema.Digest, max(j.Names.Generation, 1))
	case pos.TableID != tableID && pos.TableID != [16]byte{}:
		return eos.Stop(eos.ErrRecreated, "restore the topic, or give the job a new name",
			"%s carries positions of another topic: it was deleted and created again", table)
	}
	return nil
}

// Each calls use for every ID that begins with prefix, in byte order, with its state as stored; the bytes are good until
// the next one.
func (t *Table) Each(prefix string, use func(id string, state []byte) error) error {
	snap, err := t.disk.Snapshot()
	if err != nil {
		return err
	}
	defer snap.Release()
	it := snap.Records([]byte(prefix), after(prefix))
	defer it.Release()
	for it.Next() {
		if !eos.IsUserKey(it.Key()) {
			continue
		}
		if err := use(string(it.Key()), it.Value()); err != nil {
			return err
		}
	}
	return it.Err()
}

// after is the first key behind all that begin with prefix; nil is none.
func after(prefix string) []byte {
	limit := []byte(prefix)
	for len(limit) > 0 {
		last := len(limit) - 1
		if limit[last]++; limit[last] != 0 {
			return limit
		}
		limit = limit[:last]
	}
	return nil
}

// decode reads a stored state. A state that does not decode breaks a guarantee: it names the ID.
func (j *Job) decode(id string, stored []byte, into *codecs.State) error {
	*into = codecs.State{Totals: into.Totals[:0], Flags: into.Flags[:0]}
	if err := into.UnmarshalBinary(stored, j.Schema); err != nil {
		return eos.Stop(err, "verify tells whether others are harmed", "the state of ID %q in %s does not decode: %v", id, j.Names.Table(), err)
	}
	return nil
}

// Place says as of which input position something was read.
type Place struct {
	Partition int32
	Next      int64 // the input offset up to which every event is in it
	TimeMs    int64 // of the last event before Next; 0 is none
	Commit    uint64
}

// Places says as of which input positions the table is.
func (t *Table) Places(input string) []Place {
	places := make([]Place, len(t.Read))
	for i := range t.Read {
		places[i].Partition = t.Read[i].Partition
		if pos := t.Read[i].Position; pos != nil {
			places[i].Commit = pos.Seq
			if src := pos.Source(input); src != nil {
				places[i].Next, places[i].TimeMs = src.Next, src.TimeMs
			}
		}
	}
	return places
}
