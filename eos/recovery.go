package eos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// diskBufferBytes sizes a partition's memtable and its block cache. Values are cached decoded, so LevelDB is for what is not;
// twice as much memory made no measurable difference to 200,000 IDs.
const diskBufferBytes = 16 << 20

// recover makes every claimed partition hold exactly what the group has committed, and checks that
// positions, topics and rules are the ones that the state was made with. The order matters: dead
// owners are fenced first, so that offsets and table can no longer change under us; the stable
// offsets are read next; the table is followed until it shows the same commit.
func (s *session) recover(ctx context.Context, claimed []int32) error {
	u := s.unit
	topics := []string{u.cfg.Input, u.cfg.Names.Loop()}
	ids, err := u.admin.topicIDs(ctx, append(topics, u.cfg.Names.Table())...)
	if err != nil {
		return err
	}
	s.topicIDs, s.tableID = ids, ids[u.cfg.Names.Table()]
	offsets, err := u.stableOffsets(ctx, topics, claimed)
	if err != nil {
		return err
	}
	u.cfg.Trace("offsets fetched")
	for _, id := range claimed {
		d, err := u.disk(id, s.tableID)
		if err != nil {
			return &ownFault{err}
		}
		d.take(s)
		p := newPartition(id, d, &u.cfg, u.cfg.CacheBytesMax/int64(len(claimed)))
		for _, t := range topics {
			p.sources = append(p.sources, source{topic: t, id: ids[t], next: -1})
		}
		p.opening = true
		s.parts[id], s.ordered = p, append(s.ordered, p)
	}
	u.publish(s)
	if err := s.followTables(ctx, offsets); err != nil {
		return err
	}
	err = s.place(ctx, offsets)
	var stop *FailStop
	if errors.As(err, &stop) {
		return s.secondLook(ctx, stop, topics, claimed, offsets)
	}
	return err
}

// errOvertaken says that another member committed for our partitions while they were being recovered.
var errOvertaken = errors.New("partitions were taken over while they were being recovered")

// secondLook answers whether a fail-stop stands. A process that was frozen after it had read the offsets, and thaws when
// another one has taken over and committed, finds a table that is further than they: nobody changed them from outside. A
// commit that the table shows has its offsets committed or pending, so stable offsets tell.
func (s *session) secondLook(ctx context.Context, stop *FailStop, topics []string, claimed []int32, before map[int32]map[string]groupOffset) error {
	now, err := s.unit.stableOffsets(ctx, topics, claimed)
	if err != nil {
		return err
	}
	for id, of := range before {
		if !maps.Equal(of, now[id]) {
			return fmt.Errorf("%w: the offsets of partition %d have changed since they were read (%s)", errOvertaken, id, stop.Fault)
		}
	}
	return stop
}

// publish makes the session's status visible.
func (u *Unit) publish(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.session = s
}

// disk opens the partition's local state, or answers the open one: it stays open from session to session
// while the partition does. State that grew too old meanwhile is judged as at a start: deletions that it
// missed may be gone from the table.
func (u *Unit) disk(id int32, tableID [16]byte) (*ownedDisk, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d := u.disks[id]; d != nil {
		if d.disk.Usable() && d.disk.ID().TableID == tableID && misdated(d.disk.AsOf(), now(), u.cfg.LocalStateMaxAge) == "" {
			return d, nil
		}
		u.closeDisk(id, d)
	}
	dir := filepath.Join(u.cfg.Dir, "partition-"+strconv.Itoa(int(id)))
	disk, err := OpenDisk(dir, DiskID{
		TableID: tableID, Topic: u.cfg.Names.Table(), Partition: id,
		Generation: u.cfg.Names.Generation, Digest: u.cfg.Digest, Layout: "processor",
	}, u.cfg.LocalStateMaxAge, now(), DiskWriteBuffer(u.cfg.diskBufferBytes), DiskCache(u.cfg.diskBufferBytes), DiskStorage(u.cfg.Storage))
	if err != nil {
		return nil, fmt.Errorf("local state of partition %d: %w", id, err)
	}
	if why := disk.Rebuilt(); why != "" {
		u.log.Info("local state begun anew; it will be rebuilt from Kafka", "partition", id, "cause", why)
	}
	d := &ownedDisk{disk: disk}
	u.disks[id] = d
	return d, nil
}

