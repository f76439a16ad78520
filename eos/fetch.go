package eos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetch is one request to one leader, and its answer.
type fetch struct {
	leader  int32
	cursors []*cursor
	asked   time.Time
	request *kmsg.FetchRequest
	parts   map[int32]part
	err     error
}

// part is the answer for one partition.
type part struct {
	batch Batch
	empty bool // not one byte came
	err   error
}

// run sends the request and decodes the answer, beside Poll.
func (f *fetch) run(r *Reader) answer {
	resp, err := r.cl.Broker(int(f.leader)).Request(r.ctx, f.request)
	if err != nil {
		f.err = err
		return f
	}
	answered := resp.(*kmsg.FetchResponse)
	if f.err = kerr.ErrorForCode(answered.ErrorCode); f.err != nil {
		return f
	}
	f.parts = make(map[int32]part, len(f.cursors))
	asked := map[int32]int64{}
	for i := range f.request.Topics[0].Partitions {
		p := &f.request.Topics[0].Partitions[i]
		asked[p.Partition] = p.FetchOffset
	}
	for i := range answered.Topics {
		for j := range answered.Topics[i].Partitions {
			p := &answered.Topics[i].Partitions[j]
			f.parts[p.Partition] = decodePart(r.topic, asked[p.Partition], p, r.unzip, f.asked)
		}
	}
	return f
}

// decodePart leaves out markers and aborted records, and says where to read next.
func decodePart(topic string, offset int64, p *kmsg.FetchResponseTopicPartition, unzip kgo.Decompressor, asked time.Time) part {
	decoded, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: p.Partition,
	}, p, unzip, nil)
	b := Batch{
		Partition: p.Partition, Records: decoded.Records, Next: next,
		Start: p.LogStartOffset, LSO: p.LastStableOffset, HighWatermark: p.HighWatermark, Asked: asked,
	}
	err := decoded.Err
	if next > offset {
		err = nil // what follows is asked for again
	}
	return part{batch: b, empty: len(p.RecordBatches) == 0, err: err}
}

func (f *fetch) take(r *Reader) ([]Batch, error) {
	delete(r.busy, f.leader)
	var batches []Batch
	for _, c := range f.cursors {
		c.asking = false
		p, ok := f.parts[c.partition]
		switch {
		case f.err != nil:
			p.err = f.err
		case !ok: // a broker that throttles leaves partitions out
			continue
		}
		if p.err == nil && !f.pass(r, c, &p) {
			continue
		}
		if p.err != nil {
			if err := f.fail(r, c, p.err); err != nil {
				return nil, err
			}
			continue
		}
		c.next, c.alone, c.failures, c.doubts = p.batch.Next, false, 0, 0
		batches = append(batches, p.batch)
	}
	if len(batches) > 0 {
		r.note(nil)
	}
	return batches, nil
}

// pass judges an answer that moved nothing although committed offsets lie ahead. With other partitions in the request
// their records may have filled the answer, so it is asked again alone. Alone, a broker always gives one batch if there
// is one (KIP-74), and the last stable offset that it names was taken before it read (Kafka: Partition.readRecords): so
// if nothing came, compaction has removed everything up to there. It answers whether the part is to be used.
func (f *fetch) pass(r *Reader, c *cursor, p *part) bool {
	if p.batch.Next > c.next || p.batch.Next >= p.batch.LSO {
		return true
	}
	if len(f.cursors) > 1 {
		c.alone = true
		return false
	}
	if p.empty {
		if !c.alone { // that answer was allowed to wait and may be cut short; this one is not
			c.alone = true
			return false
		}
		p.batch.Next = p.batch.LSO
		return true
	}
	p.err = fmt.Errorf("no whole record batch in the answer")
	return true
}

// fail decides what an error of one partition means: nil is that it is tried again.
func (f *fetch) fail(r *Reader, c *cursor, err error) error {
	err = fmt.Errorf("partition %d at offset %d: %w", c.partition, c.next, err)
	r.note(err)
	var protocol *kerr.Error
	switch {
	case r.ctx.Err() != nil:
		return nil
	case isDenied(err):
		return fmt.Errorf("read %s: %w", r.topic, err)
	case errors.Is(err, kerr.OffsetOutOfRange):
		if stop := r.outOfRange(c); stop != nil {
			return stop
		}
	case f.err == nil && !errors.As(err, &protocol):
		// The bytes came and make no sense. Another replica may have better ones, the same one once more may too.
		if c.doubts++; c.doubts > doubtsMax {
			return Stop(err, "look for a damaged log on the brokers, and restore the partition from a replica",
				"topic %s cannot be read: %v", r.topic, err)
		}
	}
	c.fail()
	return nil
}

