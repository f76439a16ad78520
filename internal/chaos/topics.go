package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// deletedWithin is the patience with a topic that is to be made again.
const deletedWithin = 30 * time.Second

// createTopics creates the input, and what stock Goka does not create by itself. Where tokens are tried it is created twice: a
// token of the first of its name must be refused.
func (r *run) createTopics(ctx context.Context) (err error) {
	r.input.topic, r.input.partitions = r.rules.Job().Input.Topic, r.cfg.Partitions
	if r.cfg.TokenReads > 0 {
		if r.input.earlier, err = r.create(ctx, r.input.topic); err != nil {
			return err
		}
		deleted, err := kadm.NewClient(r.client).DeleteTopic(ctx, r.input.topic)
		if err = errors.Join(err, deleted.Err); err != nil {
			return fmt.Errorf("delete topic %s: %w", r.input.topic, err)
		}
	}
	if r.input.id, err = r.create(ctx, r.input.topic); err != nil {
		return err
	}
	if r.cfg.Subject == Stock {
		_, err = r.create(ctx, r.names.Flags())
	}
	return err
}

// create creates a topic. One of its name that was deleted may still be there for a while.
func (r *run) create(ctx context.Context, topic string) (id [16]byte, err error) {
	adm := kadm.NewClient(r.client)
	for deadline := time.Now().Add(deletedWithin); ; {
		var created kadm.CreateTopicResponse
		created, err = adm.CreateTopic(ctx, int32(r.cfg.Partitions), int16(min(3, len(r.cfg.Brokers))), nil, topic)
		if err == nil {
			return created.ID, nil
		}
		if !errors.Is(err, kerr.TopicAlreadyExists) || time.Now().After(deadline) {
			return id, fmt.Errorf("create topic %s: %w", topic, err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return id, err
		}
	}
}
