package view

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// loadBytes is how much a partition that is not complete gathers before it writes.
const loadBytes = 4 << 20

// partition is one partition of the table. The follower alone changes it; readers get snapshots.
//
// While it is loading, records go to LevelDB as they come, for nobody sees them; a partition is complete once it has read
// what the table held when it began, up to a position record. From then on each commit goes there in one batch when its
// position record arrives, and a snapshot of it is published. So memory holds one commit at most, which the processor
// bounds (eos.Config.PendingBytesMax).
type partition struct {
	view    *View
	tableID [16]byte
	number  int32

	disk     *eos.Disk
	complete bool
	target   int64 // the table offset up to which it loads; -1 until the first answer
	next     int64 // the table offset to read next
	torn     bool  // LevelDB holds records of a commit whose position record has not come
	pending  map[string]held
	bytes    int
	offsets  []int64   // of the data records since the last commit, while it is complete
	told     []told    // what watchers need of the commit; nil: nobody watches
	minute   time.Time // when the last minute was noted
	batch    eos.DiskBatch
	state    codecs.State // scratch
	scratch  []byte
	touched  time.Time

	progress atomic.Pointer[progress]
	turn     atomic.Uint64 // of the commit that is published, or about to be: see cache
	since    uint64        // the turn at which the local state began

	mu      sync.RWMutex // guards current, and taking hold of it
	current *published

	levelMu sync.Mutex // guards level
	level   level

	// settled is the input offset before which every event was applied or refused, wherever its ID lives, and is seen by
	// readers. The prober alone changes it, and it never goes back.
	settled atomic.Int64
	movedMu sync.Mutex    // guards moved
	moved   chan struct{} // closed when settled grows; nil while nobody waits
}

// held is the newest value of an ID that is not written yet.
type held struct {
	value  []byte
	offset int64
}

// progress is what status and metrics say of the loading.
type progress struct {
	next, target int64
	rebuilt      string
}

// published is a committed state that readers look at. It is released when it is no longer current and the last reader has
// gone.
type published struct {
	snap        *eos.DiskSnapshot
	position    *eos.Position
	turn, since uint64 // see cache
	holders     atomic.Int32
}

func (s *published) release() {
	if s.holders.Add(-1) == 0 {
		s.snap.Release()
	}
}

func newPartition(v *View, tableID [16]byte, number int32) *partition {
	return &partition{view: v, tableID: tableID, number: number, pending: map[string]held{}}
}

// open opens the local state, or begins it anew.
func (p *partition) open() error {
	cfg := &p.view.cfg
	id := eos.DiskID{
		TableID: p.tableID, Topic: cfg.Names.Table(), Partition: p.number,
		Generation: max(cfg.Names.Generation, 1), Digest: cfg.Schema.Digest, Layout: "view",
	}
	disk, err := eos.OpenDisk(filepath.Join(cfg.Dir, strconv.Itoa(int(p.number))), id, cfg.LocalStateMaxAge, time.Now(), cfg.disk...)
	if err != nil {
		return fmt.Errorf("view: %w", err)
	}
	if why := disk.Rebuilt(); why != "" {
		p.view.log.Info("local state begins anew", "partition", p.number, "cause", why)
	}
	p.disk, p.next, p.target, p.complete, p.torn = disk, disk.Next(), -1, false, false
	p.since = p.turn.Add(1)
	clear(p.pending)
	p.bytes, p.offsets, p.minute = 0, nil, time.Time{}
	p.tell()
	return nil
}

func (p *partition) tell() {
	p.progress.Store(&progress{next: p.next, target: p.target, rebuilt: p.disk.Rebuilt()})
}

// reopen gives damaged state up and begins it anew; answers are refused until it is complete again.
func (p *partition) reopen() error {
	p.view.log.Warn("local state is damaged and is built again from Kafka", "partition", p.number)
	p.view.metrics.rebuilds.Inc()
	if err := p.close(); err != nil && !errors.Is(err, eos.ErrDamaged) {
		return err
	}
	return p.open()
}

func (p *partition) close() error {
	p.publish(nil)
	p.view.hub.down(p.number)
	if p.disk == nil {
		return nil
	}
	err := p.disk.Close()
	p.disk = nil
	return err
}

// take gathers what one answer holds of the partition.
func (p *partition) take(b *eos.Batch) error {
	for _, r := range b.Records {
		if p.complete {
			p.offsets = append(p.offsets, r.Offset)
		}
		switch {
		case eos.IsPositionKey(r.Key):
			pos, err := eos.ParsePosition(r.Value)
			if err != nil {
				return eos.Stop(err, "use a binary at least as new as the one that wrote it", "position record %s/%d@%d: %v", r.Topic, p.number, r.Offset, err)
			}
			if err := p.believe(pos); err != nil {
				return err
			}
			if err := p.apply(r.Offset+1, pos); err != nil {
				return err
			}
			p.arrive()
		case !eos.IsUserKey(r.Key): // the processor's own
		case eos.Place(r.Key, int32(len(p.view.all()))) != p.number:
			p.view.metrics.misplaced.Inc()
			p.view.log.Warn("a record of the table lies in a partition where its ID does not belong; only another program can have written it, and it is left out",
				"id", fmt.Sprintf("%q", r.Key), "partition", p.number, "offset", r.Offset)
		default:
			p.bytes += len(r.Key) + len(r.Value)
			p.pending[string(r.Key)] = held{r.Value, r.Offset}
			if !p.complete && p.bytes > loadBytes {
				if err := p.apply(r.Offset+1, nil); err != nil {
					return err
				}
			}
		}
	}
	p.next = b.Next
	if p.target < 0 {
		p.target = b.LSO
	}
	p.arrive()
	p.tell()
	return p.reached(b)
}

