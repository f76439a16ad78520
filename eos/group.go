package eos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
)

// ErrInstanceTaken: another live process runs under this instance name.
var ErrInstanceTaken = errors.New("instance name is taken")

// group is the sarama.ConsumerGroup that Goka gets. Its Consume joins again by itself until the
// context ends or the unit stops for good: Goka would sleep 5 s after every rebalance, and dies on
// any error of the group (goka v1.1.17, processor.go, rebalanceLoop).
type group struct {
	unit   *Unit
	client sarama.Client
	inner  sarama.ConsumerGroup
	errs   chan error
	keeps  bool // a member stays for the next life
	once   sync.Once
}

// newGroup is the goka.ConsumerGroupBuilder of the unit.
func (u *Unit) newGroup(brokers []string, groupID, _ string) (sarama.ConsumerGroup, error) {
	cfg, err := u.saramaConfig()
	if err != nil {
		return nil, err
	}
	client, err := sarama.NewClient(brokers, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %v: %w", brokers, err)
	}
	inner, err := sarama.NewConsumerGroupFromClient(groupID, client)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("consumer group %s: %w", groupID, err), client.Close())
	}
	return &group{unit: u, client: client, inner: inner, errs: make(chan error)}, nil
}

// Consume runs sessions until ctx ends (nil) or the unit stops for good (the reason).
func (g *group) Consume(ctx context.Context, topics []string, handler sarama.ConsumerGroupHandler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// What a silent broker is not told by then, the session timeout has told it.
	context.AfterFunc(ctx, func() {
		if !g.unit.cfg.weak.noCut {
			time.AfterFunc(g.unit.cfg.SessionTimeout, g.unit.links.cut)
		}
	})
	drained := make(chan struct{})
	go func() { // sarama blocks on unread errors
		defer close(drained)
		for err := range g.inner.Errors() {
			if stop := g.unit.inflated(err); stop != nil {
				g.unit.setFatal(stop)
				cancel()
				continue
			}
			g.unit.log.Info("consumer group", "cause", err)
		}
	}()
	defer func() { <-drained }()
	defer g.closeInner()
	defer func() {
		if ctx.Err() != nil && g.unit.keepsPlace() {
			g.keeps = true
			g.unit.links.cut() // sarama would leave the group
		}
	}()
	for first := true; ; first = false {
		taken, err := g.takePlace(ctx, first)
		if err != nil {
			g.unit.setFatal(err)
			return err
		}
		err = g.sessions(ctx, topics, handler)
		taken()
		var t *twin
		if !errors.As(err, &t) {
			return err
		}
		g.unit.stepBack(ctx, t)
	}
}

// takePlace waits until this instance may join the group, and has its dead earlier life dropped from it, if there is one. The func it
// answers ends that.
func (g *group) takePlace(ctx context.Context, first bool) (taken func(), err error) {
	if first && g.unit.cfg.weak.noSlot {
		g.unit.log.Debug("not looking for another of the same name")
		return func() {}, nil
	}
	dead, err := g.unit.waitForSlot(ctx)
	g.unit.slot.dead = dead
	if err != nil || dead == "" {
		return func() {}, err
	}
	ctx, over := context.WithCancel(context.WithoutCancel(ctx)) // a join that is pending at a stop waits for it, too
	var retiring sync.WaitGroup
	retiring.Go(func() { g.unit.retire(ctx, dead) })
	return func() { over(); retiring.Wait() }, nil
}

// sessions joins the group, again and again, until ctx ends, the unit stops for good, or another of its name is a member (twin).
func (g *group) sessions(ctx context.Context, topics []string, handler sarama.ConsumerGroupHandler) error {
	var failures attempts
	for ctx.Err() == nil {
		h := &sessionHandler{unit: g.unit, goka: handler}
		started := time.Now()
		err := h.judge(g.inner.Consume(ctx, topics, h))
		if ctx.Err() != nil {
			return g.lastWord(h)
		}
		if h.committed() {
			failures.reset()
		}
		if err == nil {
			g.unit.log.Info("session ended; joining again", "cause", h.cause)
			if time.Since(started) < shortSession {
				failures.wait(ctx)
			}
			continue
		}
		g.unit.setTrouble(err)
		if t := (*twin)(nil); errors.As(err, &t) {
			return err
		}
		stop := g.unit.forGood(err, &failures)
		if stop == nil {
			stop = g.unit.gone(ctx, err, &failures)
		}
		if stop != nil {
			g.unit.setFatal(stop)
			return stop
		}
		g.unit.log.Warn("session failed; joining again", "cause", err, "attempt", failures.n+1)
		g.unit.hanging(err, &failures)
		g.recoverFrom(ctx, err, topics)
		failures.wait(ctx)
	}
	return nil
}

// shortSession is a session so short that the next one has to wait: no loop of joins without a pause.
const shortSession = time.Second

