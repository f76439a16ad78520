package eos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Reader reads chosen partitions of one topic, committed data alone, and knows its exact place: markers, aborted records
// and offsets that compaction emptied move Next although nothing is delivered for them. It sends fetch requests itself,
// one at a time to each leader, because kgo's consumer says nothing about what it passes over.
//
// It goes on through failovers and restarts of brokers, and stops at what only a person can mend: a position outside the
// log, a topic that is gone or was made again, a missing permission. It never resets a position.
//
// Memory is bounded: each leader has at most one answer under way or waiting while another is being used, so the bound is
// two answers of ReaderBytes a leader, as they are after decompression.
//
// Poll and Close are for one goroutine; Trouble is for any.
type Reader struct {
	cl      *kgo.Client
	topic   string
	id      [16]byte // of the topic; zero until it is known
	bytes   int32
	unzip   kgo.Decompressor
	cursors map[int32]*cursor
	order   []*cursor // rotates, so that no partition fills every answer

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	running    sync.WaitGroup
	answers    chan answer
	busy       map[int32]bool // leaders with a request under way
	refreshing bool           // metadata is being asked for
	missing    time.Time      // since when the topic has been missing
	stopped    error
	trouble    atomic.Pointer[error]
}

// Batch is what one answer of a leader holds of one partition. Every answer gives one, empty ones too (a leader answers
// within half a second): it tells that the reader is level, or how far behind.
type Batch struct {
	Partition int32
	// Records are data records, in order. They share the memory of the answer.
	Records []*kgo.Record
	// Next is the offset to read next: everything before it was delivered, or will never be.
	Next int64
	// Start, LSO and HighWatermark are the partition's bounds at some moment after Asked. After a failover LSO can be below
	// Next for a moment.
	Start, LSO, HighWatermark int64
	// Asked is when the request was sent.
	Asked time.Time
}

// Level tells whether nothing committed was left to read.
func (b *Batch) Level() bool { return b.Next >= b.LSO }

// ReaderOption tunes a Reader.
type ReaderOption func(*Reader)

// ReaderTopicID makes the reader refuse a topic of that name with another ID. Without it the first ID seen is kept to.
func ReaderTopicID(id [16]byte) ReaderOption { return func(r *Reader) { r.id = id } }

// ReaderBytes bounds one answer of one leader; the default is 16 MiB. A single larger batch of records is still read.
func ReaderBytes(n int32) ReaderOption { return func(r *Reader) { r.bytes = n } }

const (
	// fetchWait is how long a leader may hold a request for which it has nothing.
	fetchWait = 500 * time.Millisecond
	// partitionBytes bounds one partition's part of an answer.
	partitionBytes = 4 << 20
	// missingMax is how long a topic may be missing: a broker that has just started does not know every topic at once.
	missingMax = 15 * time.Second
	// doubtsMax is how often in a row a partition may give an answer that makes no sense before it is believed.
	doubtsMax = 4
)

// cursor is the place in one partition.
type cursor struct {
	partition int32
	next      int64
	leader    int32 // -1: not known
	epoch     int32
	asking    bool // it is part of a request under way
	alone     bool // the next request is for it alone
	failures  int  // in a row
	doubts    int
	retryAt   time.Time
}

// NewReader makes a reader that begins at the given offsets. It connects to nothing before Poll. Close must follow.
func NewReader(k *Kafka, topic string, starts map[int32]int64, options ...ReaderOption) (*Reader, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(k.Franz()...)
	if err != nil {
		return nil, fmt.Errorf("reader of %s: %w", topic, err)
	}
	r := &Reader{
		cl: cl, topic: topic, bytes: 16 << 20, unzip: kgo.DefaultDecompressor(),
		cursors: make(map[int32]*cursor, len(starts)), busy: map[int32]bool{},
		answers: make(chan answer, len(starts)+1), // so that no sender ever waits
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, set := range options {
		set(r)
	}
	for p, next := range starts {
		c := &cursor{partition: p, next: next, leader: -1}
		r.cursors[p] = c
		r.order = append(r.order, c)
	}
	return r, nil
}

// Poll waits for the next answer and gives its batches, at least one. What passes by itself is retried until ctx ends;
// the error is then the context's, and Trouble says what went on. Every other error is final, and a FailStop where the
// records are not to be had: ErrTruncated, ErrUnknownTopic, ErrRecreated tell which.
func (r *Reader) Poll(ctx context.Context) ([]Batch, error) {
	wake := time.NewTimer(0)
	defer wake.Stop()
	for r.stopped == nil {
		wait := r.ask()
		wake.Reset(wait)
		select {
		case a := <-r.answers:
			batches, err := a.take(r)
			if err != nil {
				r.stopped = err
			} else if len(batches) > 0 {
				r.ask() // the next answer is fetched while this one is being used
				return batches, nil
			}
		case <-wake.C:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), r.Trouble())
		}
	}
	return nil, r.stopped
}

// Trouble is the last failure, nil after any success: what Poll is retrying.
func (r *Reader) Trouble() error {
	if err := r.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *Reader) note(err error) {
	if err == nil {
		r.trouble.Store(nil)
		return
	}
	err = fmt.Errorf("read %s: %w", r.topic, err)
	r.trouble.Store(&err)
}

// TopicID is the ID of the topic that is read; it is zero before the first answer.
func (r *Reader) TopicID() [16]byte { return r.id }

