package eos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// WaitCaughtUp returns once the group, in all its members, has committed every record of the input that
// was deliverable when it was called, and then every record of the loop that these were re-keyed to.
// "Deliverable" leaves out markers and aborted records at the tail, at which no consumer ever arrives. What these commits
// wrote can be read then, too.
// It waits for this member's first session too: before that nothing has checked the offsets, rules and topics.
func (u *Unit) WaitCaughtUp(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-u.opened.ch:
	}
	for _, topic := range []string{u.cfg.Input, u.cfg.Names.Loop()} {
		if topic != u.cfg.Input {
			if err := u.waitStable(ctx, topic); err != nil {
				return err
			}
		}
		targets, err := u.lastDeliverable(ctx, topic)
		if err != nil {
			return err
		}
		if err := u.waitCommitted(ctx, topic, targets); err != nil {
			return err
		}
	}
	// Who reads next what these commits wrote is to find it.
	for _, topic := range []string{u.cfg.Names.Table(), u.cfg.Names.Flags(), u.cfg.Names.DeadLetters()} {
		if err := u.waitStable(ctx, topic); err != nil {
			return err
		}
	}
	return nil
}

// opened is closed with the first session that was opened.
type opened struct {
	once sync.Once
	ch   chan struct{}
}

// waitStable returns once no transaction is open below what the topic holds now. The markers of a commit are written one
// by one: the group's offsets can be committed to the eye while what the same commit wrote into the loop is still hidden.
func (u *Unit) waitStable(ctx context.Context, topic string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var first map[int32]Span
	for {
		spans, err := u.admin.ends(ctx, topic)
		if err != nil {
			return err
		}
		if first == nil {
			first = spans
		}
		stable := true
		for p, span := range spans {
			stable = stable && span.LSO >= first[p].HW
		}
		if stable {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lastDeliverable answers, for each partition that has any record, the offset after its last one.
func (u *Unit) lastDeliverable(ctx context.Context, topic string) (map[int32]int64, error) {
	spans, err := u.admin.ends(ctx, topic)
	if err != nil {
		return nil, err
	}
	targets := map[int32]int64{}
	for p, span := range spans {
		last, ok, err := u.lastOf(ctx, topic, p, span)
		if err != nil {
			return nil, fmt.Errorf("find the end of %s/%d: %w", topic, p, err)
		}
		if ok {
			targets[p] = last + 1
		}
	}
	return targets, nil
}

// lastOf is LastDeliverable for a log whose start moves: the loop is trimmed while it is looked at.
func (u *Unit) lastOf(ctx context.Context, topic string, p int32, span Span) (int64, bool, error) {
	for {
		last, ok, err := LastDeliverable(ctx, u.cfg.Kafka, topic, p, span)
		if !errors.Is(err, ErrTruncated) {
			return last, ok, err
		}
		spans, endsErr := u.admin.ends(ctx, topic)
		if endsErr != nil {
			return 0, false, endsErr
		}
		if spans[p].Start <= span.Start {
			return 0, false, err
		}
		span = spans[p]
	}
}

func (u *Unit) waitCommitted(ctx context.Context, topic string, targets map[int32]int64) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(targets) > 0 {
		var open []int32
		for p := range targets {
			open = append(open, p)
		}
		offsets, err := u.admin.fetchOffsets(ctx, u.cfg.Names.Group(), []string{topic}, open, false)
		if err == nil {
			for p, target := range targets {
				if o, ok := offsets[p][topic]; ok && o.offset >= target {
					delete(targets, p)
				}
			}
		} else if !isTransient(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// TrimLoop deletes the records of the loop topic that are applied and committed, for the partitions
// that this instance owns. The topic keeps everything otherwise.
func (u *Unit) TrimLoop(ctx context.Context) error {
	loop := u.cfg.Names.Loop()
	spans, err := u.admin.ends(ctx, loop)
	if err != nil {
		return err
	}
	for _, st := range u.Status() {
		src := st.Position.Source(loop)
		if src == nil || src.Next <= spans[st.Partition].Start {
			continue
		}
		if err := u.admin.trim(ctx, loop, st.Partition, src.Next); err != nil {
			return err
		}
	}
	return nil
}

// PrepareTopics checks the plan, creates what is missing of it, and answers the report. Faults that break a guarantee are a
// *FailStop, those of what exists before anything is created; an input that does not exist is ErrUnknownTopic; what else fails
// may pass.
func (u *Unit) PrepareTopics(ctx context.Context, plan *TopicPlan) (report *TopicReport, err error) {
	err = patiently(ctx, func() (stop *FailStop, err error) {
		if report, err = CheckTopics(ctx, u.admin.adm, plan); err != nil {
			return nil, err
		}
		return u.deleted(ctx, plan, report)
	})
	if err != nil {
		return nil, err
	}
	if err := report.stopBeforeCreating(); err != nil {
		return nil, err
	}
	if err := patiently(ctx, func() (*FailStop, error) { return u.create(ctx, plan) }); err != nil {
		return nil, err
	}
	if report, err = CheckTopics(ctx, u.admin.adm, plan); err != nil {
		return nil, err
	}
	return report, report.Stop()
}

// create makes what is missing; its stop is an answer that trying again does not change.
func (u *Unit) create(ctx context.Context, plan *TopicPlan) (*FailStop, error) {
	created, err := EnsureTopics(ctx, u.admin.adm, plan)
	if len(created) > 0 {
		u.log.Info("created topics", "topics", created)
	}
	if mend := creationMend(err); mend != "" {
		return Stop(err, mend, "%v", err), nil
	}
	return nil, err
}
