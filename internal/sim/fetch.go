package sim

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetch answers when there is something, or when the longest wait is over.
func (c *Cluster) fetch(from *call, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) {
	until := time.Now().Add(time.Duration(req.MaxWaitMillis) * time.Millisecond)
	for {
		bytes, failed := c.read(from, req, resp)
		if failed || bytes >= int(max(req.MinBytes, 1)) || !time.Now().Before(until) || c.closed || from.broker.down || from.conn.in.isClosed() {
			return
		}
		c.await(&c.appended, until)
	}
}

// read makes the answer anew.
func (c *Cluster) read(from *call, req *kmsg.FetchRequest, resp *kmsg.FetchResponse) (bytes int, failed bool) {
	resp.Topics = resp.Topics[:0]
	left := int(req.MaxBytes)
	for i := range req.Topics {
		t := kmsg.NewFetchResponseTopic()
		t.Topic = req.Topics[i].Topic
		for j := range req.Topics[i].Partitions {
			rp := &req.Topics[i].Partitions[j]
			out := kmsg.NewFetchResponseTopicPartition()
			out.Partition, out.HighWatermark, out.LastStableOffset, out.LogStartOffset = rp.Partition, -1, -1, -1
			p := c.partition(t.Topic, rp.Partition)
			if out.ErrorCode = c.leads(from, p, rp.CurrentLeaderEpoch); out.ErrorCode == 0 {
				out.HighWatermark, out.LastStableOffset, out.LogStartOffset = p.end, p.lastStable(), p.start
				if rp.FetchOffset < p.start || rp.FetchOffset > p.end {
					out.ErrorCode = kerr.OffsetOutOfRange.Code
				} else {
					p.fill(&out, rp.FetchOffset, min(left, int(rp.PartitionMaxBytes)), bytes == 0, req.IsolationLevel == 1)
				}
			}
			failed = failed || out.ErrorCode != 0
			bytes += len(out.RecordBatches)
			left -= len(out.RecordBatches)
			t.Partitions = append(t.Partitions, out)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return bytes, failed
}

// fill gives whole batches up to room, the first one in any case if it may (KIP-74).
func (p *partition) fill(out *kmsg.FetchResponseTopicPartition, offset int64, room int, first, committed bool) {
	end := p.end
	if committed {
		end = p.lastStable()
		out.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
	}
	out.RecordBatches = []byte{}
	for _, b := range p.batches[p.find(offset):] {
		if b.first >= end || len(out.RecordBatches)+len(b.raw) > room && !(first && len(out.RecordBatches) == 0) {
			break
		}
		out.RecordBatches = append(out.RecordBatches, b.raw...)
	}
	if !committed {
		return
	}
	for _, t := range p.aborted {
		if t.last >= offset && t.first < end {
			a := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			a.ProducerID, a.FirstOffset = t.producer, t.first
			out.AbortedTransactions = append(out.AbortedTransactions, a)
		}
	}
}

func (c *Cluster) listOffsets(from *call, req *kmsg.ListOffsetsRequest, resp *kmsg.ListOffsetsResponse) {
	for i := range req.Topics {
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic = req.Topics[i].Topic
		for j := range req.Topics[i].Partitions {
			rp := &req.Topics[i].Partitions[j]
			out := kmsg.NewListOffsetsResponseTopicPartition()
			out.Partition = rp.Partition
			p := c.partition(t.Topic, rp.Partition)
			if out.ErrorCode = c.leads(from, p, rp.CurrentLeaderEpoch); out.ErrorCode == 0 {
				out.LeaderEpoch = p.lead.epoch
				switch {
				case rp.Timestamp == -2:
					out.Offset = p.start
				case rp.Timestamp == -1 && req.IsolationLevel == 1:
					out.Offset = p.lastStable()
				case rp.Timestamp == -1:
					out.Offset = p.end
				default:
					out.Offset, out.Timestamp = p.at(rp.Timestamp)
				}
			}
			t.Partitions = append(t.Partitions, out)
		}
		resp.Topics = append(resp.Topics, t)
	}
}

// at is the first batch with a record of that time or later.
func (p *partition) at(ms int64) (offset, found int64) {
	for _, b := range p.batches {
		if b.maxMs >= ms && b.first >= p.start {
			return b.first, b.maxMs
		}
	}
	return -1, -1
}

func (c *Cluster) deleteRecords(from *call, req *kmsg.DeleteRecordsRequest, resp *kmsg.DeleteRecordsResponse) {
	for i := range req.Topics {
		t := kmsg.NewDeleteRecordsResponseTopic()
		t.Topic = req.Topics[i].Topic
		for _, rp := range req.Topics[i].Partitions {
			out := kmsg.NewDeleteRecordsResponseTopicPartition()
			out.Partition, out.LowWatermark = rp.Partition, -1
			p := c.partition(t.Topic, rp.Partition)
			if out.ErrorCode = c.leads(from, p, -1); out.ErrorCode == 0 {
				if rp.Offset > p.end {
					out.ErrorCode = kerr.OffsetOutOfRange.Code
				} else {
					p.start = max(p.start, rp.Offset)
					out.LowWatermark = p.start
				}
			}
			t.Partitions = append(t.Partitions, out)
		}
		resp.Topics = append(resp.Topics, t)
	}
}
