package eos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// deleted is the fail-stop of a job that has counted and whose input, table or loop is missing. To wait for it, or to create
// it, would only hide that, and be in the way of who restores it. A job that has not counted yet may lack all three.
func (u *Unit) deleted(ctx context.Context, plan *TopicPlan) error {
	since := time.Now()
	for failures := 1; ; failures++ {
		stop, err := u.lookForDeleted(ctx, plan)
		if err != nil || stop == nil {
			return err
		}
		if time.Since(since) > missingMax { // a broker that has just started does not know every topic at once
			return stop
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(backoff(failures)):
		}
	}
}

func (u *Unit) lookForDeleted(ctx context.Context, plan *TopicPlan) (stop *FailStop, err error) {
	report, err := CheckTopics(ctx, u.admin.adm, plan)
	if err != nil {
		return nil, err
	}
	input, table, loop := report.Topic(RoleInput), report.Topic(RoleTable), report.Topic(RoleLoop)
	switch {
	case !table.Exists, !loop.Exists:
		lost, what := table, "table"
		if table.Exists {
			lost, what = loop, "loop"
		}
		offsets, err := u.admin.adm.FetchOffsets(ctx, plan.Names.Group())
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // the embedded broker knows no group without members
			return nil, fmt.Errorf("fetch offsets of group %s: %w", plan.Names.Group(), err)
		}
		for topic, of := range offsets {
			for p, o := range of {
				if o.Err == nil && o.At >= 0 {
					return &FailStop{
						Err:   ErrUnknownTopic,
						Fault: fmt.Sprintf("topic %s does not exist, but group %s has offset %d for %s/%d: the %s was deleted", lost.Name, plan.Names.Group(), o.At, topic, p, what),
						Mend:  "restore the " + what + ", or give the job a new name",
					}, nil
				}
			}
		}
	case !input.Exists:
		spans, err := u.admin.ends(ctx, table.Name)
		if err != nil {
			return nil, err
		}
		for p, span := range spans {
			if span.HW > 0 {
				return &FailStop{
					Err:   ErrUnknownTopic,
					Fault: fmt.Sprintf("topic %s does not exist, but %s/%d holds what the job has counted from it: the input was deleted", input.Name, table.Name, p),
					Mend:  "restore the input, or give the job a new name and a new input",
				}, nil
			}
		}
	}
	return nil, nil
}
