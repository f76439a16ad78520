package processor

import (
	"context"
	"errors"
	"time"

	"github.com/tidemark/tidemark/eos"
)

// topicsRetry is how long to wait before asking for brokers and input again.
const topicsRetry = time.Second

// prepareTopics waits for the brokers and for the input topic, creates what else is missing, and refuses
// topics under which a guarantee would not hold (*eos.FailStop).
func (p *Processor) prepareTopics(ctx context.Context) error {
	job := p.cfg.Rules.Job()
	plan := &eos.TopicPlan{
		Names: p.names, Input: job.Input.Topic, Replication: p.cfg.Replication,
		WatchHorizon:     time.Duration(job.WatchHorizonMs) * time.Millisecond,
		LocalStateMaxAge: p.cfg.Unit.LocalStateMaxAge,
	}
	said := ""
	for {
		report, err := p.unit.PrepareTopics(ctx, plan)
		if err == nil {
			for _, f := range report.Faults {
				p.log.Warn("topic", "fault", f.Fault, "mend", f.Mend)
			}
			p.partitions = report.Topic(eos.RoleInput).Partitions
			return nil
		}
		var stop *eos.FailStop
		if errors.As(err, &stop) {
			return err
		}
		if err.Error() != said {
			said = err.Error()
			if errors.Is(err, eos.ErrUnknownTopic) {
				p.log.Warn("waiting for the input topic; create it with `tidemark topics --create` or `tidemark produce --create-topics`", "topic", plan.Input)
			} else {
				p.log.Warn("waiting for Kafka", "brokers", p.cfg.Kafka.Brokers, "cause", err)
			}
		}
		if !pause(ctx, topicsRetry) {
			return ctx.Err()
		}
	}
}
