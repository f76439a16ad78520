package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

func init() { roles["stock"] = runStock }

// channelSize lets sarama and Goka read ahead; Goka's own default is 10 messages.
const channelSize = 4096

// runStock is Goka as it comes, at least once, with a processor written by hand that does what the benchmark's job file
// says, and configured as well as we know how.
func runStock(ctx context.Context, t *task, ready func(report)) (report, error) {
	configureGoka(t)
	events, states := goka.Codec(newEventCodec()), goka.Codec(&stateCodec{schema: stockSchema(t.Job, t.Topic)})
	if t.JSON {
		events, states = jsonEventCodec{}, jsonStateCodec{}
	}
	flags := goka.Stream(t.Job + "-flags")
	graph := goka.DefineGroup(goka.Group(t.Job),
		goka.Input(goka.Stream(t.Topic), events, func(ctx goka.Context, msg any) {
			e := msg.(*stockEvent)
			st, ok := ctx.Value().(*stockState)
			if !ok {
				st = &stockState{}
			}
			raised, err := st.fold(e)
			if err != nil {
				ctx.Fail(err)
			}
			ctx.SetValue(st)
			if raised {
				ctx.Emit(flags, e.id, st.change(e.id, ctx))
			}
			eventPool.Put(e)
		}),
		goka.Persist(states),
		goka.Output(flags, bytesCodec{}),
	)
	proc, err := goka.NewProcessor(t.Brokers, graph,
		goka.WithClientID("bench-stock"),
		goka.WithHasher(eos.NewHasher),
		goka.WithPartitionChannelSize(channelSize),
		goka.WithStorageBuilder(stockStorage(t)),
		goka.WithTopicManagerBuilder(goka.TopicManagerBuilderWithTopicManagerConfig(oneReplica())),
	)
	if err != nil {
		return report{}, err
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- proc.Run(runCtx) }()
	if err := waitFor(ctx, done, proc.Recovered); err != nil {
		return report{}, err
	}
	ready(report{})
	select {
	case err = <-done:
		return report{}, errors.Join(errors.New("goka ended by itself"), err)
	case <-ctx.Done():
		return report{}, <-done
	}
}

// stockStorage is Goka's own, or the one that gathers writes.
func stockStorage(t *task) storage.Builder {
	dir := filepath.Join(t.Dir, "stock")
	if t.Gather {
		return gatheredBuilder(dir)
	}
	return storage.BuilderWithOptions(dir, levelOptions())
}

// waitFor asks until the answer is yes, or the work in question has ended.
func waitFor(ctx context.Context, done <-chan error, yes func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case err := <-done:
			return errors.Join(errors.New("ended before it was ready"), err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), <-done)
		case <-tick.C:
		}
	}
	return nil
}

// configureGoka sets Goka's settings, which are global. Each was tried on the speed runs; the alternatives were no faster
// or slower: batches of 10 ms in place of 50 (a tenth more CPU), no compression (the broker's CPU is what is short), Goka's
// 64 KiB batches and 10 messages of reading ahead. LevelDB's write buffer made no difference from 1 MiB to 8 MiB; what
// Goka's storage costs is two writes and a read of LevelDB for each event, and the contender with a storage of its own
// (stockstorage.go) shows what can be had without them.
func configureGoka(t *task) {
	cfg := goka.DefaultConfig()
	cfg.Version = sarama.V3_6_0_0
	cfg.ChannelBufferSize = channelSize
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Compression = sarama.CompressionLZ4
	cfg.Producer.Flush.Frequency = 50 * time.Millisecond
	cfg.Producer.Flush.Bytes = 1 << 20
	cfg.Producer.MaxMessageBytes = 1 << 20
	if t.Latency {
		cfg.Producer.Flush.Frequency, cfg.Producer.Flush.Bytes = 0, 0
	}
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	// A second, sarama's default, would be a good part of what is measured.
	cfg.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	cfg.Metadata.AllowAutoTopicCreation = false
	goka.ReplaceGlobalConfig(cfg)
	goka.Debug(false, false)
}

func oneReplica() *goka.TopicManagerConfig {
	cfg := goka.NewTopicManagerConfig()
	cfg.Table.Replication, cfg.Stream.Replication = 1, 1
	return cfg
}

// levelOptions are the ones that made LevelDB fast at a million keys, as in package eos.
func levelOptions() *opt.Options {
	return &opt.Options{
		BlockCacheCapacity: 32 << 20,
		WriteBuffer:        8 << 20,
		Filter:             filter.NewBloomFilter(10),
	}
}

// stockSchema is the schema that Tidemark has for the same job.
func stockSchema(job, topic string) *codecs.Schema {
	return &codecs.Schema{
		Job: job, InputTopic: topic, Digest: "00000000000000000000000000000000", Generation: 1,
		Totals: []string{totalFailures, totalMax, totalMin, totalSum}, Flags: []string{flagBruteForce},
	}
}
