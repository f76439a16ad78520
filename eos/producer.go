package eos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producer is the transactional producer of one session. There is no abort: after any error the
// producer is closed and a later session's InitProducerId ends what it left open (never roll back
// in memory and go on: the outcome of a commit whose answer was lost is unknown).
//
// With transactions v2 (KIP-890, transaction.version 2) a commit is two round trips: the records and
// the offsets travel side by side, then EndTxn. Older brokers need AddPartitionsToTxn (the client
// sends it) and AddOffsetsToTxn (sent here) before.
type producer struct {
	cl    *kgo.Client
	txnID string
	group string
	v2    bool
	trace func(step string)
}

// batchBytesMax is the largest record batch; every topic of a job takes it (see topics.go).
const batchBytesMax = 1_000_000

func newProducer(ctx context.Context, u *Unit) (*producer, error) {
	p := &producer{txnID: u.transactionalID(), group: u.cfg.Names.Group(), trace: u.cfg.Trace}
	var err error
	p.v2, err = u.admin.transactionsV2(ctx)
	if err != nil {
		return nil, err
	}
	p.cl, err = kgo.NewClient(u.cfg.Kafka.Franz(
		kgo.ClientID(u.cfg.Instance),
		kgo.TransactionalID(p.txnID),
		kgo.TransactionTimeout(u.cfg.TransactionTimout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// Nothing leaves before Flush: one request a broker and commit, not one for the first record.
		kgo.ProducerLinger(time.Minute),
		kgo.StopProducerOnDataLossDetected(),
		kgo.MaxBufferedRecords(1<<30),
		kgo.ProducerBatchMaxBytes(batchBytesMax),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.ConcurrentTransactionsBackoff(2*time.Millisecond),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(time.Duration(tries*tries)*5*time.Millisecond, 500*time.Millisecond)
		}),
		kgo.RecordDeliveryTimeout(u.cfg.TransactionTimout),
		kgo.RetryTimeout(u.cfg.TransactionTimout),
	)...)
	if err != nil {
		return nil, fmt.Errorf("transactional producer: %w", err)
	}
	// InitProducerId: fences an earlier life of this instance and ends what it left open.
	if _, _, err := p.cl.ProducerID(ctx); err != nil {
		p.cl.Close()
		return nil, fmt.Errorf("init transactional producer %q: %w", p.txnID, err)
	}
	return p, nil
}

func (p *producer) close() { p.cl.Close() }

// member is the group membership that a commit is valid for (KIP-447).
type member struct {
	id         string
	generation int32
}

// commit writes the cuts in one transaction. After an error the outcome is unknown.
func (p *producer) commit(ctx context.Context, m member, cuts []*cut) (send, end time.Duration, err error) {
	start := time.Now()
	if err := p.cl.BeginTransaction(); err != nil {
		return 0, 0, fmt.Errorf("begin transaction: %w", err)
	}
	id, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("producer id: %w", err)
	}
	// The two requests end before commit returns, so nothing of a failed commit runs on.
	offsets := make(chan error, 1)
	go func() { offsets <- p.sendOffsets(ctx, id, epoch, m, cuts) }()
	err = errors.Join(p.sendRecords(ctx, cuts), <-offsets)
	send = time.Since(start)
	if err != nil {
		return send, 0, err
	}
	p.trace("before EndTxn")
	if err := p.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return send, 0, fmt.Errorf("end transaction: %w", err)
	}
	p.trace("after EndTxn")
	return send, time.Since(start) - send, nil
}

func (p *producer) sendRecords(ctx context.Context, cuts []*cut) error {
	var (
		mu    sync.Mutex
		first error
	)
	done := func(r *kgo.Record, err error) {
		if err != nil {
			mu.Lock()
			if first == nil {
				first = fmt.Errorf("write to %s/%d: %w", r.Topic, r.Partition, err)
			}
			mu.Unlock()
		}
	}
	p.trace("before Produce")
	for _, c := range cuts {
		for _, r := range c.outputs {
			p.cl.Produce(ctx, r, done)
		}
		for _, r := range c.table {
			p.cl.Produce(ctx, r, done)
		}
	}
	if err := p.cl.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	p.trace("after Produce")
	mu.Lock()
	defer mu.Unlock()
	return first
}

// sendOffsets adds the cuts' input positions to the transaction, fenced by the group's generation.
func (p *producer) sendOffsets(ctx context.Context, id int64, epoch int16, m member, cuts []*cut) error {
	if !p.v2 {
		if err := p.addOffsets(ctx, id, epoch); err != nil {
			return fmt.Errorf("add offsets to transaction: %w", err)
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.txnID, p.group, id, epoch
	req.MemberID, req.Generation = m.id, m.generation
	req.Topics = offsetTopics(cuts, p.txnID)
	p.trace("before TxnOffsetCommit")
	err := retryConcurrent(ctx, func() error {
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, tp := range t.Partitions {
				if err := kerr.ErrorForCode(tp.ErrorCode); err != nil {
					return err
				}
			}
		}
		return nil
	})
	p.trace("after TxnOffsetCommit")
	if err != nil {
		return fmt.Errorf("commit offsets in transaction: %w", err)
	}
	return nil
}

func (p *producer) addOffsets(ctx context.Context, id int64, epoch int16) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = p.txnID, id, epoch, p.group
	return retryConcurrent(ctx, func() error {
		resp, err := req.RequestWith(ctx, p.cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

func offsetTopics(cuts []*cut, owner string) []kmsg.TxnOffsetCommitRequestTopic {
	var topics []kmsg.TxnOffsetCommitRequestTopic
	index := map[string]int{}
	for _, c := range cuts {
		meta := OffsetMetadata{Seq: c.position.Seq, Owner: owner}.String()
		for _, src := range c.position.Sources {
			i, ok := index[src.Topic]
			if !ok {
				i = len(topics)
				index[src.Topic] = i
				t := kmsg.NewTxnOffsetCommitRequestTopic()
				t.Topic, t.TopicID = src.Topic, src.TopicID
				topics = append(topics, t)
			}
			tp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			tp.Partition, tp.Offset, tp.Metadata = c.p.id, src.Next, &meta
			topics[i].Partitions = append(topics[i].Partitions, tp)
		}
	}
	return topics
}

// retryConcurrent repeats f while the coordinator is still finishing the transaction before, or is
// moving. Every other error ends the commit.
func retryConcurrent(ctx context.Context, f func() error) error {
	for {
		err := f()
		var ke *kerr.Error
		if err == nil || !errors.As(err, &ke) || !ke.Retriable {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
