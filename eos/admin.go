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

// missing are those of the topics that do not exist.
func (a *admin) missing(ctx context.Context, topics ...string) (missing []string, err error) {
	details, err := a.adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", err)
	}
	for _, t := range topics {
		if d, ok := details[t]; !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			missing = append(missing, t)
		}
	}
	return missing, nil
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

// compactionMovesStart tells whether the cluster is the embedded broker (kfake), whose compaction moves a
// log's start to the first record left. Kafka's never does (its UnifiedLog moves it for retention and
// DeleteRecords alone), so that a compacted topic which does not begin at 0 has lost records.
func (a *admin) compactionMovesStart(ctx context.Context) (bool, error) {
	m, err := a.adm.BrokerMetadata(ctx)
	if err != nil {
		return false, fmt.Errorf("ask for the cluster's name: %w", err)
	}
	return m.Cluster == "kfake" || strings.HasPrefix(m.Cluster, "tidemark-embedded-"), nil
}

// fetchOffsets reads the group's committed offsets. With stable set, the answer waits for no
// transaction but says so: UNSTABLE_OFFSET_COMMIT (KIP-447).
func (a *admin) fetchOffsets(ctx context.Context, group string, topics []string, partitions []int32, stable bool) (map[int32]map[string]groupOffset, error) {
	ids, err := a.topicIDs(ctx, topics...)
	if err != nil {
		return nil, err
	}
	names := map[[16]byte]string{}
	for _, t := range topics {
		names[ids[t]] = t
	}
	req := offsetFetchRequest(group, topics, ids, partitions, stable)
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
				return Stop(err, "use the binary that wrote it or a newer one", "offset of group %s for %s/%d: %v", group, topic, p, err)
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

// offsetFetchRequest asks in the shape of every version: topics without a group up to 7, by name up to 9, by ID from 10 (KIP-848).
func offsetFetchRequest(group string, topics []string, ids map[string][16]byte, partitions []int32, stable bool) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = group, stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	for _, t := range topics {
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic, rt.Partitions = t, partitions
		req.Topics = append(req.Topics, rt)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.TopicID, gt.Partitions = t, ids[t], partitions
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	return req
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
