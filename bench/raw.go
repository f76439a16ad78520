package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

func init() { roles["raw"] = runRaw }

// runRaw reads every partition to its end with plain sarama consumers: the floor under anything that consumes through
// sarama. It ends by itself, and tells when the last record was read.
func runRaw(ctx context.Context, t *task, ready func(report)) (report, error) {
	k := &eos.Kafka{Brokers: t.Brokers, ClientID: "bench-raw"}
	cfg, err := k.Sarama()
	if err != nil {
		return report{}, err
	}
	cfg.ChannelBufferSize = channelSize
	client, err := sarama.NewClient(t.Brokers, cfg)
	if err != nil {
		return report{}, err
	}
	defer func() { _ = client.Close() }()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return report{}, err
	}
	ids, err := client.Partitions(t.Topic)
	if err != nil {
		return report{}, err
	}
	ready(report{})
	var (
		wg     sync.WaitGroup
		faults = make(chan error, len(ids))
		read   atomic.Int64
		last   atomic.Int64
	)
	for _, p := range ids {
		wg.Go(func() {
			n, err := readPartition(ctx, client, consumer, t, p, &last)
			read.Add(n)
			faults <- err
		})
	}
	wg.Wait()
	close(faults)
	for f := range faults {
		err = errors.Join(err, f)
	}
	end := report{Count: read.Load(), LastNs: last.Load()}
	return end, errors.Join(err, consumer.Close())
}

func readPartition(ctx context.Context, client sarama.Client, consumer sarama.Consumer, t *task, p int32, last *atomic.Int64) (int64, error) {
	end, err := client.GetOffset(t.Topic, p, sarama.OffsetNewest)
	if err != nil || end == 0 {
		return 0, err
	}
	pc, err := consumer.ConsumePartition(t.Topic, p, sarama.OffsetOldest)
	if err != nil {
		return 0, err
	}
	defer func() { _ = pc.Close() }()
	decoder, slots := codecs.NewEventDecoder(eventPaths), make([]codecs.Value, len(eventPaths))
	var n int64
	for {
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case err := <-pc.Errors():
			return n, err
		case msg := <-pc.Messages():
			if t.Decode {
				if err := decoder.Decode(msg.Value, slots); err != nil {
					return n, fmt.Errorf("%s/%d@%d: %w", t.Topic, p, msg.Offset, err)
				}
			}
			if n++; msg.Offset+1 >= end {
				// Closing waits for the fetch that is under way, which finds nothing any more.
				now := time.Now().UnixNano()
				for before := last.Load(); before < now && !last.CompareAndSwap(before, now); before = last.Load() {
				}
				return n, nil
			}
		}
	}
}
