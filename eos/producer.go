package eos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// lanes is how many transactional producers an instance takes turns with. EndTxn is answered when the
// decision is durable; the coordinator then writes the markers, 5 to 15 ms, and until it has, refuses to
// begin the next transaction of the same transactional.id (CONCURRENT_TRANSACTIONS). The next lane's can
// begin at once. The order of commits stays: one lane begins only after the other's EndTxn was answered,
// and the group coordinator keeps the offset that was written last, whichever marker arrives first
// (Kafka 4.3, OffsetMetadataManager.replayEndTransactionMarker).
const lanes = 3

// laneID is the transactional.id of one lane of an owner.
func laneID(owner string, lane int) string { return owner + "#" + strconv.Itoa(lane) }

// producers are the transactional producers of one session. There is no abort: after any error all are
// closed, and a later session's InitProducerId ends what they left open (never roll back in memory and
// go on: the outcome of a commit whose answer was lost is unknown).
type producers struct {
	lane [lanes]*producer
	next int
}

func newProducers(ctx context.Context, u *Unit) (*producers, error) {
	v2, err := u.admin.transactionsV2(ctx)
	if err != nil {
		return nil, err
	}
	ps := &producers{}
	for i := range ps.lane {
		if ps.lane[i], err = newProducer(ctx, u, laneID(u.transactionalID(), i), v2); err != nil {
			ps.close()
			return nil, err
		}
	}
	return ps, nil
}

// send writes the cuts in a transaction of the lane whose last one ended longest ago, and leaves it open.
func (ps *producers) send(ctx context.Context, m member, cuts []*cut) error {
	ps.next = (ps.next + 1) % lanes
	return ps.lane[ps.next].send(ctx, m, cuts)
}

// end commits what send wrote.
func (ps *producers) end(ctx context.Context) error { return ps.lane[ps.next].end(ctx) }

func (ps *producers) close() {
	for _, p := range ps.lane {
		if p != nil {
			p.cl.Close()
		}
	}
}

// producer is one lane. With transactions v2 (KIP-890, transaction.version 2) a commit is three round
// trips: the offsets, the records, EndTxn. Offsets and records could travel side by side, but the
// coordinator adds to a transaction one request at a time, and a broker that finds it busy waits 20 ms
// before it asks again (add.partitions.to.txn.retry.backoff.ms). Older brokers need
// AddPartitionsToTxn (the client sends it) and AddOffsetsToTxn (sent here) before.
type producer struct {
	cl    *kgo.Client
	txnID string
	group string
	owner string
	v2    bool
	trace func(step string)
	weak  weakness
}

// RecordBytesMax is the largest output that may be emitted: key, value and headers. The topics that carry
// the input's records take twice that (topics.go), for a batch has a little more around its records.
const RecordBytesMax = largeMessageBytes / 2

// batchBytes is the largest record batch of an output without a limit of its own.
const batchBytes = 1_000_000

// batchBytesMax is the largest record batch that goes to a topic: well under its max.message.bytes.
func batchBytesMax(n Names) func(topic string) int32 {
	return func(topic string) int32 {
		switch topic {
		case n.Loop(), n.DeadLetters():
			return largeMessageBytes - 1<<20
		case n.Table():
			return tableMessageBytes / 2
		}
		return batchBytes
	}
}

func newProducer(ctx context.Context, u *Unit, txnID string, v2 bool) (*producer, error) {
	p := &producer{txnID: txnID, group: u.cfg.Names.Group(), owner: u.transactionalID(), v2: v2, trace: u.cfg.Trace, weak: u.cfg.weak}
	var err error
	p.cl, err = kgo.NewClient(u.cfg.Kafka.Franz(
		kgo.ClientID(u.cfg.Instance),
		kgo.TransactionalID(p.txnID),
		kgo.TransactionTimeout(u.cfg.TransactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// Nothing leaves before Flush: one request a broker and commit, not one for the first record.
		kgo.ProducerLinger(time.Minute),
		kgo.StopProducerOnDataLossDetected(),
		kgo.MaxBufferedRecords(1<<30),
		kgo.ProducerBatchMaxBytesFn(batchBytesMax(u.cfg.Names)),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.ConcurrentTransactionsBackoff(concurrentBackoff),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(time.Duration(tries*tries)*5*time.Millisecond, 500*time.Millisecond)
		}),
		kgo.RecordDeliveryTimeout(u.cfg.TransactionTimeout),
		kgo.RetryTimeout(u.cfg.TransactionTimeout),
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

// member is the group membership that a commit is valid for (KIP-447).
type member struct {
	id         string
	generation int32
}

// send writes the cuts in one transaction. After an error it is not known what of it arrived.
func (p *producer) send(ctx context.Context, m member, cuts []*cut) error {
	if err := p.cl.BeginTransaction(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	id, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("producer id: %w", err)
	}
	if err := p.sendOffsets(ctx, id, epoch, m, cuts); err != nil {
		return err
	}
	return p.sendRecords(ctx, cuts)
}

// end commits the transaction. After an error the outcome is unknown.
func (p *producer) end(ctx context.Context) error {
	p.trace("before EndTxn")
	if err := p.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("end transaction: %w", err)
	}
	p.trace("after EndTxn")
	return nil
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
	if p.weak.noGeneration {
		req.MemberID, req.Generation = "", -1
	}
	req.Topics = offsetTopics(cuts, p.owner)
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

// concurrentBackoff is the wait before asking a busy transaction coordinator again.
const concurrentBackoff = 2 * time.Millisecond

// retryConcurrent repeats f while the coordinator is still finishing the transaction before, or is
// moving. Every other error ends the commit.
func retryConcurrent(ctx context.Context, f func() error) error {
	for {
		err := f()
		var ke *kerr.Error
		if err == nil || !errors.As(err, &ke) || !ke.Retriable && ke != kerr.ConcurrentTransactions {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(concurrentBackoff):
		}
	}
}