// believe refuses a table that is not of this job file.
func (p *partition) believe(pos *eos.Position) error {
	cfg := &p.view.cfg
	if generation := max(cfg.Names.Generation, 1); pos.Digest != cfg.Schema.Digest || pos.Generation != generation {
		return eos.Stop(nil, "give the view the job file that the processor runs with; a changed one needs a new name (its `name:`)",
			"table %s/%d was made by rules %.12s (generation %d), this job file means %.12s (generation %d)",
			cfg.Names.Table(), p.number, pos.Digest, pos.Generation, cfg.Schema.Digest, generation)
	}
	return nil
}

// apply writes what is pending, with its index, in one batch. pos is nil when it is not the end of a commit.
func (p *partition) apply(next int64, pos *eos.Position) error {
	p.batch.Reset()
	p.told = nil
	if p.complete && p.view.hub.watching.Load() > 0 {
		p.told = make([]told, 0, len(p.pending))
	}
	for id, h := range p.pending {
		if err := p.put(id, h); err != nil {
			return err
		}
	}
	if pos != nil {
		if err := p.noteMinute(next, pos); err != nil {
			return err
		}
	}
	if err := p.disk.Apply(&p.batch, next, pos); err != nil {
		return err
	}
	p.view.metrics.records.Add(float64(len(p.pending)))
	if p.complete {
		p.turn.Add(1) // first, so that nothing of the commit before is kept any more
		for id := range p.pending {
			p.view.cache.forget(id)
		}
	}
	if len(p.pending) > 4096 {
		p.pending = map[string]held{} // clear takes time by the size that a map once had
	}
	clear(p.pending)
	p.bytes = 0
	p.torn = pos == nil
	if pos == nil || !p.complete {
		return nil
	}
	c := p.commit(next, pos)
	p.told, p.offsets = nil, nil
	return p.show(c)
}

// put adds one ID to the batch, and what changes in the index. The rules' own part of the state is left out: nobody asks.
func (p *partition) put(id string, h held) error {
	key := []byte(id)
	schema := p.view.cfg.Schema
	was, err := p.flagsOf(key)
	if err != nil {
		return err
	}
	var is []bool
	if h.value != nil {
		if err := p.state.UnmarshalBinary(h.value, schema); err != nil {
			return eos.Stop(err, "`tidemark verify` tells which IDs are harmed", "the state of ID %q in table %s/%d does not decode: %v", id, p.view.cfg.Names.Table(), p.number, err)
		}
		is = raised(&p.state)
	}
	for i := range schema.Flags {
		p.index(i < len(was) && was[i], i < len(is) && is[i], i, key)
	}
	p.noteClears(was, is, h.offset)
	if p.told != nil {
		p.told = append(p.told, told{id: id, offset: h.offset, value: h.value, was: was, is: is})
	}
	if h.value == nil {
		p.batch.Delete(key)
		return nil
	}
	p.state.Working = nil
	p.scratch = p.state.AppendBinary(p.scratch[:0], schema)
	p.batch.Put(key, p.scratch)
	return nil
}

// raised tells which flags a state bears.
func raised(s *codecs.State) []bool {
	is := make([]bool, len(s.Flags))
	for i := range is {
		is[i] = s.Flags[i].Raised
	}
	return is
}

// flagsOf tells which flags the ID bears on disk; nil is none.
func (p *partition) flagsOf(key []byte) ([]bool, error) {
	if len(p.view.cfg.Schema.Flags) == 0 {
		return nil, nil
	}
	old, err := p.disk.Get(key)
	if errors.Is(err, eos.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := p.state.UnmarshalBinary(old, p.view.cfg.Schema); err != nil {
		p.disk.MarkDamaged(fmt.Sprintf("state of %q does not decode: %v", key, err))
		return nil, eos.ErrDamaged
	}
	return raised(&p.state), nil
}

func (p *partition) index(was, is bool, flag int, id []byte) {
	switch {
	case is && !was:
		p.batch.PutIndex(indexKey(p.view.cfg.Schema.Flags[flag], id))
	case was && !is:
		p.batch.DeleteIndex(indexKey(p.view.cfg.Schema.Flags[flag], id))
	}
}

// indexKey is where the index holds an ID that bears a flag; names of flags have no NUL in them.
func indexKey[B []byte | string](flag string, id B) []byte {
	return append(append([]byte(flag), 0), id...)
}

// arrive completes the loading where its end is reached, at the end of a commit.
func (p *partition) arrive() {
	if p.complete || p.torn || p.target < 0 || max(p.next, p.disk.Next()) < p.target {
		return
	}
	if _, ok := p.disk.Position(); !ok {
		return // no processor has begun: nothing is known of the input
	}
	p.complete = true
}
