package eos

import (
	"context"
	"errors"
	"fmt"
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
	drained := make(chan struct{})
	go func() { // sarama blocks on unread errors
		defer close(drained)
		for err := range g.inner.Errors() {
			g.unit.log.Info("consumer group", "cause", err)
		}
	}()
	defer func() { <-drained }()
	defer g.closeInner()
	if err := g.unit.waitForSlot(ctx); err != nil {
		g.unit.setFatal(err)
		return err
	}
	var failures attempts
	for ctx.Err() == nil {
		h := &sessionHandler{unit: g.unit, goka: handler}
		err := g.inner.Consume(ctx, topics, h)
		if reason := h.failure(); reason != nil {
			err = reason
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			failures.reset()
			continue // a rebalance
		}
		if stop := g.unit.forGood(err, &failures, h.progress); stop != nil {
			g.unit.setFatal(stop)
			return stop
		}
		g.unit.log.Warn("session ended; joining again", "cause", err, "attempt", failures.n)
		g.recoverFrom(ctx, err, topics)
		failures.wait(ctx)
	}
	return nil
}

// recoverFrom looks coordinator and leaders up again: sarama's join does not do it after a connection
// error. An unstable offset is one that the open transaction of a dead member hides.
func (g *group) recoverFrom(ctx context.Context, err error, topics []string) {
	if errors.Is(err, sarama.ErrUnstableOffsetCommit) {
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

// fenceAll fences the dead owners of all partitions, before any is assigned.
func (u *Unit) fenceAll(ctx context.Context, topics []string) error {
	ends, err := u.admin.ends(ctx, u.cfg.Input)
	if err != nil {
		return err
	}
	var partitions []int32
	for p := range ends {
		partitions = append(partitions, p)
	}
	offsets, err := u.admin.fetchOffsets(ctx, u.cfg.Names.Group(), topics, partitions, false)
	if err != nil {
		return err
	}
	return u.fenceDead(ctx, offsets)
}

// waitForSlot refuses an instance name that a live member of the group has. An earlier life of this
// very instance leaves the group after the session timeout at the latest, so it is waited for.
func (u *Unit) waitForSlot(ctx context.Context) error {
	deadline := time.Now().Add(2 * u.cfg.SessionTimeout)
	for ctx.Err() == nil {
		live, err := u.admin.liveInstances(ctx, u.cfg.Names.Group())
		switch {
		case err != nil:
			u.log.Warn("asking for the group's members", "cause", err)
			deadline = time.Now().Add(2 * u.cfg.SessionTimeout)
		case !live[u.cfg.Instance]:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%w: a live member of group %s is called %q; stop it, or give this one another --instance", ErrInstanceTaken, u.cfg.Names.Group(), u.cfg.Instance)
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return nil
}

// forGood answers the error with which the unit has to stop, nil if trying again may help. Fail-stops
// stop at once. A commit that fails at the same positions again and again would replay for ever: it
// stops after failuresMax attempts, or at once for a code that no retry mends.
func (u *Unit) forGood(err error, failures *attempts, progress uint64) error {
	if !isTransient(err) {
		return err
	}
	for _, never := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.InvalidRecord, kerr.PolicyViolation, kerr.SaslAuthenticationFailed} {
		if errors.Is(err, never) {
			return &FailStop{Fault: "a commit can never succeed: " + err.Error(), Mend: "mend the cause named (topic settings or ACLs: see `tidemark topics`), then start again; nothing was lost"}
		}
	}
	var he *HandlerError
	if errors.As(err, &he) && failures.again(progress) >= failuresMax {
		return err
	}
	return nil
}

func (g *group) Errors() <-chan error { return g.errs }

func (g *group) closeInner() {
	g.once.Do(func() {
		if err := g.inner.Close(); err != nil {
			g.unit.log.Info("leaving the group", "cause", err)
		}
		if err := g.client.Close(); err != nil {
			g.unit.log.Info("closing the client", "cause", err)
		}
	})
}

// Close leaves the group.
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
	unit     *Unit
	goka     sarama.ConsumerGroupHandler
	session  *session
	progress uint64
}

// Setup opens the session, then lets Goka make its partition processors, whose tables are recovered.
func (h *sessionHandler) Setup(gs sarama.ConsumerGroupSession) error {
	s, err := h.unit.openSession(gs)
	if err != nil {
		return err
	}
	h.session = s
	h.unit.publish(s)
	return h.goka.Setup(gs)
}

// Cleanup lets Goka stop its partition processors, after which no callback runs, then closes the
// session with a last commit.
func (h *sessionHandler) Cleanup(gs sarama.ConsumerGroupSession) error {
	err := h.goka.Cleanup(gs)
	if h.session != nil {
		h.session.close()
		for _, p := range h.session.ordered {
			h.progress += p.committed.Seq
		}
	}
	h.unit.publish(nil)
	return err
}

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

// failuresMax is how often a session may end by the same fault without any progress between.
const failuresMax = 3

// attempts counts failures in a row, for backoff and for giving up where no progress is made.
type attempts struct {
	n        int
	same     int
	progress uint64
}

func (a *attempts) reset() { *a = attempts{} }

func (a *attempts) again(progress uint64) int {
	if progress != a.progress {
		a.progress, a.same = progress, 0
	}
	a.same++
	return a.same
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
