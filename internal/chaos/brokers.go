package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokerWithin is the patience with a cluster that has a broker fewer, or one that comes back.
const brokerWithin = 90 * time.Second

// beginBroker kills the broker that has the part in question, once no other is down.
func (r *run) beginBroker(ctx context.Context, n int, f fault, begin func(func() error)) error {
	for !r.broker.TryLock() {
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	err := r.settled(ctx)
	var node *kafkatest.Node
	if err == nil { // early in a run no broker may have the part yet
		var last error
		err = r.await(ctx, func(ctx context.Context) bool {
			node, last = r.nodeOf(ctx, f.kind)
			return last == nil
		})
		if err != nil {
			err = errors.Join(err, last)
		}
	}
	if err != nil {
		r.broker.Unlock()
		return fmt.Errorf("before %s: %w", f.kind, err)
	}
	r.mark(f.kind)
	r.say("fault %d: %s: %d (pid %d) for %v", n, f.kind, node.ID, node.PID(), f.lasts.Round(time.Millisecond))
	begin(func() error {
		defer r.broker.Unlock()
		return r.doBroker(ctx, f, node)
	})
	return nil
}

func (r *run) doBroker(ctx context.Context, f fault, node *kafkatest.Node) error {
	if err := node.Kill(); err != nil {
		return err
	}
	killed := time.Now()
	until := time.NewTimer(f.lasts)
	defer until.Stop()
	if err := r.await(ctx, func(ctx context.Context) bool { return r.forgotten(ctx, node.ID) }); err != nil {
		return fmt.Errorf("broker %d was killed, and Kafka still names it: %w", node.ID, err)
	}
	named := time.Since(killed)
	r.say("  Kafka named broker %d for %.1fs more", node.ID, named.Seconds())
	r.mu.Lock()
	r.report.NamedMax = max(r.report.NamedMax, named)
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil
	case <-until.C:
	}
	r.mark(markBroker)
	r.say("  broker %d starts again", node.ID)
	if err := node.Start(); err != nil {
		return err
	}
	ready, stop := context.WithTimeout(ctx, brokerWithin)
	defer stop()
	if err := r.cfg.Cluster.WaitReady(ready); err != nil {
		return err
	}
	return r.await(ctx, r.replicated)
}

// await asks until the answer is yes.
func (r *run) await(ctx context.Context, yes func(context.Context) bool) error {
	ctx, stop := context.WithTimeout(ctx, brokerWithin)
	defer stop()
	for !yes(ctx) {
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// nodeOf finds the broker with a part in the job.
func (r *run) nodeOf(ctx context.Context, kind string) (*kafkatest.Node, error) {
	adm := kadm.NewClient(r.client)
	id, err := int32(-1), error(nil)
	switch kind {
	case kindLeader:
		var m kadm.Metadata
		topic := r.rules.Job().Input.Topic
		m, err = adm.Metadata(ctx, topic)
		id = m.Topics[topic].Partitions[0].Leader
	case kindGroup:
		c := adm.FindGroupCoordinators(ctx, r.names.Group())[r.names.Group()]
		id, err = c.NodeID, c.Err
	case kindTransaction:
		name := r.names.TransactionalID(r.slots[0].task.Instance)
		c := adm.FindTxnCoordinators(ctx, name)[name]
		id, err = c.NodeID, c.Err
	default:
		id, err = r.controller(ctx)
	}
	for _, n := range r.cfg.Cluster.Nodes {
		if n.ID == id {
			return n, err
		}
	}
	return nil, errors.Join(fmt.Errorf("no broker %d", id), err)
}

// controller is the leader of the metadata quorum; what the metadata of clients calls controller is any broker (KIP-590).
func (r *run) controller(ctx context.Context) (int32, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic, partition := kmsg.NewDescribeQuorumRequestTopic(), kmsg.NewDescribeQuorumRequestTopicPartition()
	topic.Topic, topic.Partitions = "__cluster_metadata", append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil || len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		return -1, errors.Join(errors.New("no answer about the quorum"), err)
	}
	return resp.Topics[0].Partitions[0].LeaderID, nil
}

// forgotten tells whether Kafka names the broker no more, as leader or as coordinator of the job.
func (r *run) forgotten(ctx context.Context, id int32) bool {
	adm := kadm.NewClient(r.client)
	m, err := adm.Metadata(ctx, r.rules.Job().Input.Topic, r.names.Table(), r.names.Loop(), r.names.Flags())
	if err != nil {
		return false
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if p.Leader == id || p.Leader < 0 {
				return false
			}
		}
	}
	group := adm.FindGroupCoordinators(ctx, r.names.Group())[r.names.Group()]
	if group.Err != nil || group.NodeID == id {
		return false
	}
	for _, s := range r.slots {
		name := r.names.TransactionalID(s.task.Instance)
		if c := adm.FindTxnCoordinators(ctx, name)[name]; c.Err != nil || c.NodeID == id {
			return false
		}
	}
	return true
}

// replicated tells whether every replica of the cluster is in sync.
func (r *run) replicated(ctx context.Context) bool {
	m, err := kadm.NewClient(r.client).Metadata(ctx)
	if err != nil || len(m.Topics) == 0 {
		return false
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
				return false
			}
		}
	}
	return true
}