// outOfRange asks for the partition's bounds. A leader that has just been elected may know its end late, so that end is
// doubted a few times; the start is not.
func (r *Reader) outOfRange(c *cursor) error {
	ctx, cancel := context.WithTimeout(r.ctx, answerTimeout)
	defer cancel()
	spans, err := Ends(ctx, r.cl, r.topic)
	if err != nil {
		return nil // tried again with the fetch
	}
	span, ok := spans[c.partition]
	if !ok || c.next >= span.Start && c.next <= span.HW {
		return nil
	}
	if c.doubts++; c.next > span.HW && c.doubts <= doubtsMax {
		return nil
	}
	return Truncated(r.topic, c.partition, c.next, span)
}

// Truncated is the FailStop of a position that its partition no longer holds, or does not hold yet.
func Truncated(topic string, partition int32, next int64, span Span) error {
	fault, mend := "were deleted before they were read", "restore them and raise the topic's retention, or give the job a new name"
	if next > span.HW {
		fault, mend = "were read and are gone: the topic was truncated", "restore the topic, or give the job a new name"
	}
	return Stop(ErrTruncated, mend, "position %d of %s/%d lies outside [%d, %d]: records %s", next, topic, partition, span.Start, span.HW, fault)
}

// Span is what a partition holds.
type Span struct {
	// Start is the first offset, LSO the last stable one (what read_committed sees ends before it), HW the high watermark.
	Start, LSO, HW int64
}

// Ends asks for the bounds of every partition of a topic. A topic that does not exist is ErrUnknownTopic.
func Ends(ctx context.Context, cl *kgo.Client, topic string) (map[int32]Span, error) {
	adm := kadm.NewClient(cl)
	spans := map[int32]Span{}
	// In this order, so that Start <= LSO <= HW.
	for _, of := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		set  func(*Span, int64)
	}{
		{adm.ListStartOffsets, func(s *Span, o int64) { s.Start = o }},
		{adm.ListCommittedOffsets, func(s *Span, o int64) { s.LSO = o }},
		{adm.ListEndOffsets, func(s *Span, o int64) { s.HW = o }},
	} {
		listed, err := of.list(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("%w: %s", ErrUnknownTopic, topic)
		}
		if err != nil {
			return nil, fmt.Errorf("ends of %s: %w", topic, err)
		}
		listed.Each(func(o kadm.ListedOffset) {
			span := spans[o.Partition]
			of.set(&span, o.Offset)
			spans[o.Partition] = span
		})
	}
	if len(spans) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrUnknownTopic, topic)
	}
	return spans, nil
}

// LastDeliverable gives the offset of the last record below span.LSO that a read_committed reader delivers; ok is false
// where there is none. It looks backwards in growing steps over markers, aborted records and what compaction removed,
// reading each step once.
func LastDeliverable(ctx context.Context, k *Kafka, topic string, partition int32, span Span) (offset int64, ok bool, err error) {
	for end, step := span.LSO, int64(1); end > span.Start; step *= 16 {
		start := max(end-step, span.Start)
		if offset, ok, err = lastBetween(ctx, k, topic, partition, start, end); ok || err != nil {
			return offset, ok, err
		}
		end = start
	}
	return 0, false, nil
}

func lastBetween(ctx context.Context, k *Kafka, topic string, partition int32, start, end int64) (last int64, ok bool, err error) {
	r, err := NewReader(k, topic, map[int32]int64{partition: start})
	if err != nil {
		return 0, false, err
	}
	defer r.Close()
	for next := start; next < end; {
		batches, err := r.Poll(ctx)
		if err != nil {
			return 0, false, fmt.Errorf("last record of %s/%d: %w", topic, partition, err)
		}
		for i := range batches {
			next = batches[i].Next
			for _, rec := range batches[i].Records {
				if rec.Offset < end {
					last, ok = rec.Offset, true
				}
			}
		}
	}
	return last, ok, nil
}
