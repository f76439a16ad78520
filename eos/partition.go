package eos

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

// partition is what one session gathers for one partition of the group: values, outputs, and the next
// offset of each source topic. All three come from the same set of finished callbacks, because a cut
// takes them together under mu.
type partition struct {
	id      int32
	disk    *ownedDisk
	handler Handler

	mu        sync.Mutex // guards the fields below
	work      Work
	table     *table
	outputs   []*kgo.Record
	sources   []source
	committed Position // as of the last commit that ended well
	pending   bool     // something was processed since the last cut
	opening   bool     // a commit is owed although nothing was processed: the session's first, or a refresh
	bytes     int64    // of outputs queued since the last cut
	events    int64    // records handled since the last cut
	slab      slab
	arena     arena
	eventMs   int64 // of the record in hand
	notes     []any // since the last cut

	recovered, recoverEnd int64
	running               bool

	gathered gathered
}

// gathered is what the committer and back-pressure look at without the partition's lock.
type gathered struct {
	sinceNs atomic.Int64 // first uncommitted record, 0 none
	bytes   atomic.Int64
	lagging atomic.Bool
}

// publish refreshes gathered after a batch or a cut. Caller holds mu.
func (p *partition) publish(catchUpLag int64) {
	switch {
	case !p.pending:
		p.gathered.sinceNs.Store(0)
	case p.gathered.sinceNs.Load() == 0:
		p.gathered.sinceNs.Store(time.Now().UnixNano())
	}
	p.gathered.bytes.Store(p.bytes + p.table.dirtyBytes)
	p.gathered.lagging.Store(p.lagging(catchUpLag))
}

// source is the place in one source topic.
type source struct {
	topic     string
	id        [16]byte
	next      int64 // the next offset to process
	timeMs    int64 // time of the last processed record
	highWater int64 // as last seen by the consumer, or by RefreshEnds
	tail      tail
}

func newPartition(id int32, disk *ownedDisk, cfg *Config, cacheBytesMax int64) *partition {
	p := &partition{id: id, disk: disk, handler: cfg.NewHandler(id)}
	p.table = newTable(judgingCodec{cfg.Codec, disk.disk}, disk.disk, cacheBytesMax)
	p.work.p = p
	return p
}

// judgingCodec marks local state as damaged where a value in it does not decode: the next session builds
// it again from Kafka, and only what does not decode there either stops the unit.
type judgingCodec struct {
	Codec
	disk *Disk
}

func (c judgingCodec) Decode(key string, base []byte, read func([]byte) ([]byte, error)) (any, error) {
	v, err := c.Codec.Decode(key, base, read)
	if err != nil {
		c.disk.MarkDamaged(fmt.Sprintf("the value of %q does not decode: %v", key, err))
	}
	return v, err
}

func (p *partition) source(topic string) *source {
	for i := range p.sources {
		if p.sources[i].topic == topic {
			return &p.sources[i]
		}
	}
	return nil
}

// handle runs the handler on msg and notes its offset as processed. A panic is an error like another.
// Caller holds mu.
func (p *partition) handle(src *source, msg *sarama.ConsumerMessage) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", cause, debug.Stack())
		}
	}()
	p.eventMs = msg.Timestamp.UnixMilli()
	if err := p.handler(&p.work, msg); err != nil {
		return err
	}
	src.next, src.timeMs = msg.Offset+1, p.eventMs
	p.events++
	p.pending = true
	return nil
}

// emit queues an output. Caller holds mu, being the handler.
func (p *partition) emit(o Output) {
	r := p.slab.next()
	r.Topic, r.Partition, r.Key, r.Value = o.Topic, o.Partition, p.arena.copy(o.Key), p.arena.copy(o.Value)
	p.bytes += int64(len(o.Key) + len(o.Value) + 64)
	for _, h := range o.Headers {
		p.bytes += int64(len(h.Key) + len(h.Value) + 64)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(h.Key), Value: h.Value})
	}
	p.outputs = append(p.outputs, r)
}

// lagging tells whether some source is more than lag records behind. Caller holds mu.
func (p *partition) lagging(lag int64) bool {
	for i := range p.sources {
		if p.sources[i].highWater-p.sources[i].next > lag {
			return true
		}
	}
	return false
}

// cut is what one partition gives to one transaction.
type cut struct {
	p        *partition
	seq      uint64
	table    []*kgo.Record // values, then the position record, which is last
	outputs  []*kgo.Record
	position Position
	bytes    int
	events   int64
	notes    []any
}

// take cuts the partition: encodes what is dirty and seals it with a position record. It answers nil
// where nothing was processed. Caller holds mu.
func (p *partition) take(s *session, now time.Time) (*cut, error) {
	if !p.pending && !p.opening {
		return nil, nil
	}
	c := &cut{p: p, outputs: p.outputs, events: p.events}
	table := s.unit.cfg.Names.Table()
	add := func(key, value []byte) {
		r := p.slab.next()
		r.Topic, r.Partition, r.Key, r.Value = table, p.id, p.arena.copy(key), p.arena.copy(value)
		c.table = append(c.table, r)
		c.bytes += len(key) + len(value)
	}
	if err := p.table.cut(add); err != nil {
		return nil, err
	}
	c.seq = p.table.cutSeq
	c.position = p.seal(s, uint64(len(c.table)), now)
	add(PositionKey(), c.position.AppendBinary(nil))
	p.outputs, p.bytes, p.events, p.pending, p.opening = nil, 0, 0, false, false
	p.slab, p.arena = slab{}, arena{}
	c.notes, p.notes = p.notes, nil
	p.publish(s.unit.cfg.CatchUpLag)
	return c, nil
}

// seal makes the position record of the commit that is being cut.
func (p *partition) seal(s *session, records uint64, now time.Time) Position {
	pos := Position{
		Seq: p.committed.Seq + 1, Records: p.committed.Records + records + 1, Partition: p.id,
		Digest: s.unit.cfg.Digest, Generation: s.unit.cfg.Names.Generation,
		CommittedMs: now.UnixMilli(), Owner: s.unit.transactionalID(), TableID: s.tableID,
	}
	for _, src := range p.sources {
		pos.Sources = append(pos.Sources, Source{Topic: src.topic, TopicID: src.id, Next: src.next, TimeMs: src.timeMs})
	}
	return pos
}

// ownedDisk is a partition's LevelDB with the session that may write to it. A final commit of a dead
// session may still be under way when the next one recovers; its flush then finds another owner.
type ownedDisk struct {
	mu    sync.Mutex // guards owner, and every write
	owner *session
	disk  *Disk
}

func (d *ownedDisk) take(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owner = s
}

// apply writes b if s still owns the disk; it tells whether it did.
func (d *ownedDisk) apply(s *session, b *DiskBatch, next int64, pos *Position) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != s || next < d.disk.Next() {
		return false, nil
	}
	return true, d.disk.Apply(b, next, pos)
}

func (d *ownedDisk) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owner = nil
	return d.disk.Close()
}

// status of the partition. Caller holds mu.
func (p *partition) status() PartitionStatus {
	st := PartitionStatus{
		Partition: p.id, State: "recovering", Position: p.committed, HighWater: map[string]int64{},
		Recovered: p.recovered, RecoverEnd: p.recoverEnd, Rebuilt: strings.TrimSpace(p.disk.disk.Rebuilt()),
	}
	if !p.running { // its sources are still being placed, without the lock
		return st
	}
	st.State = "running"
	for _, src := range p.sources {
		st.HighWater[src.topic] = src.highWater
	}
	return st
}