// lastWord is what the last session before a shutdown has to say: a fault that only a person mends is
// said now, not at the next start.
func (g *group) lastWord(h *sessionHandler) error {
	if stop := g.unit.Err(); stop != nil {
		return stop
	}
	err := h.failure()
	if err == nil || isTransient(err) {
		return nil
	}
	g.unit.setFatal(err)
	return err
}

// recoverFrom looks coordinator and leaders up again: sarama's join does not do it after a connection
// error. An unstable offset is one that an open transaction hides, of a dead member or our own.
func (g *group) recoverFrom(ctx context.Context, err error, topics []string) {
	if errors.Is(err, sarama.ErrUnstableOffsetCommit) {
		ctx, cancel := context.WithTimeout(ctx, g.unit.cfg.TransactionTimeout)
		defer cancel()
		if err := g.unit.fenceAll(ctx, topics); err != nil {
			g.unit.log.Warn("fencing dead owners", "cause", err)
		}
		return
	}
	if err := g.client.RefreshCoordinator(g.unit.cfg.Names.Group()); err != nil {
		g.unit.log.Info("looking up the group's coordinator", "cause", err)
	}
	if err := g.client.RefreshMetadata(topics...); err != nil {
		g.unit.log.Info("looking up the leaders", "cause", err)
	}
}

// gone answers a FailStop where topics of the job have been missing for longer than a broker that has just started may not know
// them. Nothing brings them back: one that is made again is another one.
func (u *Unit) gone(ctx context.Context, err error, failures *attempts) error {
	unknown := errors.Is(err, ErrUnknownTopic) || errors.Is(err, kerr.UnknownTopicOrPartition) ||
		errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, sarama.ErrUnknownTopicOrPartition)
	if !unknown && failures.missing.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	n := u.cfg.Names
	missing, err := u.admin.missing(ctx, u.cfg.Input, n.Table(), n.Loop(), n.Flags(), n.DeadLetters())
	switch {
	case err != nil:
		u.log.Info("asking which topics exist", "cause", err)
	case len(missing) == 0:
		failures.missing = time.Time{}
	case failures.missing.IsZero():
		failures.missing = time.Now()
	case time.Since(failures.missing) > missingMax:
		return Stop(ErrUnknownTopic, "restore the topic; or give the job a new name so that it computes its state anew, or, for flags and dead letters, create it empty with `tidemark topics --create`",
			"deleted while the job was running: topic %s", strings.Join(missing, ", "))
	}
	return nil
}

// hanging says what hides the group's offsets for so long that no open transaction can: fenceAll has ended those, and brokers end
// others after their timeout. But a coordinator passes over a partition that has no leader when a transaction's markers are due, and calls
// the transaction complete (KAFKA-20734, seen with 4.3.1). Only the markers that KIP-664 lets an administrator write help then.
func (u *Unit) hanging(err error, failures *attempts) {
	switch {
	case !errors.Is(err, sarama.ErrUnstableOffsetCommit):
		failures.hidden = time.Time{}
	case failures.hidden.IsZero():
		failures.hidden = time.Now()
	case time.Since(failures.hidden) > hangingAfter:
		u.log.Error("a transaction that the brokers themselves have forgotten hides the group's offsets; nothing is lost, but nothing goes on",
			"group", u.cfg.Names.Group(), "since", failures.hidden,
			"mend", "find it with `kafka-transactions.sh find-hanging`, abort it with `kafka-transactions.sh abort` in each of its partitions, __consumer_offsets among them; see Hanging transactions in docs/exactly-once.md")
	}
}

// hangingAfter is longer than brokers take to end a transaction that nobody ends.
const hangingAfter = time.Minute

// neverMended are answers of brokers that trying again does not change. sarama has its own values.
var neverMended = []error{
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation,
	kerr.InvalidTransactionTimeout,
	kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
	kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism,
	sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed, sarama.ErrClusterAuthorizationFailed,
	sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrInvalidSessionTimeout,
}

// forGood answers the error with which the unit has to stop, nil if trying again may help. Fail-stops
// stop at once, as do answers that no retry mends. Faults of our own (the handler, the codec, the local
// state) would repeat for ever: they stop after failuresMax. Trouble with Kafka is waited out.
func (u *Unit) forGood(err error, failures *attempts) error {
	if !isTransient(err) {
		return err
	}
	if errors.Is(err, sarama.ErrInconsistentGroupProtocol) { // fencingStrategy.Name
		return Stop(err, "a changed job file needs a new name (its `name:`)",
			"group %s has members with other rules than this job file's (%.12s), or of another program (one that ended is a member for up to %v)",
			u.cfg.Names.Group(), u.cfg.Digest, u.cfg.SessionTimeout)
	}
	for _, never := range neverMended {
		if errors.Is(err, never) {
			return &FailStop{
				Fault: "trying again does not mend this: " + err.Error(), Err: err,
				Mend: "mend the cause named (topic settings or ACLs: see `tidemark topics`), then start again; nothing was lost",
			}
		}
	}
	var he *HandlerError
	var own *ownFault
	switch {
	case errors.As(err, &he) && failures.at(he.place()) >= failuresMax:
		return err
	case errors.As(err, &own) && failures.at("own") >= failuresMax:
		return err
	}
	return nil
}