// closeDisk closes local state that is to be opened again, or not needed. Caller holds mu.
func (u *Unit) closeDisk(id int32, d *ownedDisk) {
	if err := d.close(); err != nil {
		u.log.Warn("closing local state", "partition", id, "cause", err)
	}
	delete(u.disks, id)
}

// closeOthers closes the local state of partitions that other instances own: it costs memory and ages.
func (u *Unit) closeOthers(claimed []int32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, d := range u.disks {
		if !slices.Contains(claimed, id) {
			u.closeDisk(id, d)
		}
	}
}

// groupOffset is what the group committed for one source topic and partition.
type groupOffset struct {
	offset int64 // -1: none
	meta   OffsetMetadata
	known  bool // the metadata is ours
}

// commitMeta is the newest commit that the group's offsets of a partition speak of; ok is false
// where there are none.
func commitMeta(of map[string]groupOffset) (OffsetMetadata, bool) {
	var m OffsetMetadata
	ok := false
	for _, o := range of {
		if o.offset >= 0 && o.known {
			if !ok || o.meta.Seq > m.Seq {
				m = o.meta
			}
			ok = true
		}
	}
	return m, ok
}

// followTables reads each partition's changelog, committed data alone, from where local state ends
// until it covers the last stable offset and shows the commit that the offsets speak of. Markers come
// late on a real broker: the offsets of a commit can be visible before its table records are.
func (s *session) followTables(ctx context.Context, offsets map[int32]map[string]groupOffset) error {
	table := s.unit.cfg.Names.Table()
	starts := map[int32]int64{}
	for id, p := range s.parts {
		starts[id] = p.disk.disk.Next()
		if pos, ok := p.disk.disk.Position(); ok {
			p.mu.Lock()
			p.committed = *pos
			p.mu.Unlock()
		}
	}
	ends, err := s.unit.admin.ends(ctx, table)
	if err != nil {
		return err
	}
	movesStart, err := s.unit.admin.compactionMovesStart(ctx)
	if err != nil {
		return err
	}
	for id := range s.parts {
		if err := s.beginTable(id, starts, ends, movesStart, offsets[id]); err != nil {
			return err
		}
	}
	open := len(starts)
	if open == 0 {
		return nil
	}
	r, err := NewReader(s.unit.cfg.Kafka, table, starts, ReaderTopicID(s.tableID))
	if err != nil {
		return err
	}
	defer r.Close()
	level, warned := map[int32]bool{}, time.Now()
	for open > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			return fmt.Errorf("recover from %s: %w", table, err)
		}
		for i := range batches {
			p := s.parts[batches[i].Partition]
			if err := s.applyRecovered(p, &batches[i]); err != nil {
				return err
			}
			done, err := s.recovered(p, &batches[i], ends[p.id], offsets[p.id])
			if err != nil {
				return err
			}
			if done && !level[p.id] {
				level[p.id] = true
				open--
			}
		}
		if time.Since(warned) > 5*time.Second {
			warned = time.Now()
			s.unit.log.Info("recovering", "table", table, "partitions left", open)
		}
	}
	return nil
}

// beginTable checks where a partition's changelog begins, and says from where it is read: starts no longer names a partition that
// has nothing to read.
func (s *session) beginTable(id int32, starts map[int32]int64, ends map[int32]Span, movesStart bool, offsets map[string]groupOffset) error {
	table, p := s.unit.cfg.Names.Table(), s.parts[id]
	span, ok := ends[id]
	switch {
	case !ok:
		return Stop(ErrUnknownTopic, "give the job a new name; a table's partitions are those of its input for as long as it lives",
			"table %s has no partition %d (it has %d)", table, id, len(ends))
	case span.Start > 0 && !movesStart:
		return Stop(ErrTruncated, "restore the topic, or give the job a new name so that it computes its state anew from the input",
			"table %s/%d begins at offset %d, not 0: records were deleted (DeleteRecords, or a cleanup.policy other than compact), and the state is incomplete", table, id, span.Start)
	}
	if err := clampStart(table, id, starts, span); err != nil {
		return err
	}
	p.mu.Lock()
	p.recovered, p.recoverEnd = starts[id], span.LSO
	p.mu.Unlock()
	// Nothing to read: no need to wait for a leader to say so.
	seen := Batch{Partition: id, Next: starts[id], LSO: span.LSO, HighWatermark: span.HW}
	done, err := s.recovered(p, &seen, span, offsets)
	if done {
		delete(starts, id)
	}
	return err
}

