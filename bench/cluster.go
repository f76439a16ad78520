package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// partitions of every topic here.
const partitions = 4

// cluster is the broker under all contenders, as the benchmark itself reaches it.
type cluster struct {
	kafka *eos.Kafka
	cl    *kgo.Client
	adm   *kadm.Client
}

func openCluster(brokers []string) (*cluster, error) {
	k := &eos.Kafka{Brokers: brokers, ClientID: "bench"}
	cl, err := kgo.NewClient(k.Franz(kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(50_000), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		return nil, err
	}
	return &cluster{kafka: k, cl: cl, adm: kadm.NewClient(cl)}, nil
}

func (c *cluster) close() { c.cl.Close() }

// createTopic makes a topic, compacted if it is a table; segments are large enough that nothing is compacted meanwhile.
func (c *cluster) createTopic(ctx context.Context, topic string, n int32, table bool) error {
	policy, retention := "delete", "-1"
	if table {
		policy = "compact"
	}
	_, err := c.adm.CreateTopic(ctx, n, 1, map[string]*string{"cleanup.policy": &policy, "retention.ms": &retention}, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	return c.waitLeaders(ctx, topic, n)
}

// waitLeaders waits until everybody is told of the topic: a contender that hears that it does not exist would create it.
func (c *cluster) waitLeaders(ctx context.Context, topic string, n int32) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		all, err := c.adm.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		led := int32(0)
		for _, p := range all[topic].Partitions {
			if p.Err == nil && p.Leader >= 0 {
				led++
			}
		}
		if led >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("leaders of %s: %w", topic, ctx.Err())
		case <-tick.C:
		}
	}
}

// preload creates the topic and fills it, and tells what must come of it.
func (c *cluster) preload(ctx context.Context, topic string, n int32, s stream) (expectation, error) {
	if err := c.createTopic(ctx, topic, n, false); err != nil {
		return nil, err
	}
	want := make(expectation, s.IDs)
	return want, c.produce(ctx, topic, n, s, want)
}

// produce appends the stream to the topic, each event on the partition of its ID.
func (c *cluster) produce(ctx context.Context, topic string, n int32, s stream, want expectation) error {
	var fault atomic.Pointer[error]
	err := s.each(func(_ int, e *event) error {
		if want != nil {
			want.add(e)
		}
		key := []byte(idText(e.id))
		rec := &kgo.Record{Topic: topic, Partition: eos.Place(key, n), Key: key, Value: e.appendJSON(make([]byte, 0, 128))}
		c.cl.Produce(ctx, rec, func(_ *kgo.Record, err error) {
			if err != nil {
				fault.CompareAndSwap(nil, &err)
			}
		})
		if err := fault.Load(); err != nil {
			return *err
		}
		return nil
	})
	if err := errors.Join(err, c.cl.Flush(ctx)); err != nil {
		return fmt.Errorf("produce to %s: %w", topic, err)
	}
	if err := fault.Load(); err != nil {
		return fmt.Errorf("produce to %s: %w", topic, *err)
	}
	return nil
}

// ends gives the offset after the last record of each partition.
func (c *cluster) ends(ctx context.Context, topic string) (map[int32]int64, error) {
	listed, err := c.adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, err
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// pollEvery is how exactly the end of a run is known.
const pollEvery = 10 * time.Millisecond

// waitCommitted waits until the group has committed at least the offsets of until, and tells when. It is the same
// question to the broker for every contender, asked outside of the contender's process.
func (c *cluster) waitCommitted(ctx context.Context, group, topic string, until map[int32]int64, by *child) (time.Time, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if committed, err := c.adm.FetchOffsets(ctx, group); err == nil && reached(committed, topic, until) {
			return time.Now(), nil
		}
		select {
		case r := <-by.reports:
			return time.Time{}, by.fault(r)
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-tick.C:
		}
	}
}

func reached(committed kadm.OffsetResponses, topic string, until map[int32]int64) bool {
	for p, end := range until {
		o, ok := committed.Lookup(topic, p)
		if end > 0 && (!ok || o.Err != nil || o.At < end) {
			return false
		}
	}
	return true
}

// readTable calls visit for each committed record of a topic, and tells how many bytes of keys and values there are.
func (c *cluster) readTable(ctx context.Context, topic string, visit func(*kgo.Record) error) (int64, error) {
	spans, err := eos.Ends(ctx, c.cl, topic)
	if err != nil {
		return 0, err
	}
	starts := map[int32]int64{}
	for p, span := range spans {
		if span.Start < span.LSO {
			starts[p] = span.Start
		}
	}
	if len(starts) == 0 {
		return 0, nil
	}
	r, err := eos.NewReader(c.kafka, topic, starts)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var size int64
	for len(starts) > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			return size, err
		}
		for _, b := range batches {
			for _, rec := range b.Records {
				size += int64(len(rec.Key) + len(rec.Value))
				if err := visit(rec); err != nil {
					return size, err
				}
			}
			if b.Next >= spans[b.Partition].LSO {
				delete(starts, b.Partition)
			}
		}
	}
	return size, nil
}

// refusals counts the dead letters of a job by reason.
func (c *cluster) refusals(ctx context.Context, job string) (map[string]int, error) {
	reasons := map[string]int{}
	_, err := c.readTable(ctx, job+"-dead-letters", func(r *kgo.Record) error {
		var headers []codecs.Header
		for _, h := range r.Headers {
			headers = append(headers, codecs.Header{Key: h.Key, Value: h.Value})
		}
		d, err := codecs.DecodeDeadLetter(r.Key, r.Value, headers)
		if err != nil {
			return err
		}
		reasons[d.Reason+": "+d.Detail]++
		return nil
	})
	return reasons, err
}
