package eos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// admin asks and tells brokers what no consumer or producer does: positions, members, fences.
type admin struct {
	cl  *kgo.Client
	adm *kadm.Client
}

func newAdmin(k *Kafka, instance string) (*admin, error) {
	cl, err := kgo.NewClient(k.Franz(kgo.ClientID(instance+"/admin"), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("administrative client: %w", err)
	}
	return &admin{cl: cl, adm: kadm.NewClient(cl)}, nil
}

func (a *admin) close() { a.cl.Close() }

func (a *admin) ends(ctx context.Context, topic string) (map[int32]Span, error) {
	return Ends(ctx, a.cl, topic)
}

func (a *admin) topicIDs(ctx context.Context, topics ...string) (map[string][16]byte, error) {
	details, err := a.adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", err)
	}
	ids := map[string][16]byte{}
	for _, t := range topics {
		d, ok := details[t]
		if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("topic %s: %w", t, kerr.UnknownTopicOrPartition)
		}
		if d.Err != nil {
			return nil, fmt.Errorf("topic %s: %w", t, d.Err)
		}
		ids[t] = d.ID
	}
	return ids, nil
}

func (a *admin) offsetAt(ctx context.Context, topic string, partition int32, ms int64) (int64, error) {
	offsets, err := a.adm.ListOffsetsAfterMilli(ctx, ms, topic)
	if err != nil {
		return 0, fmt.Errorf("offset of %s/%d at a time: %w", topic, partition, err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok || o.Err != nil {
		return 0, fmt.Errorf("offset of %s/%d at a time: %w", topic, partition, o.Err)
	}
	return o.Offset, nil
}

// transactionsV2 tells whether the cluster has finalized transaction.version 2 (KIP-890 part 2).
func (a *admin) transactionsV2(ctx context.Context) (bool, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "tidemark", "1"
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return false, fmt.Errorf("ask for the cluster's features: %w", err)
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" && f.MaxVersionLevel >= 2 {
			return true, nil
		}
	}
	return false, nil
}

// fetchOffsets reads the group's committed offsets. With stable set, the answer waits for no
// transaction but says so: UNSTABLE_OFFSET_COMMIT (KIP-447).
func (a *admin) fetchOffsets(ctx context.Context, group string, topics []string, partitions []int32, stable bool) (map[int32]map[string]groupOffset, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = group, stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	ids, err := a.topicIDs(ctx, topics...)
	if err != nil {
		return nil, err
	}
	names := map[[16]byte]string{}
	for _, t := range topics {
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = t, partitions
		req.Topics = append(req.Topics, rt)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.TopicID, gt.Partitions = t, ids[t], partitions
		g.Topics = append(g.Topics, gt)
		names[ids[t]] = t
	}
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	out := map[int32]map[string]groupOffset{}
	note := func(topic string, p int32, code int16, offset int64, meta *string) error {
		if err := kerr.ErrorForCode(code); err != nil {
			return fmt.Errorf("fetch offset of group %s for %s/%d: %w", group, topic, p, err)
		}
		o := groupOffset{offset: offset}
		if meta != nil && offset >= 0 {
			m, err := ParseOffsetMetadata(*meta)
			o.meta, o.known = m, err == nil
			if errors.Is(err, ErrFormat) {
				return fmt.Errorf("offset of group %s for %s/%d: %w", group, topic, p, err)
			}
		}
		if out[p] == nil {
			out[p] = map[string]groupOffset{}
		}
		out[p][topic] = o
		return nil
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := note(t.Topic, p.Partition, p.ErrorCode, p.Offset, p.Metadata); err != nil {
				return nil, err
			}
		}
	}
	for _, rg := range resp.Groups {
		if err := kerr.ErrorForCode(rg.ErrorCode); err != nil {
			return nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
		}
		for _, t := range rg.Topics {
			name := t.Topic
			if name == "" {
				name = names[t.TopicID]
			}
			for _, p := range t.Partitions {
				if err := note(name, p.Partition, p.ErrorCode, p.Offset, p.Metadata); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

// stableOffsets fences the former owners that are no live member, then answers the offsets once no
// open transaction can change them.
func (u *Unit) stableOffsets(ctx context.Context, topics []string, partitions []int32) (map[int32]map[string]groupOffset, error) {
	group := u.cfg.Names.Group()
	for {
		// What was committed last names the owner, whose open transaction may hide more.
		seen, err := u.admin.fetchOffsets(ctx, group, topics, partitions, false)
		if err != nil {
			return nil, err
		}
		if err := u.fenceDead(ctx, seen); err != nil {
			return nil, err
		}
		stable, err := u.admin.fetchOffsets(ctx, group, topics, partitions, true)
		if err == nil {
			return stable, nil
		}
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fenceDead ends the open transactions of former owners that have left the group or were thrown out
// of it: InitProducerId with their transactional.id aborts what is open and bumps the epoch, so that a
// frozen one that thaws is refused. Waiting for the transaction timeout instead takes 10 to 14 s,
// because brokers sweep every 10 s.
func (u *Unit) fenceDead(ctx context.Context, offsets map[int32]map[string]groupOffset) error {
	owners := map[string]bool{}
	for _, of := range offsets {
		for _, o := range of {
			if o.known && o.meta.Owner != "" && o.meta.Owner != u.transactionalID() {
				owners[o.meta.Owner] = true
			}
		}
	}
	if len(owners) == 0 {
		return nil
	}
	live, err := u.admin.liveInstances(ctx, u.cfg.Names.Group())
	if err != nil {
		return err
	}
	for owner := range owners {
		if live[strings.TrimPrefix(owner, u.cfg.Names.TransactionalPrefix())] {
			continue
		}
		start := time.Now()
		for lane := range lanes {
			if err := u.admin.fence(ctx, laneID(owner, lane)); err != nil {
				return fmt.Errorf("fence the dead owner %q: %w", owner, err)
			}
		}
		u.log.Info("fenced a dead owner", "owner", owner, "took", time.Since(start))
	}
	return nil
}

// liveInstances are the client ids of the group's members.
func (a *admin) liveInstances(ctx context.Context, group string) (map[string]bool, error) {
	groups, err := a.adm.DescribeGroups(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("describe group %s: %w", group, err)
	}
	live := map[string]bool{}
	g := groups[group]
	if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("describe group %s: %w", group, g.Err)
	}
	for _, m := range g.Members {
		live[m.ClientID] = true
	}
	return live, nil
}

// fence takes over a transactional.id for no other purpose than to end what its holder left open.
func (a *admin) fence(ctx context.Context, transactionalID string) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &transactionalID, 10_000
	req.ProducerID, req.ProducerEpoch = -1, -1
	return retryConcurrent(ctx, func() error {
		resp, err := req.RequestWith(ctx, a.cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

// trim deletes the loop's records below the committed position: they were applied, and the loop
// topic keeps everything otherwise.
func (a *admin) trim(ctx context.Context, topic string, partition int32, below int64) error {
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: topic, Partition: partition, At: below})
	resp, err := a.adm.DeleteRecords(ctx, o)
	if err != nil {
		return fmt.Errorf("trim %s/%d: %w", topic, partition, err)
	}
	return resp.Error()
}