// clampStart begins at the log's start where local state is empty or lies before it.
func clampStart(table string, id int32, starts map[int32]int64, span Span) error {
	if next := starts[id]; next > span.HW {
		return Stop(ErrTruncated, "restore the topic, or give the job a new name; deleting local state does not bring the lost records back",
			"table %s/%d ends at offset %d, but local state has read up to %d: the topic was truncated", table, id, span.HW, next)
	}
	starts[id] = max(starts[id], span.Start)
	return nil
}

func (s *session) applyRecovered(p *partition, b *Batch) error {
	var db DiskBatch
	var last *Position
	for _, r := range b.Records {
		switch {
		case IsPositionKey(r.Key):
			pos, err := ParsePosition(r.Value)
			if err != nil {
				return Stop(err, "use the binary that wrote it or a newer one; if none did, restore the table or give the job a new name",
					"position record %s/%d@%d: %v", r.Topic, r.Partition, r.Offset, err)
			}
			last = pos
		case r.Value == nil:
			db.Delete(r.Key)
		default:
			db.Put(r.Key, r.Value)
		}
	}
	if b.Next > p.disk.disk.Next() {
		pos := last
		if pos == nil && p.committed.Seq > 0 {
			pos = &p.committed
		}
		if _, err := p.disk.apply(s, &db, b.Next, pos); err != nil {
			return &ownFault{fmt.Errorf("recover partition %d: %w", p.id, err)}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if last != nil {
		p.committed = *last
	}
	p.recovered = b.Next
	return nil
}

// recovered tells whether the partition is level: past the end seen at the start, and at the commit
// that the group's offsets speak of.
func (s *session) recovered(p *partition, b *Batch, end Span, of map[string]groupOffset) (bool, error) {
	meta, known := commitMeta(of)
	if !known {
		return b.Next >= end.LSO && end.LSO == end.HW || b.Next >= end.HW, nil
	}
	if p.committed.Seq >= meta.Seq {
		return b.Next >= end.LSO, nil
	}
	if b.Next >= b.HighWatermark && b.HighWatermark >= end.HW && b.LSO == b.HighWatermark {
		return false, &FailStop{
			Fault: fmt.Sprintf("table %s/%d ends at commit %d, but the group's offsets speak of commit %d: the table was deleted, truncated or recreated",
				s.unit.cfg.Names.Table(), p.id, p.committed.Seq, meta.Seq),
			Mend: "restore the table topic, or give the job a new name so that it computes its state anew from the input",
		}
	}
	return false, nil
}

// place checks that offsets and position record agree, and sets where each source goes on.
func (s *session) place(ctx context.Context, offsets map[int32]map[string]groupOffset) error {
	spans := map[string]map[int32]Span{}
	for _, t := range []string{s.unit.cfg.Input, s.unit.cfg.Names.Loop()} {
		ends, err := s.unit.admin.ends(ctx, t)
		if err != nil {
			return err
		}
		spans[t] = ends
	}
	for _, p := range s.ordered {
		if err := s.placePartition(ctx, p, offsets[p.id], spans); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) placePartition(ctx context.Context, p *partition, of map[string]groupOffset, spans map[string]map[int32]Span) error {
	if err := s.agree(p, of); err != nil {
		return err
	}
	placed := slices.Clone(p.sources)
	for i := range placed {
		src := &placed[i]
		span, ok := spans[src.topic][p.id]
		if !ok {
			return Stop(ErrUnknownTopic, "give the job a new name; the partitions of its topics are those of its input for as long as it lives",
				"topic %s has no partition %d (it has %d)", src.topic, p.id, len(spans[src.topic]))
		}
		if p.committed.Seq == 0 {
			next, err := s.firstOffset(ctx, src.topic, p.id, span)
			if err != nil {
				return err
			}
			src.next = next
			continue
		}
		rec := p.committed.Source(src.topic)
		if rec == nil {
			return failStop(fmt.Sprintf("the position record of partition %d does not name topic %s", p.id, src.topic),
				"run the job file that this state was made with, or give the job a new name")
		}
		if rec.TopicID != src.id {
			return failStop(fmt.Sprintf("topic %s was deleted and created again since the last commit", src.topic),
				"give the job a new name so that it computes its state anew from the new topic")
		}
		if rec.Next < span.Start {
			return failStop(fmt.Sprintf("%s/%d begins at offset %d, but the job has processed only up to %d: records were deleted before they were counted", src.topic, p.id, span.Start, rec.Next),
				"restore the records and raise the topic's retention (-1 keeps everything), or begin again under a new job name")
		}
		if rec.Next > span.HW {
			return failStop(fmt.Sprintf("%s/%d ends at offset %d, but the job has processed up to %d: the topic was truncated", src.topic, p.id, span.HW, rec.Next),
				"restore the topic, or begin again under a new job name")
		}
		src.next, src.timeMs, src.highWater = rec.Next, rec.TimeMs, span.HW
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sources = placed
	return nil
}

// agree compares the group's committed offsets with the position record, which is the truth. Gone
// offsets (expired with the group) are restored by the opening commit; others are a fail-stop.
func (s *session) agree(p *partition, of map[string]groupOffset) error {
	names := s.unit.cfg.Names
	if p.committed.Seq > 0 {
		if p.committed.Digest != s.unit.cfg.Digest || p.committed.Generation != names.Generation {
			return failStop(fmt.Sprintf("table %s was made by rules %.12s (generation %d); this job file means %.12s (generation %d)",
				names.Table(), p.committed.Digest, p.committed.Generation, s.unit.cfg.Digest, names.Generation),
				"a changed job file needs a new name (its `name:`)")
		}
		if p.committed.TableID != s.tableID {
			return Stop(ErrRecreated, "restore the original topic, or give the job a new name so that it computes its state anew from the input",
				"table %s was deleted and created again since commit %d of partition %d (its ID was %x and is %x)", names.Table(), p.committed.Seq, p.id, p.committed.TableID, s.tableID)
		}
	}
	for topic, o := range of {
		if o.offset < 0 {
			if p.committed.Seq > 0 {
				s.unit.log.Warn("the group's committed offset is gone; it is restored from the position record", "topic", topic, "partition", p.id)
			}
			continue
		}
		rec := p.committed.Source(topic)
		switch {
		case p.committed.Seq == 0:
			return failStop(fmt.Sprintf("group %s has offset %d for %s/%d, but the table has no position record: the table was deleted, or another program uses this group", names.Group(), o.offset, topic, p.id),
				"restore the table, or give the job a new name")
		case rec == nil:
			return failStop(fmt.Sprintf("group %s has an offset for %s/%d, a topic that the last commit does not name", names.Group(), topic, p.id),
				"run the job file that this state was made with, or give the job a new name")
		case o.known && o.meta.Seq == p.committed.Seq && o.meta.Owner != p.committed.Owner:
			return failStop(fmt.Sprintf("commit %d of partition %d is by %q in group %s, and by %q in table %s: the offsets or the table were changed from outside", o.meta.Seq, p.id, o.meta.Owner, names.Group(), p.committed.Owner, names.Table()),
				"restore the table, or delete the group's offsets so that they are restored from the position record")
		case !o.known || rec.Next != o.offset || o.meta.Seq != p.committed.Seq:
			return failStop(fmt.Sprintf("group %s has offset %d for %s/%d, but the last commit recorded %d: the offsets were changed from outside", names.Group(), o.offset, topic, p.id, rec.Next),
				fmt.Sprintf("set the offset back to %d, or delete the group's offsets so that they are restored from the position record", rec.Next))
		}
	}
	return nil
}

// firstOffset is where a new job begins: as asked in its input, at the start of its loop.
func (s *session) firstOffset(ctx context.Context, topic string, partition int32, span Span) (int64, error) {
	from := s.unit.cfg.From
	switch {
	case topic != s.unit.cfg.Input:
		return span.Start, nil
	case from.Latest:
		return span.LSO, nil
	case from.HasMs:
		return s.unit.admin.offsetAt(ctx, s.unit.cfg.Input, partition, from.AtMs)
	}
	if span.Start > 0 {
		s.unit.log.Warn("the input no longer begins at offset 0: a new job counts only what is left", "topic", s.unit.cfg.Input, "partition", partition, "start", span.Start)
	}
	return span.Start, nil
}

func failStop(fault, mend string) error { return &FailStop{Fault: fault, Mend: mend} }

// isTransient tells whether an error may pass by itself: everything but what names a fault for good.
func isTransient(err error) bool {
	var fs *FailStop
	return !errors.As(err, &fs) && !errors.Is(err, kgo.ErrClientClosed)
}
