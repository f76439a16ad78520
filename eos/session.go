package eos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
)

// session is one generation of group membership: from the moment that partitions are assigned until
// they are given back. Everything gathered in memory belongs to a session and dies with it.
type session struct {
	unit     *Unit
	member   member
	tableID  [16]byte
	topicIDs map[string][16]byte // of table, input and loop
	producer *producers
	parts    map[int32]*partition
	ordered  []*partition

	events atomic.Int64 // committed

	work chan struct{} // capacity 1: something was processed
	room *room         // back-pressure

	ctx    context.Context // ends with the session, or with its first error
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when commitLoop has ended

	// Commits do not end with ctx: one that is cut off has an unknown outcome, and its records would be
	// processed again after every rebalance. They end with close, which bounds them.
	commits     context.Context
	stopCommits context.CancelFunc

	mu     sync.Mutex // guards broken
	broken error      // why nothing of this session may be committed any more
}

// errSessionOver is the cause of a session's end when nothing went wrong.
var errSessionOver = errors.New("the session is over")

// openSession makes the session for the claims: fences dead owners, checks and recovers every
// partition, moves the claims to the exact positions, and commits once, which names this instance as
// the owner in the offsets' metadata and in the position records.
func (u *Unit) openSession(gs sarama.ConsumerGroupSession) (_ *session, err error) {
	s := &session{
		unit: u, member: member{id: gs.MemberID(), generation: gs.GenerationID()},
		parts: map[int32]*partition{}, work: make(chan struct{}, 1), room: newRoom(), done: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(gs.Context())
	s.commits, s.stopCommits = context.WithCancel(context.WithoutCancel(gs.Context()))
	context.AfterFunc(s.ctx, s.room.broadcast)
	defer func() {
		if err != nil {
			s.abandon(err)
		}
	}()
	claimed := gs.Claims()[u.cfg.Input]
	u.log.Info("partitions assigned", "generation", s.member.generation, "partitions", claimed)
	u.closeOthers(claimed)
	if err := u.onlyOne(s.ctx, s.member.id); err != nil {
		return nil, err
	}
	// First, and without any claim too: it ends what an earlier session or life of this instance left
	// open, which would hold back this session's stable offsets, or another member's.
	if s.producer, err = newProducers(s.ctx, u); err != nil {
		return nil, err
	}
	if len(claimed) == 0 {
		close(s.done)
		return s, nil
	}
	if err := s.recover(s.ctx, claimed); err != nil {
		return nil, err
	}
	u.cfg.Trace("recovered")
	if err := s.commit(s.ctx); err != nil {
		return nil, fmt.Errorf("opening commit: %w", err)
	}
	for _, p := range s.ordered {
		for _, src := range p.sources {
			// Both: Mark only moves forward, Reset only back.
			gs.MarkOffset(src.topic, p.id, src.next, "")
			gs.ResetOffset(src.topic, p.id, src.next, "")
		}
		p.mu.Lock()
		p.running = true
		p.mu.Unlock()
	}
	go s.run()
	return s, nil
}

func (s *session) run() {
	defer close(s.done)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watchTopics(s.ctx)
	}()
	defer func() { <-watched }()
	s.commitLoop(s.ctx)
}

// watchTopics ends the session when one of its topics is made again. Setup would see that, but a consumer
// that asks by name goes on in the new topic where the old one ended, if there is that much in it. One that is
// missing twice in a row ends it too: sarama looks for its leader for ever, and Consume decides (Unit.gone).
func (s *session) watchTopics(ctx context.Context) {
	tick := time.NewTicker(s.unit.cfg.topicsEvery)
	defer tick.Stop()
	names := slices.Collect(maps.Keys(s.topicIDs))
	for missing := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ids, err := s.unit.admin.topicIDs(ctx, names...)
		if err != nil && ctx.Err() == nil {
			s.unit.log.Warn("looking whether the topics are the same", "cause", err)
		}
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			missing = 0
		} else if missing++; missing > 1 {
			s.fail(err)
			return
		}
		for topic, id := range ids {
			if id != s.topicIDs[topic] {
				s.fail(Stop(ErrRecreated, "give the job a new name so that it computes its state anew from the new topic",
					"topic %s was deleted and created again while the job was running", topic))
			}
		}
	}
}

