package ingest

import (
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func mustFake(t *testing.T) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// answers has a broker answer each request to produce as it is told, the last answer again and again, and write nothing.
func answers(c *kfake.Cluster, all ...*kerr.Error) (asked *atomic.Int64) {
	asked = &atomic.Int64{}
	c.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		code := all[min(int(asked.Add(1)), len(all))-1].Code
		req := request.(*kmsg.ProduceRequest)
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range req.Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode = rp.Partition, code
				topic.Partitions = append(topic.Partitions, p)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	return asked
}

// TestIngest_WhatWasAppendedAndThenRefusedIsNotKnown: some answers say that the event was appended, or may be. A refusal of the
// next try is one of that try alone. Of a first try it is sure, and so it is after nothing else was sent.
func TestIngest_WhatWasAppendedAndThenRefusedIsNotKnown(t *testing.T) {
	for _, test := range []struct {
		answers []*kerr.Error
		want    connect.Code
	}{
		{[]*kerr.Error{kerr.NotEnoughReplicasAfterAppend, kerr.TopicAuthorizationFailed}, connect.CodeUnknown},
		{[]*kerr.Error{kerr.RequestTimedOut, kerr.MessageTooLarge}, connect.CodeUnknown},
		{[]*kerr.Error{kerr.TopicAuthorizationFailed}, connect.CodeUnavailable},
		{[]*kerr.Error{kerr.MessageTooLarge}, connect.CodeInvalidArgument},
	} {
		c := mustFake(t)
		w := mustJob(t, c.ListenAddrs(), jobFile).produces(nil)
		asked := answers(c, test.answers...)
		for range 2 { // of the second event nothing of the first may be held against it
			got, err := w.Produce(t.Context(), [][]byte{[]byte(event("a", 1))}, false)
			if err != nil || got[0].Code != test.want {
				t.Errorf("%v: got %+v (%v), want %s", test.answers, got, err, test.want)
			}
			if len(test.answers) > 1 {
				break
			}
		}
		if n := asked.Load(); n < int64(len(test.answers)) {
			t.Errorf("%v: the broker was asked %d times", test.answers, n)
		}
	}
}

// TestIngest_KeepsTheLimitThatCannotBeAskedFor: no answer tells nothing of it, and a writer that takes less would refuse good
// events. Who may not ask has Kafka's default, and the control, that the limit is followed, comes last.
func TestIngest_KeepsTheLimitThatCannotBeAskedFor(t *testing.T) {
	const limit, standard = 5_000_000, 1_000_012
	c := mustFake(t)
	var asked atomic.Int64
	code := atomic.Pointer[kerr.Error]{}
	c.ControlKey(int16(kmsg.DescribeConfigs), func(request kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		asked.Add(1)
		err := code.Load()
		if err == nil {
			return nil, nil, false
		}
		req := request.(*kmsg.DescribeConfigsRequest)
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		r := kmsg.NewDescribeConfigsResponseResource()
		r.ResourceType, r.ResourceName, r.ErrorCode = kmsg.ConfigResourceTypeTopic, req.Resources[0].ResourceName, err.Code
		resp.Resources = append(resp.Resources, r)
		return resp, nil, true
	})
	w := mustJob(t, c.ListenAddrs(), jobFile, "max.message.bytes=5000000").produces(func(c *Config) { c.lookEvery = time.Millisecond })
	first := w.writer.Load()
	if first.bytesMax != limit {
		t.Fatalf("got a limit of %d, want %d", first.bytesMax, limit)
	}
	code.Store(kerr.RequestTimedOut)
	before := asked.Load()
	w.await("two looks", func() bool { return asked.Load() > before+2 })
	if now := w.writer.Load(); now != first {
		t.Errorf("a look that got no answer made a writer that takes %d bytes", now.bytesMax)
	}
	code.Store(kerr.TopicAuthorizationFailed)
	w.await("the default", func() bool { return w.writer.Load().bytesMax == standard })
	code.Store(nil)
	w.await("the topic's limit", func() bool { return w.writer.Load().bytesMax == limit })
}
