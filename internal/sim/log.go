package sim

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type topic struct {
	name       string
	id         [16]byte
	partitions []*partition
}

// partition is a log with what a leader knows of its producers.
type partition struct {
	topic     string
	id        int32
	lead      role
	batches   []*batch
	start     int64
	end       int64 // the high watermark: all replicas are in sync
	open      []openTxn
	aborted   []abortedTxn
	producers map[int64]*producerState
}

type batch struct {
	first, last int64
	raw         []byte
	producer    int64
	maxMs       int64
	txn         bool
	control     bool
	committed   bool // of a transaction that ended so; Inspect reads it
}

// openTxn is a transaction with records and without a marker in this partition.
type openTxn struct{ producer, first int64 }

type abortedTxn struct{ producer, first, last int64 }

// producerState is what the log knows of an idempotent producer: the newest batches, to tell a repetition.
type producerState struct {
	epoch int16
	next  int32
	last  []sequence
}

type sequence struct {
	first, last int32
	offset      int64
}

// lastStable is the offset before which every transaction has its marker.
func (p *partition) lastStable() int64 {
	lso := p.end
	for _, t := range p.open {
		lso = min(lso, t.first)
	}
	return lso
}

// find is the index of the batch that holds an offset, or of the first one after it.
func (p *partition) find(offset int64) int {
	i, _ := slices.BinarySearchFunc(p.batches, offset, func(b *batch, at int64) int { return cmp.Compare(b.last, at) })
	return i
}

func (c *Cluster) partition(topic string, id int32) *partition {
	t := c.topics[topic]
	if t == nil || id < 0 || int(id) >= len(t.partitions) {
		return nil
	}
	return t.partitions[id]
}

// leads answers the error code for one who asks the wrong broker, or knows of another election.
func (c *Cluster) leads(from *call, p *partition, epoch int32) int16 {
	switch {
	case p == nil:
		return kerr.UnknownTopicOrPartition.Code
	case p.lead.broker != from.broker.id:
		return kerr.NotLeaderForPartition.Code
	case epoch >= 0 && epoch < p.lead.epoch:
		return kerr.FencedLeaderEpoch.Code
	case epoch > p.lead.epoch:
		return kerr.UnknownLeaderEpoch.Code
	case time.Now().Before(p.lead.ready):
		return kerr.NotLeaderForPartition.Code
	}
	return 0
}

func (c *Cluster) produce(from *call, req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse) {
	for i := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for j := range req.Topics[i].Partitions {
			rp := &req.Topics[i].Partitions[j]
			out := kmsg.NewProduceResponseTopicPartition()
			out.Partition, out.BaseOffset = rp.Partition, -1
			p := c.partition(rt.Topic, rp.Partition)
			if out.ErrorCode = c.leads(from, p, -1); out.ErrorCode == 0 {
				out.BaseOffset, out.ErrorCode = c.write(p, deref(req.TransactionID), req.Version >= 12, rp.Records)
				out.LogStartOffset = p.start
			}
			rt.Partitions = append(rt.Partitions, out)
		}
		resp.Topics = append(resp.Topics, rt)
	}
}

// write checks one batch of a producer and appends it. With implicit, the partition joins the transaction by this.
func (c *Cluster) write(p *partition, txnID string, implicit bool, raw []byte) (int64, int16) {
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil || len(raw) != int(b.Length)+12 || b.CRC != int32(crc32.Checksum(raw[21:], castagnoli)) {
		return -1, kerr.CorruptMessage.Code
	}
	transactional := b.Attributes&attrTransactional != 0
	if b.Attributes&attrControl != 0 || transactional != (txnID != "") {
		return -1, kerr.InvalidRecord.Code
	}
	if b.ProducerID >= 0 {
		if offset, code, done := p.sequenced(&b); done {
			return offset, code
		}
	}
	if transactional && !p.holds(b.ProducerID, b.ProducerEpoch) {
		if code := c.joinTxn(txnID, b.ProducerID, b.ProducerEpoch, p, implicit); code != 0 {
			return -1, code
		}
		p.begin(b.ProducerID)
	}
	offset := c.append(p, &b, raw)
	if b.ProducerID >= 0 {
		p.note(&b, offset)
	}
	return offset, 0
}

func (p *partition) begin(producer int64) {
	p.open = append(p.open, openTxn{producer, p.end})
}

