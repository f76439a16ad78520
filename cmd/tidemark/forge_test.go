package main

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// forge makes the last state of an ID that of an earlier commit's neighbour: it copies another ID's state over it, and then
// the last position record again, so that readers believe in a commit.
func forge(t *testing.T, brokers []string, table, id string) {
	t.Helper()
	ctx := t.Context()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(table), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	defer cl.Close()
	var other, position *kgo.Record
	for position == nil {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read %s: %v", table, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			switch {
			case len(r.Key) > 0 && r.Key[0] == 0xff:
				position = r
			case string(r.Key) != id && r.Value != nil:
				other = r
			}
		})
		if other == nil {
			position = nil // only the first start's
		}
	}
	for _, r := range []*kgo.Record{
		{Topic: table, Partition: position.Partition, Key: []byte(id), Value: other.Value},
		{Topic: table, Partition: position.Partition, Key: position.Key, Value: position.Value},
	} {
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatalf("forge: %v", err)
		}
	}
}
