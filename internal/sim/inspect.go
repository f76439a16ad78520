package sim

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Record is what a producer outside of the simulation writes, and what Committed answers.
type Record struct {
	Key, Value []byte
	Offset     int64
}

// Write appends records as an ordinary producer's batch that was acknowledged.
func (c *Cluster) Write(topic string, partition int32, records ...Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appendRecords(topic, partition, -1, records)
}

// WriteTransaction appends records whose transaction ends when its marker comes, late.
func (c *Cluster) WriteTransaction(commit bool, topic string, partition int32, records ...Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.producers++
	producer := c.producers
	p := c.partition(topic, partition)
	p.begin(producer)
	c.appendRecords(topic, partition, producer, records)
	c.after(c.faults.marker(), func() { c.mark(p, producer, 0, commit) })
}

func (c *Cluster) appendRecords(topic string, partition int32, producer int64, records []Record) {
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		LastOffsetDelta: int32(len(records) - 1), FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: producer, FirstSequence: -1, NumRecords: int32(len(records)),
	}
	if producer >= 0 {
		b.Attributes, b.FirstSequence = attrTransactional, 0
	} else {
		b.ProducerEpoch = -1
	}
	for i, r := range records {
		body := kbin.AppendVarint([]byte{0, 0}, int32(i)) // attributes, time delta, offset delta
		body = kbin.AppendVarintBytes(body, r.Key)
		body = kbin.AppendVarintBytes(body, r.Value)
		body = append(body, 0) // headers
		b.Records = append(kbin.AppendVarint(b.Records, int32(len(body))), body...)
	}
	c.append(c.partition(topic, partition), &b, encodeBatch(&b))
}

// Committed answers the records of a partition that are in no transaction or in one that has ended well, by what the
// coordinator decided: no reader's code is asked.
func (c *Cluster) Committed(topic string, partition int32) []*kgo.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	var raw []byte
	for _, b := range c.partition(topic, partition).batches {
		if !b.control && (!b.txn || b.committed) {
			raw = append(raw, b.raw...)
		}
	}
	fetched := kmsg.NewFetchResponseTopicPartition()
	fetched.Partition, fetched.RecordBatches = partition, raw
	decoded, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		IsolationLevel: kgo.ReadUncommitted(), Topic: topic, Partition: partition,
	}, &fetched, kgo.DefaultDecompressor(), nil)
	return decoded.Records
}

// LastCommitted is the offset of the last record that Committed answers, -2 where there is none.
func (c *Cluster) LastCommitted(topic string, partition int32) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range slices.Backward(c.partition(topic, partition).batches) {
		if !b.control && (!b.txn || b.committed) {
			return b.last
		}
	}
	return -2
}

// Offset answers what a group has committed, -1 for nothing.
func (c *Cluster) Offset(group, topic string, partition int32) (offset int64, metadata string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, m, _ := c.group(group).offset(spot{topic, partition}, false)
	return o, deref(m)
}

// Quiet tells whether every transaction has got its markers.
func (c *Cluster) Quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.names {
		for _, p := range c.topics[name].partitions {
			if len(p.open) > 0 {
				return false
			}
		}
	}
	for _, g := range c.groups {
		if len(g.pending) > 0 {
			return false
		}
	}
	return true
}

// TopicID is the ID of a topic.
func (c *Cluster) TopicID(topic string) [16]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics[topic].id
}
