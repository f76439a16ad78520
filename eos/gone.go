package eos

import (
	"context"
	"fmt"
	"time"
)

// gone is the fail-stop of a job that has counted and whose input or table is missing: it was deleted. To wait for it, or to
// create it, would only hide that. A job that has not counted yet may lack both.
func (u *Unit) gone(ctx context.Context, plan *TopicPlan) error {
	since := time.Now()
	for failures := 1; ; failures++ {
		stop, err := u.lookForGone(ctx, plan)
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

func (u *Unit) lookForGone(ctx context.Context, plan *TopicPlan) (stop *FailStop, err error) {
	report, err := CheckTopics(ctx, u.admin.adm, plan)
	if err != nil {
		return nil, err
	}
	input, table := report.Topic(RoleInput), report.Topic(RoleTable)
	switch {
	case !table.Exists:
		offsets, err := u.admin.adm.FetchOffsets(ctx, plan.Names.Group())
		if err != nil {
			return nil, fmt.Errorf("fetch offsets of group %s: %w", plan.Names.Group(), err)
		}
		for topic, of := range offsets {
			for p, o := range of {
				if o.Err == nil && o.At >= 0 {
					return &FailStop{
						Err:   ErrUnknownTopic,
						Fault: fmt.Sprintf("topic %s does not exist, but group %s has offset %d for %s/%d: the table was deleted", table.Name, plan.Names.Group(), o.At, topic, p),
						Mend:  "restore the table, or give the job a new name",
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