// ownFault is trouble on our side of the connection: the codec, the local state.
type ownFault struct{ err error }

func (f *ownFault) Error() string { return f.err.Error() }
func (f *ownFault) Unwrap() error { return f.err }

func (g *group) Errors() <-chan error { return g.errs }

func (g *group) closeInner() {
	g.once.Do(func() {
		if err := g.inner.Close(); g.keeps {
			g.unit.log.Info("keeping this instance's place in the group for its next life")
		} else if err != nil {
			g.unit.log.Info("leaving the group", "cause", err)
		}
		if err := g.client.Close(); err != nil {
			g.unit.log.Info("closing the client", "cause", err)
		}
	})
}

// Close leaves the group, unless Consume has kept the place in it.
func (g *group) Close() error {
	g.closeInner()
	return nil
}

func (g *group) Pause(p map[string][]int32)  { g.inner.Pause(p) }
func (g *group) Resume(p map[string][]int32) { g.inner.Resume(p) }
func (g *group) PauseAll()                   { g.inner.PauseAll() }
func (g *group) ResumeAll()                  { g.inner.ResumeAll() }

// sessionHandler puts the unit's session around Goka's.
type sessionHandler struct {
	unit    *Unit
	goka    sarama.ConsumerGroupHandler
	session *session
	cause   error // why the membership's generation ended
}

// Setup opens the session, then lets Goka make its partition processors, whose tables are recovered.
func (h *sessionHandler) Setup(gs sarama.ConsumerGroupSession) error {
	if err := h.unit.slot.note(gs.MemberID(), h.unit.cfg.Digest); err != nil {
		h.unit.log.Info("noting the group member; a restart will wait for its session timeout", "cause", err)
	}
	s, err := h.unit.openSession(gs)
	if err != nil {
		h.cause = context.Cause(gs.Context())
		return err
	}
	h.session = s
	h.unit.publish(s)
	h.unit.setTrouble(nil)
	h.unit.opened.once.Do(func() { close(h.unit.opened.ch) })
	return h.goka.Setup(gs)
}

// Cleanup lets Goka stop its partition processors, after which no callback runs, then closes the
// session with a last commit.
func (h *sessionHandler) Cleanup(gs sarama.ConsumerGroupSession) error {
	if h.cause == nil {
		h.cause = context.Cause(gs.Context())
	}
	err := h.goka.Cleanup(gs)
	if h.session != nil {
		h.session.close()
	}
	h.unit.publish(nil)
	return err
}

// judge answers why the session failed, nil if it only ended: a generation that ends while its session
// is being opened is a rebalance like another.
func (h *sessionHandler) judge(err error) error {
	if reason := h.failure(); reason != nil {
		return reason
	}
	if h.session == nil && h.cause != nil && (errors.Is(err, h.cause) || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// committed tells whether the session has committed any record.
func (h *sessionHandler) committed() bool { return h.session != nil && h.session.events.Load() > 0 }

// ConsumeClaim gives Goka the claim in batches.
func (h *sessionHandler) ConsumeClaim(gs sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	s := h.session
	ctx, cancel := either(gs.Context(), s.ctx)
	defer cancel()
	b := newBatchClaim(s, claim)
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		b.pump(ctx)
	}()
	err := h.goka.ConsumeClaim(gs, b)
	cancel()
	<-pumped
	return err
}

func (h *sessionHandler) failure() error {
	if h.session == nil {
		return nil
	}
	return h.session.failure()
}

// failuresMax is how often sessions may end by the same fault of our own.
const failuresMax = 3

// attempts counts failures in a row, for backoff and for giving up where no progress is made.
type attempts struct {
	n       int
	places  map[string]int // failures at one record; a record that was handled never comes again
	missing time.Time      // since when a topic has been missing
	hidden  time.Time      // since when the group's offsets are hidden by a transaction
}

// reset follows progress. What failed at a record still counts: others may have made the progress.
func (a *attempts) reset() {
	a.n = 0
	delete(a.places, "own")
}

func (a *attempts) at(place string) int {
	if a.places == nil || len(a.places) > 1000 {
		a.places = map[string]int{}
	}
	a.places[place]++
	return a.places[place]
}

// wait backs off: at once after the first failure, then longer, 2 s at most.
func (a *attempts) wait(ctx context.Context) {
	d := min(time.Duration(a.n)*200*time.Millisecond, 2*time.Second)
	a.n++
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
