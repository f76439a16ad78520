package ops

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
)

// TopicsReport is what Topics found and did.
type TopicsReport struct {
	*eos.TopicReport
	Created []string
	ACLs    []eos.ACL
}

// Topics looks at every topic of the plan; with create it first makes those that do not exist.
func Topics(ctx context.Context, k *eos.Kafka, plan *eos.TopicPlan, create bool) (*TopicsReport, error) {
	cl, err := kgo.NewClient(k.Franz()...)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	report := &TopicsReport{ACLs: plan.ACLs()}
	if create {
		report.Created, err = eos.EnsureTopics(ctx, adm, plan)
		switch {
		case errors.Is(err, kerr.InvalidReplicationFactor):
			return nil, &Problem{What: err.Error(), Mend: "say --replication N, at most the number of brokers", Err: err}
		case errors.Is(err, eos.ErrUnknownTopic):
			return nil, &Problem{What: err.Error(), Mend: "say how many --partitions it is to have", Err: err}
		case err != nil:
			return nil, err
		}
	}
	report.TopicReport, err = eos.CheckTopics(ctx, adm, plan)
	return report, err
}
