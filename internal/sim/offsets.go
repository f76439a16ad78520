package sim

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// spot is a place for which a group commits an offset.
type spot struct {
	topic     string
	partition int32
}

// written is an offset with its place in the log of offsets: the one that was written last counts, whichever marker comes
// first (Kafka 4: OffsetMetadataManager.replayEndTransactionMarker).
type written struct {
	spot
	offset   int64
	meta     *string
	seq      int64
	producer int64
}

// mark ends a transaction's offsets.
func (g *group) mark(producer int64, epoch int16, commit bool) {
	g.epochs[producer] = max(g.epochs[producer], epoch)
	var rest []written
	for _, w := range g.pending {
		switch {
		case w.producer != producer:
			rest = append(rest, w)
		case commit && w.seq > g.offsets[w.spot].seq:
			g.offsets[w.spot] = w
		}
	}
	g.pending = rest
}

func (c *Cluster) txnOffsetCommit(from *call, req *kmsg.TxnOffsetCommitRequest, resp *kmsg.TxnOffsetCommitResponse) {
	code := c.mayCommit(from, req)
	g := c.group(req.Group)
	for i := range req.Topics {
		rt := kmsg.NewTxnOffsetCommitResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for _, rp := range req.Topics[i].Partitions {
			out := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			out.Partition, out.ErrorCode = rp.Partition, code
			if code == 0 {
				g.seq++
				g.pending = append(g.pending, written{spot{rt.Topic, rp.Partition}, rp.Offset, rp.Metadata, g.seq, req.ProducerID})
			}
			rt.Partitions = append(rt.Partitions, out)
		}
		resp.Topics = append(resp.Topics, rt)
	}
}

// mayCommit checks membership (KIP-447), then the transaction.
func (c *Cluster) mayCommit(from *call, req *kmsg.TxnOffsetCommitRequest) int16 {
	if code := c.coordinates(from, "group/"+req.Group); code != 0 {
		return code
	}
	g := c.group(req.Group)
	if req.Generation >= 0 || req.MemberID != "" {
		switch {
		case g.member(req.MemberID) == nil:
			return kerr.UnknownMemberID.Code
		case req.Generation != g.generation:
			return kerr.IllegalGeneration.Code
		}
	}
	if req.ProducerEpoch < g.epochs[req.ProducerID] {
		return kerr.InvalidProducerEpoch.Code
	}
	if req.Version >= 5 { // transactions v2: this adds the group's offsets to the transaction
		if c.coordinates(nil, "txn/"+req.TransactionalID) != 0 {
			return kerr.CoordinatorLoadInProgress.Code
		}
		t, code := c.holder(req.TransactionalID, req.ProducerID, req.ProducerEpoch, kerr.InvalidProducerEpoch)
		if code != 0 {
			return code
		}
		t.addGroup(g)
	}
	g.epochs[req.ProducerID] = req.ProducerEpoch
	return 0
}

func (c *Cluster) offsetFetch(from *call, req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse) {
	if req.Version < 8 {
		if resp.ErrorCode = c.coordinates(from, "group/"+req.Group); resp.ErrorCode != 0 {
			return
		}
		g := c.group(req.Group)
		for i := range req.Topics {
			t := kmsg.NewOffsetFetchResponseTopic()
			t.Topic = req.Topics[i].Topic
			for _, id := range req.Topics[i].Partitions {
				out := kmsg.NewOffsetFetchResponseTopicPartition()
				out.Partition = id
				out.Offset, out.Metadata, out.ErrorCode = g.offset(spot{t.Topic, id}, req.RequireStable)
				t.Partitions = append(t.Partitions, out)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return
	}
	for i := range req.Groups {
		rg := kmsg.NewOffsetFetchResponseGroup()
		rg.Group = req.Groups[i].Group
		if rg.ErrorCode = c.coordinates(from, "group/"+rg.Group); rg.ErrorCode == 0 {
			g := c.group(rg.Group)
			for j := range req.Groups[i].Topics {
				t := kmsg.NewOffsetFetchResponseGroupTopic()
				t.Topic = req.Groups[i].Topics[j].Topic
				for _, id := range req.Groups[i].Topics[j].Partitions {
					out := kmsg.NewOffsetFetchResponseGroupTopicPartition()
					out.Partition = id
					out.Offset, out.Metadata, out.ErrorCode = g.offset(spot{t.Topic, id}, req.RequireStable)
					t.Partitions = append(t.Partitions, out)
				}
				rg.Topics = append(rg.Topics, t)
			}
		}
		resp.Groups = append(resp.Groups, rg)
	}
}

func (g *group) offset(at spot, stable bool) (int64, *string, int16) {
	empty := ""
	if stable {
		for _, w := range g.pending {
			if w.spot == at {
				return -1, &empty, kerr.UnstableOffsetCommit.Code
			}
		}
	}
	w, ok := g.offsets[at]
	if !ok {
		return -1, &empty, 0
	}
	return w.offset, w.meta, 0
}
