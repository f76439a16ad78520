package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
	"github.com/tidemark/tidemark/eos"
)

func init() { roles["stock-view"] = runStockView }

// runStockView is Goka's View as it comes. The processor beside it writes one table record for each event, in the order
// of the input partition, so the offset of a table record is that of its event.
func runStockView(ctx context.Context, t *task, ready func(report)) (report, error) {
	configureGoka(t)
	seen := make([][]visit, partitions)
	for p := range seen {
		seen[p] = make([]visit, 0, 1<<16)
	}
	update := func(uc goka.UpdateContext, s storage.Storage, key string, value []byte) error {
		if err := goka.DefaultUpdate(uc, s, key, value); err != nil {
			return err
		}
		// One goroutine for each partition calls this.
		p := uc.Partition()
		seen[p] = append(seen[p], visit{AtNs: time.Now().UnixNano(), Next: uc.Offset() + 1})
		return nil
	}
	view, err := goka.NewView(t.Brokers, goka.Table(t.Job+"-table"), &stateCodec{schema: stockSchema(t.Job, t.Topic)},
		goka.WithViewClientID("bench-stock-view"),
		goka.WithViewHasher(eos.NewHasher),
		goka.WithViewCallback(update),
		goka.WithViewStorageBuilder(storage.BuilderWithOptions(filepath.Join(t.Dir, "stock-view"), levelOptions())),
		goka.WithViewTopicManagerBuilder(goka.TopicManagerBuilderWithTopicManagerConfig(oneReplica())),
		goka.WithViewAutoReconnect(),
	)
	if err != nil {
		return report{}, err
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- view.Run(runCtx) }()
	if err := waitFor(ctx, done, func() bool { return view.CurrentState() == goka.ViewStateRunning }); err != nil {
		return report{}, err
	}
	ready(report{})
	<-ctx.Done()
	err = <-done
	samples := map[int32][]visit{}
	for p := range seen {
		samples[int32(p)] = seen[p]
	}
	return report{Samples: samples}, err
}
