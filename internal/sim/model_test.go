package sim_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/internal/sim"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// The model is worth what it shares with Kafka: the same conversation has the same answers in both.
func TestModel_AnswersAsKafkaDoes(t *testing.T) {
	for _, v2 := range []bool{false, true} {
		protocol := map[bool]string{false: "transactions v1", true: "transactions v2"}[v2]
		t.Run(protocol+"/model", func(t *testing.T) {
			c := sim.New(sim.Config{Seed: 1, Brokers: 1, TransactionsV2: v2})
			t.Cleanup(c.Close)
			converse(t, v2, c.Addrs(), func(topic string) { c.AddTopic(topic, 1) }, kgo.Dialer(c.NewProcess("talk").Dial))
		})
		t.Run(protocol+"/Kafka", func(t *testing.T) {
			addrs := kafkatest.Shared(t)
			converse(t, v2, addrs, func(topic string) { kafkatest.MustTopic(t, addrs, topic, 1) })
		})
	}
}

// talk is one side of a conversation.
type talk struct {
	t    *testing.T
	cl   *kgo.Client
	v2   bool
	name string // of topic, group and transactional.id
	said []string
}

// producer is who holds the transactional.id, or did.
type producer struct {
	id    int64
	epoch int16
}

func converse(t *testing.T, v2 bool, addrs []string, addTopic func(string), opts ...kgo.Opt) {
	versions := kversion.V3_7_0()
	if v2 {
		versions = kversion.V4_0_0()
	}
	versions.SetMaxKeyVersion(0, min(12, mustVersion(t, versions, 0)))
	versions.SetMaxKeyVersion(24, 3)
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addrs...), kgo.MaxVersions(versions))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for _, c := range []struct {
		what string
		hold func(*talk)
		want []string
	}{
		{"a fenced producer", (*talk).fenced, []string{
			"produce 0: at 0", "stable 0, end 1", "again: CONCURRENT_TRANSACTIONS", "stable 2, end 2", "produce 1: INVALID_PRODUCER_EPOCH",
			"commit: PRODUCER_FENCED", "offsets: " + map[bool]string{false: "PRODUCER_FENCED", true: "INVALID_PRODUCER_EPOCH"}[v2],
		}},
		{"a partition that nobody added", (*talk).unannounced, []string{
			map[bool]string{false: "produce 0: INVALID_TXN_STATE", true: "produce 0: at 0"}[v2],
		}},
		{"pending offsets", (*talk).pending, []string{
			"nothing to commit: INVALID_TXN_STATE", "offsets: ok", "stable: UNSTABLE_OFFSET_COMMIT", "any: -1", "commit: ok", "stable: 7 of m", "commit again: ok",
			"then abort: INVALID_TXN_STATE",
		}},
		{"members", (*talk).members, []string{
			"join: MEMBER_ID_REQUIRED", "join: ok, generation 1, leads", "heartbeat 1: ok", "heartbeat 0: ILLEGAL_GENERATION", "stranger: UNKNOWN_MEMBER_ID",
			"offsets of a stranger: UNKNOWN_MEMBER_ID", "offsets of generation 0: ILLEGAL_GENERATION", "offsets of generation 1: ok", "leave: ok",
			"offsets of one who left: UNKNOWN_MEMBER_ID",
		}},
		{"sequences", (*talk).sequences, []string{
			"produce 0: at 0", "produce 0: at 0", "produce 5: OUT_OF_ORDER_SEQUENCE_NUMBER", "produce 1: at 1", "abort: ok", "stable 3, end 3",
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := &talk{t: t, cl: cl, v2: v2, name: kafkatest.TopicName(t)}
			addTopic(w.name)
			c.hold(w)
			if !slices.Equal(w.said, c.want) {
				t.Errorf("got\n%q\nwant\n%q", w.said, c.want)
			}
		})
	}
}

func mustVersion(t *testing.T, v *kversion.Versions, key int16) int16 {
	t.Helper()
	most, ok := v.LookupMaxKeyVersion(key)
	if !ok {
		t.Fatalf("no version of request %d", key)
	}
	return most
}

func (w *talk) fenced() {
	old := w.init("")
	w.produce(old, 0)
	w.ends(0)
	w.init("again")
	w.ends(2)
	w.produce(old, 1)
	w.say("commit: %s", code(w.end(old, true)))
	w.say("offsets: %s", code(w.offsets(old, "", -1)))
}

func (w *talk) unannounced() { w.write(w.init(""), 0) }