// holds tells whether a producer's transaction is open here. Its later batches are then written without asking the
// coordinator (Kafka 4: UnifiedLog.hasOngoingTransaction), so that those of a fenced producer still arrive until the marker does.
func (p *partition) holds(producer int64, epoch int16) bool {
	open := slices.ContainsFunc(p.open, func(t openTxn) bool { return t.producer == producer })
	return open && p.producer(producer).epoch == epoch
}

// sequenced tells repetitions and gaps of an idempotent producer (Kafka: ProducerAppendInfo, ProducerStateEntry).
func (p *partition) sequenced(b *kmsg.RecordBatch) (offset int64, code int16, done bool) {
	s := p.producers[b.ProducerID]
	if s == nil {
		if b.FirstSequence != 0 {
			return -1, kerr.UnknownProducerID.Code, true
		}
		return 0, 0, false
	}
	switch {
	case b.ProducerEpoch < s.epoch:
		return -1, kerr.InvalidProducerEpoch.Code, true
	case b.ProducerEpoch > s.epoch:
		if b.FirstSequence != 0 {
			return -1, kerr.OutOfOrderSequenceNumber.Code, true
		}
		return 0, 0, false
	}
	last := b.FirstSequence + b.NumRecords - 1
	for _, known := range s.last {
		if known.first == b.FirstSequence && known.last == last {
			return known.offset, 0, true
		}
	}
	if b.FirstSequence != s.next {
		return -1, kerr.OutOfOrderSequenceNumber.Code, true
	}
	return 0, 0, false
}

func (p *partition) note(b *kmsg.RecordBatch, offset int64) {
	s := p.producer(b.ProducerID)
	if b.ProducerEpoch > s.epoch {
		*s = producerState{epoch: b.ProducerEpoch}
	}
	s.next = b.FirstSequence + b.NumRecords
	s.last = append(s.last, sequence{b.FirstSequence, s.next - 1, offset})
	if len(s.last) > 5 {
		s.last = s.last[1:]
	}
}

func (p *partition) producer(id int64) *producerState {
	if p.producers == nil {
		p.producers = map[int64]*producerState{}
	}
	if p.producers[id] == nil {
		p.producers[id] = &producerState{}
	}
	return p.producers[id]
}

// append gives a batch its offsets.
func (c *Cluster) append(p *partition, b *kmsg.RecordBatch, raw []byte) int64 {
	kept := append([]byte(nil), raw...)
	first := p.end
	binary.BigEndian.PutUint64(kept, uint64(first))
	binary.BigEndian.PutUint32(kept[12:], uint32(p.lead.epoch))
	p.end += int64(b.LastOffsetDelta) + 1
	p.batches = append(p.batches, &batch{
		first: first, last: p.end - 1, raw: kept, producer: b.ProducerID, maxMs: b.MaxTimestamp,
		txn: b.Attributes&attrTransactional != 0, control: b.Attributes&attrControl != 0,
	})
	c.appended.fire()
	return first
}

const (
	attrTransactional = 0x10
	attrControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeBatch makes the bytes of a batch around its records.
func encodeBatch(b *kmsg.RecordBatch) []byte {
	b.Magic, b.Length = 2, int32(49+len(b.Records))
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	return raw
}

// mark writes the marker that ends a transaction in this partition.
func (c *Cluster) mark(p *partition, producer int64, epoch int16, commit bool) {
	kind := byte(0)
	if commit {
		kind = 1
	}
	now := time.Now().UnixMilli()
	// A record of key (version 0, kind) and value (version 0, coordinator epoch 0).
	record := []byte{0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 0, 0}
	b := kmsg.RecordBatch{
		Attributes: attrTransactional | attrControl, FirstTimestamp: now, MaxTimestamp: now, ProducerID: producer,
		ProducerEpoch: epoch, FirstSequence: -1, NumRecords: 1, Records: append([]byte{byte(len(record) << 1)}, record...),
	}
	for i, t := range p.open {
		if t.producer != producer {
			continue
		}
		p.open = append(p.open[:i:i], p.open[i+1:]...)
		if !commit {
			p.aborted = append(p.aborted, abortedTxn{producer, t.first, p.end})
		}
		for _, old := range p.batches[p.find(t.first):] {
			if old.producer == producer {
				old.committed = commit
			}
		}
		break
	}
	c.append(p, &b, encodeBatch(&b))
	if s := p.producer(producer); epoch >= s.epoch {
		*s = producerState{epoch: epoch}
	}
}