// Close ends every request and waits for that.
func (r *Reader) Close() {
	r.cancel()
	r.running.Wait()
	r.cl.Close()
}

// answer is what came back from a request; take folds it into the reader, on Poll's goroutine.
type answer interface {
	take(r *Reader) ([]Batch, error)
}

// ask sends whatever can be sent: one request to each leader that has none, and one for metadata if a leader is not
// known. It answers how long until there is more to send, unless an answer comes first.
func (r *Reader) ask() time.Duration {
	now := time.Now()
	wait := time.Minute
	requests := map[int32][]*cursor{}
	refresh := false
	for _, c := range r.order {
		switch {
		case c.asking:
		case now.Before(c.retryAt):
			wait = min(wait, c.retryAt.Sub(now))
		case c.leader < 0:
			refresh = true
		case !r.busy[c.leader]:
			requests[c.leader] = append(requests[c.leader], c)
		}
	}
	if refresh && !r.refreshing {
		r.refreshing = true
		r.spawn(r.fetchMetadata)
	}
	for leader, cursors := range requests {
		for _, c := range cursors {
			if c.alone {
				cursors = []*cursor{c}
				break
			}
		}
		f := &fetch{leader: leader, cursors: cursors, asked: now, request: r.request(cursors)}
		r.busy[leader] = true
		r.spawn(func() answer { return f.run(r) })
	}
	if len(r.order) > 1 {
		r.order = append(r.order[1:], r.order[0])
	}
	return wait
}

func (r *Reader) spawn(work func() answer) {
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		r.answers <- work()
	}()
}

// request is one outside of fetch sessions: each carries its whole list of partitions, and no state is left to lose.
func (r *Reader) request(cursors []*cursor) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel = 1 // read_committed
	req.MinBytes = 1
	req.MaxBytes = r.bytes
	req.MaxWaitMillis = int32(fetchWait.Milliseconds())
	req.SessionID, req.SessionEpoch = 0, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = r.topic, r.id
	for _, c := range cursors {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition = c.partition
		p.CurrentLeaderEpoch = c.epoch
		p.FetchOffset = c.next
		p.PartitionMaxBytes = min(partitionBytes, r.bytes)
		t.Partitions = append(t.Partitions, p)
		c.asking = true
		if c.alone {
			req.MaxWaitMillis = 0
		}
	}
	req.Topics = append(req.Topics, t)
	return req
}

// fail lets a cursor look for its leader again, later each time.
func (c *cursor) fail() {
	c.failures++
	c.leader = -1
	c.retryAt = time.Now().Add(backoff(c.failures))
}

// metadata is what the cluster says about the topic.
type metadata struct {
	topic *kmsg.MetadataResponseTopic
	err   error
}

func (r *Reader) fetchMetadata() answer {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(r.topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(r.ctx, r.cl)
	if err == nil && len(resp.Topics) != 1 {
		err = fmt.Errorf("metadata of %d topics, asked for 1", len(resp.Topics))
	}
	if err != nil {
		return metadata{err: err}
	}
	return metadata{topic: &resp.Topics[0]}
}

func (m metadata) take(r *Reader) ([]Batch, error) {
	r.refreshing = false
	err := m.err
	if err == nil {
		err = kerr.ErrorForCode(m.topic.ErrorCode)
	}
	if err == nil {
		r.missing = time.Time{}
		return nil, m.place(r)
	}
	if r.ctx.Err() == nil && isDenied(err) {
		return nil, fmt.Errorf("read %s: %w", r.topic, err)
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		if r.missing.IsZero() {
			r.missing = time.Now()
		}
		if time.Since(r.missing) > missingMax {
			return nil, Stop(ErrUnknownTopic, "create it, or name the right brokers", "topic %s does not exist", r.topic)
		}
	}
	r.note(err)
	for _, c := range r.order {
		if c.leader < 0 && !c.asking {
			c.fail()
		}
	}
	return nil, nil
}

// place notes who leads each partition.
func (m metadata) place(r *Reader) error {
	if r.id == ([16]byte{}) {
		r.id = m.topic.TopicID
	}
	if id := m.topic.TopicID; id != r.id {
		return Stop(ErrRecreated, "what was read from the old one is not in the new one: give the job a new name, or restore the topic",
			"topic %s was deleted and created again (its ID was %x and is %x)", r.topic, r.id, id)
	}
	found := map[int32]bool{}
	for i := range m.topic.Partitions {
		p := &m.topic.Partitions[i]
		found[p.Partition] = true
		c := r.cursors[p.Partition]
		if c == nil || c.asking || c.leader >= 0 {
			continue
		}
		// REPLICA_NOT_AVAILABLE comes with a leader, and is no fault (Kafka: MetadataCache).
		if p.Leader < 0 {
			r.note(fmt.Errorf("partition %d: %w", p.Partition, kerr.LeaderNotAvailable))
			c.fail()
			continue
		}
		c.leader, c.epoch = p.Leader, p.LeaderEpoch
	}
	for p := range r.cursors {
		if !found[p] {
			return Stop(ErrUnknownTopic, "restore the topic with as many partitions as it had", "topic %s has no partition %d (it has %d)", r.topic, p, len(found))
		}
	}
	return nil
}

// isDenied tells errors that retrying does not mend.
func isDenied(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) ||
		errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.UnsupportedSaslMechanism) || errors.Is(err, kerr.InvalidTopicException)
}