func (w *talk) pending() {
	p := w.init("")
	w.say("nothing to commit: %s", code(w.end(p, true)))
	w.say("offsets: %s", code(w.offsets(p, "", -1)))
	w.say("stable: %s", w.offset(true))
	w.say("any: %s", w.offset(false))
	w.say("commit: %s", code(w.end(p, true)))
	w.until(func() bool { return w.offset(true) != "UNSTABLE_OFFSET_COMMIT" })
	w.say("stable: %s", w.offset(true))
	again := kerr.ConcurrentTransactions.Code
	w.until(func() bool { again = w.end(p, true); return again != kerr.ConcurrentTransactions.Code })
	w.say("commit again: %s", code(again))
	w.say("then abort: %s", code(w.end(p, false)))
}

func (w *talk) members() {
	first := w.join("")
	w.say("join: %s", code(first.ErrorCode))
	joined := w.join(first.MemberID)
	w.say("join: %s, generation %d, %s", code(joined.ErrorCode), joined.Generation, map[bool]string{true: "leads"}[joined.LeaderID == joined.MemberID])
	w.sync(joined.MemberID, joined.Generation)
	for _, generation := range []int32{1, 0} {
		w.say("heartbeat %d: %s", generation, code(w.heartbeat(joined.MemberID, generation)))
	}
	w.say("stranger: %s", code(w.heartbeat("stranger", 1)))
	p := w.init("")
	w.say("offsets of a stranger: %s", code(w.offsets(p, "stranger", 1)))
	w.say("offsets of generation 0: %s", code(w.offsets(p, joined.MemberID, 0)))
	w.say("offsets of generation 1: %s", code(w.offsets(p, joined.MemberID, 1)))
	w.say("leave: %s", code(w.leave(joined.MemberID)))
	w.say("offsets of one who left: %s", code(w.offsets(p, joined.MemberID, 1)))
}

func (w *talk) sequences() {
	p := w.init("")
	for _, sequence := range []int32{0, 0, 5, 1} {
		w.produce(p, sequence)
	}
	w.say("abort: %s", code(w.end(p, false)))
	w.ends(3)
}

func (w *talk) say(format string, args ...any) { w.said = append(w.said, fmt.Sprintf(format, args...)) }

func code(c int16) string {
	if c == 0 {
		return "ok"
	}
	return kerr.TypedErrorForCode(c).Message
}

const patience = 30 * time.Second

// until asks again until the answer is there, within patience.
func (w *talk) until(there func() bool) {
	w.t.Helper()
	for began := time.Now(); !there(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			w.t.Fatalf("not after %v; said %q", patience, w.said)
		}
	}
}

func ask[R kmsg.Response](w *talk, req kmsg.Request) R {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	resp, err := w.cl.Request(ctx, req)
	if err != nil {
		w.t.Fatalf("%s: %v; said %q", kmsg.NameForKey(req.Key()), err, w.said)
	}
	return resp.(R)
}

// init takes the transactional.id over, and says the first answer if it is asked to.
func (w *talk) init(say string) (p producer) {
	w.t.Helper()
	w.until(func() bool {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &w.name, 60_000, -1, -1
		resp := ask[*kmsg.InitProducerIDResponse](w, req)
		if say != "" {
			w.say("%s: %s", say, code(resp.ErrorCode))
			say = ""
		}
		p = producer{resp.ProducerID, resp.ProducerEpoch}
		return resp.ErrorCode == 0
	})
	return p
}

// produce writes one record in the transaction, to which transactions v1 adds the partition first.
func (w *talk) produce(p producer, sequence int32) {
	w.t.Helper()
	if !w.v2 {
		add := kmsg.NewPtrAddPartitionsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch = w.name, p.id, p.epoch
		add.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: w.name, Partitions: []int32{0}}}
		ask[*kmsg.AddPartitionsToTxnResponse](w, add)
	}
	w.write(p, sequence)
}

// write writes it, once the partition has a leader that knows of it.
func (w *talk) write(p producer, sequence int32) {
	w.t.Helper()
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = batchOf(p, sequence)
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = w.name, append(topic.Partitions, partition)
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis, req.Topics = &w.name, -1, 10_000, append(req.Topics, topic)
	var out kmsg.ProduceResponseTopicPartition
	w.until(func() bool {
		out = ask[*kmsg.ProduceResponse](w, req).Topics[0].Partitions[0]
		return out.ErrorCode != kerr.NotLeaderForPartition.Code
	})
	if out.ErrorCode != 0 {
		w.say("produce %d: %s", sequence, code(out.ErrorCode))
		return
	}
	w.say("produce %d: at %d", sequence, out.BaseOffset)
}

