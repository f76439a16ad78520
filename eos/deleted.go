package eos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// patiently tries what is answered by a stop again for missingMax: a broker that has just started does not know every topic,
// and every other broker, at once.
func patiently(ctx context.Context, try func() (*FailStop, error)) error {
	since := time.Now()
	for failures := 1; ; failures++ {
		stop, err := try()
		if err != nil || stop == nil {
			return err
		}
		if time.Since(since) > missingMax {
			return stop
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(backoff(failures)):
		}
	}
}

// deleted is the fail-stop of a job that has begun and of which a topic is missing: PrepareTopics made all of them before.
// To wait for it, or to create it, would only hide that, and be in the way of who restores it. A job that has not begun may
// lack any of them.
func (u *Unit) deleted(ctx context.Context, plan *TopicPlan, report *TopicReport) (*FailStop, error) {
	var lost, mends []string
	for _, t := range report.Topics {
		if !t.Exists {
			lost = append(lost, fmt.Sprintf("the %s %s", t.Role, t.Name))
			mends = append(mends, fmt.Sprintf("restore the %s, or %s", t.Role, insteadOf[t.Role]))
		}
	}
	if len(lost) == 0 {
		return nil, nil
	}
	begun, err := u.begun(ctx, plan, report.Topic(RoleTable))
	if err != nil || begun == "" {
		return nil, err
	}
	return Stop(ErrUnknownTopic, strings.Join(mends, "; "), "deleted since the job began (%s): %s", begun, strings.Join(lost, ", ")), nil
}

// insteadOf is what else than restoring it helps where a topic was deleted.
var insteadOf = map[Role]string{
	RoleInput:       "give the job a new name and a new input",
	RoleTable:       "give the job a new name",
	RoleLoop:        "give the job a new name",
	RoleFlags:       "create them empty with `tidemark topics --create`",
	RoleDeadLetters: "create them empty with `tidemark topics --create`",
}

// begun is by what one sees that a member of the job has opened a session; "" where none has.
func (u *Unit) begun(ctx context.Context, plan *TopicPlan, table *TopicState) (string, error) {
	group := plan.Names.Group()
	offsets, err := u.admin.adm.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // the embedded broker knows no group without members
		return "", fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	for topic, of := range offsets {
		for p, o := range of {
			if o.Err == nil && o.At >= 0 {
				return fmt.Sprintf("group %s has offset %d for %s/%d", group, o.At, topic, p), nil
			}
		}
	}
	if !table.Exists {
		return "", nil
	}
	spans, err := u.admin.ends(ctx, table.Name)
	if err != nil {
		return "", err
	}
	for p, span := range spans {
		if span.HW > 0 {
			return fmt.Sprintf("%s/%d holds what it has counted", table.Name, p), nil
		}
	}
	return "", nil
}