// fail ends the session and forbids its final commit; the first reason counts. A session whose context
// ended before (a rebalance, a shutdown) can still fail: a handler that breaks off half-way, a commit
// whose outcome is unknown.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.broken == nil {
		s.broken = err
	}
	s.mu.Unlock()
	s.cancel(err)
}

// failure is the reason for which the session is broken, nil if it is not.
func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// process runs the handler over a batch under its partition's lock.
func (s *session) process(b *batch) {
	p := s.parts[b.partition]
	if p == nil || !s.room.wait(s) {
		return // the session is over; the records stay uncommitted and are read again
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	src := p.source(b.topic)
	for _, msg := range b.records {
		if msg.Offset < src.next {
			continue // a claim may begin before the position that Setup moved it to
		}
		if err := p.handle(src, msg); err != nil {
			// Before the lock is given back: what the handler left half done must not be cut.
			s.fail(&HandlerError{Topic: msg.Topic, Partition: msg.Partition, Offset: msg.Offset, Err: err})
			break
		}
	}
	src.highWater = b.highWater
	p.publish(s.unit.cfg.CatchUpLag)
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// close ends the session after Goka's partition processors have stopped: the commit under way ends,
// one more follows, both within lastCommits; then nothing of this session touches state.
func (s *session) close() {
	s.cancel(errSessionOver)
	late := time.AfterFunc(s.unit.cfg.lastCommits, s.stopCommits)
	defer late.Stop()
	<-s.done
	if s.failure() == nil && s.producer != nil && len(s.parts) > 0 {
		// The generation may be over by now: then the broker fences this commit, and the next owner
		// processes the records again.
		if err := s.commit(s.commits); err != nil {
			s.unit.log.Info("final commit did not succeed; its records will be processed again", "cause", err)
		}
	}
	s.abandon(errSessionOver)
}

// abandon drops everything in memory. The local state stays, holding committed data alone.
func (s *session) abandon(err error) {
	s.cancel(err)
	s.stopCommits()
	s.unit.batches.drop(s)
	if s.producer != nil {
		s.producer.close()
	}
	for _, p := range s.parts {
		p.disk.take(nil)
	}
}

func (s *session) status() []PartitionStatus {
	out := make([]PartitionStatus, 0, len(s.ordered))
	for _, p := range s.ordered {
		p.mu.Lock()
		out = append(out, p.status())
		p.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b PartitionStatus) int { return int(a.Partition - b.Partition) })
	return out
}

// room is where callbacks wait while too much is uncommitted.
type room struct {
	mu   sync.Mutex
	cond *sync.Cond
}

func newRoom() *room {
	r := &room{}
	r.cond = sync.NewCond(&r.mu)
	return r
}

func (r *room) broadcast() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cond.Broadcast()
}

// wait returns once less than PendingBytesMax is uncommitted; false if the session ended.
func (r *room) wait(s *session) bool {
	if s.ctx.Err() != nil {
		return false
	}
	if s.uncommittedBytes() < s.unit.cfg.PendingBytesMax {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s.uncommittedBytes() >= s.unit.cfg.PendingBytesMax {
		if s.ctx.Err() != nil {
			return false
		}
		r.cond.Wait()
	}
	return s.ctx.Err() == nil
}

func (s *session) uncommittedBytes() int64 {
	var n int64
	for _, p := range s.ordered {
		n += p.gathered.bytes.Load()
	}
	return n
}

// HandlerError is an error of the handler at one record.
type HandlerError struct {
	Topic     string
	Partition int32
	Offset    int64
	Err       error
}

func (e *HandlerError) Error() string {
	return fmt.Sprintf("%s/%d@%d: %v", e.Topic, e.Partition, e.Offset, e.Err)
}

func (e *HandlerError) place() string {
	return fmt.Sprintf("%s/%d@%d", e.Topic, e.Partition, e.Offset)
}

// Unwrap answers the cause.
func (e *HandlerError) Unwrap() error { return e.Err }

// now is a seam for the age of local state.
var now = time.Now