func batchOf(p producer, sequence int32) []byte {
	record := []byte{0, 0, 0, 2, 'k', 2, 'v', 0}
	b := kmsg.RecordBatch{
		Magic: 2, Attributes: 0x10, FirstTimestamp: 1, MaxTimestamp: 1, ProducerID: p.id, ProducerEpoch: p.epoch, FirstSequence: sequence,
		NumRecords: 1, Records: append(kbin.AppendVarint(nil, int32(len(record))), record...),
	}
	b.Length = int32(49 + len(b.Records))
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// ends says the last stable offset, when it has come so far, and the end.
func (w *talk) ends(stable int64) {
	w.t.Helper()
	w.until(func() bool { return w.newest(1) >= stable })
	w.say("stable %d, end %d", w.newest(1), w.newest(0))
}

func (w *talk) newest(isolation int8) int64 {
	w.t.Helper()
	partition := kmsg.NewListOffsetsRequestTopicPartition()
	partition.Timestamp = -1
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic, topic.Partitions = w.name, append(topic.Partitions, partition)
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel, req.Topics = isolation, append(req.Topics, topic)
	return ask[*kmsg.ListOffsetsResponse](w, req).Topics[0].Partitions[0].Offset
}

func (w *talk) end(p producer, commit bool) int16 {
	w.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = w.name, p.id, p.epoch, commit
	return ask[*kmsg.EndTxnResponse](w, req).ErrorCode
}

// offsets commits offset 7 of m; transactions v1 adds the group first.
func (w *talk) offsets(p producer, member string, generation int32) int16 {
	w.t.Helper()
	if !w.v2 {
		add := kmsg.NewPtrAddOffsetsToTxnRequest()
		add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = w.name, p.id, p.epoch, w.name
		if c := ask[*kmsg.AddOffsetsToTxnResponse](w, add).ErrorCode; c != 0 {
			return c
		}
	}
	partition := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	partition.Offset, partition.Metadata = 7, kmsg.StringPtr("m")
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = w.name, append(topic.Partitions, partition)
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = w.name, w.name, p.id, p.epoch
	req.MemberID, req.Generation, req.Topics = member, generation, append(req.Topics, topic)
	return ask[*kmsg.TxnOffsetCommitResponse](w, req).Topics[0].Partitions[0].ErrorCode
}

func (w *talk) offset(stable bool) string {
	w.t.Helper()
	topic := kmsg.NewOffsetFetchRequestTopic()
	topic.Topic, topic.Partitions = w.name, []int32{0}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable, req.Topics = w.name, stable, append(req.Topics, topic)
	out := ask[*kmsg.OffsetFetchResponse](w, req).Topics[0].Partitions[0]
	switch {
	case out.ErrorCode != 0:
		return code(out.ErrorCode)
	case out.Offset < 0:
		return "-1"
	}
	return fmt.Sprintf("%d of %s", out.Offset, *out.Metadata)
}

func (w *talk) join(member string) *kmsg.JoinGroupResponse {
	w.t.Helper()
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", []byte{1}
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.ProtocolType, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = w.name, member, "consumer", 10_000, 10_000
	req.Protocols = append(req.Protocols, protocol)
	return ask[*kmsg.JoinGroupResponse](w, req)
}

func (w *talk) sync(member string, generation int32) {
	w.t.Helper()
	plan := kmsg.NewSyncGroupRequestGroupAssignment()
	plan.MemberID, plan.MemberAssignment = member, []byte{1}
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation, req.GroupAssignment = w.name, member, generation, append(req.GroupAssignment, plan)
	req.ProtocolType, req.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	if c := ask[*kmsg.SyncGroupResponse](w, req).ErrorCode; c != 0 {
		w.t.Errorf("sync: %s", code(c))
	}
}

func (w *talk) heartbeat(member string, generation int32) int16 {
	w.t.Helper()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = w.name, member, generation
	return ask[*kmsg.HeartbeatResponse](w, req).ErrorCode
}

func (w *talk) leave(member string) int16 {
	w.t.Helper()
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = member
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.Members = w.name, append(req.Members, m)
	resp := ask[*kmsg.LeaveGroupResponse](w, req)
	if len(resp.Members) > 0 && resp.ErrorCode == 0 {
		return resp.Members[0].ErrorCode
	}
	return resp.ErrorCode
}
