// Command watchers has thousands of watchers follow views that are killed, on a real Kafka, and checks what each was told; with
// -stall it measures what watchers that take nothing cost the others. Exit code 1: something was missed, told twice or out of
// order, or the cost is above a tenth.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/internal/watchers"
)

func main() {
	watchers.ServeChild()
	cfg := watchers.Defaults()
	flag.IntVar(&cfg.Watchers, "watchers", cfg.Watchers, "how many watch")
	flag.IntVar(&cfg.Views, "views", cfg.Views, "how many views there are")
	flag.IntVar(&cfg.IDs, "ids", cfg.IDs, "how many IDs events are of")
	flag.IntVar(&cfg.Rate, "rate", cfg.Rate, "events a second")
	flag.IntVar(&cfg.PadBytes, "pad", cfg.PadBytes, "bytes by which each state is larger")
	flag.DurationVar(&cfg.For, "for", cfg.For, "how long, or how long a round is")
	flag.IntVar(&cfg.Kills, "kills", cfg.Kills, "how many kill -9 of a view")
	flag.Uint64Var(&cfg.Seed, "seed", uint64(time.Now().UnixNano()), "of IDs and kills")
	stall := flag.Int("stall", 0, "measure so many rounds with and as many without watchers that take nothing, instead")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg, *stall)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "watchers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg watchers.Config, stall int) (err error) {
	if cfg.Dir, err = os.MkdirTemp("", "tidemark-watchers-"); err != nil {
		return err
	}
	cfg.Out, cfg.Name = os.Stdout, fmt.Sprintf("watchers-%x", time.Now().UnixNano())
	fmt.Printf("seed %d\n", cfg.Seed)
	cluster, err := kafkatest.Start(ctx, kafkatest.Options{})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; logs are in %s", err, cfg.Dir)
		} else {
			err = os.RemoveAll(cfg.Dir)
		}
		err = errors.Join(err, cluster.Close())
	}()
	cfg.Brokers = cluster.Addrs()
	if stall > 0 {
		return measure(ctx, cfg, stall)
	}
	report, err := watchers.Run(ctx, cfg)
	if err != nil {
		return err
	}
	report.Print(os.Stdout)
	if n := len(report.Faults); n > 0 {
		return fmt.Errorf("%d faults", n)
	}
	return nil
}

func measure(ctx context.Context, cfg watchers.Config, rounds int) error {
	all, err := watchers.Stall(ctx, cfg, rounds)
	if err != nil {
		return err
	}
	cost, err := watchers.Cost(all)
	if err != nil {
		return err
	}
	fmt.Printf("median p99 with watchers that take nothing: %+.1f %%\n", 100*cost)
	if cost > 0.1 {
		return errors.New("the others are told later by more than a tenth")
	}
	return nil
}
