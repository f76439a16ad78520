// Command cmd runs the chaos harness on a real Kafka of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/tidemark/tidemark/internal/chaos"
	"github.com/tidemark/tidemark/internal/kafkatest"
)

func main() {
	chaos.ServeChild()
	cfg, brokers := chaos.Defaults(), 1
	flag.StringVar(&cfg.Subject, "subject", cfg.Subject, "tidemark, or stock for the control")
	flag.IntVar(&brokers, "brokers", brokers, "brokers of the Kafka that is started; of three, brokers are killed too")
	flag.IntVar(&cfg.Faults, "faults", cfg.Faults, "faults")
	flag.IntVar(&cfg.Events, "events", cfg.Events, "events at least")
	flag.IntVar(&cfg.Processors, "processors", cfg.Processors, "processors")
	flag.IntVar(&cfg.ProcessorsMax, "processors-max", 0, "have processors come and go, between 1 and so many")
	flag.BoolVar(&cfg.Damage, "damage", false, "damage local state")
	flag.Func("only", "a kind of fault, such as \"kill -9\"; may be repeated (default all kinds)", func(kind string) error {
		cfg.Only = append(cfg.Only, kind)
		return nil
	})
	flag.IntVar(&cfg.Partitions, "partitions", cfg.Partitions, "partitions of the input")
	flag.IntVar(&cfg.IDs, "ids", cfg.IDs, "IDs")
	flag.DurationVar(&cfg.Session, "session", cfg.Session, "session timeout of the consumer group")
	flag.DurationVar(&cfg.Every, "every", cfg.Every, "mean time between two faults")
	flag.BoolVar(&cfg.Settle, "settle", cfg.Settle, "let every partition commit again between two faults")
	flag.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "of events and faults")
	flag.StringVar(&cfg.Dir, "dir", "", "for logs and local state (default a temporary one, which stays if the run fails)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, cfg, brokers)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg chaos.Config, brokers int) (ok bool, err error) {
	temporary := cfg.Dir == ""
	if temporary {
		if cfg.Dir, err = os.MkdirTemp("", "tidemark-chaos-"); err != nil {
			return false, err
		}
	}
	defer func() {
		if ok && temporary {
			err = os.RemoveAll(cfg.Dir)
			return
		}
		fmt.Printf("seed %d; logs, journal and state are in %s\n", cfg.Seed, cfg.Dir)
	}()
	cluster, err := kafkatest.Start(ctx, kafkatest.Options{Brokers: brokers, Dir: filepath.Join(cfg.Dir, "kafka")})
	if err != nil {
		return false, err
	}
	defer cluster.Close()
	cfg.Brokers, cfg.Name, cfg.Out = cluster.Addrs(), "chaos", os.Stdout
	cfg.Cluster = cluster
	report, err := chaos.Run(ctx, cfg)
	if report != nil {
		report.Print(os.Stdout)
	}
	return err == nil && report.OK(), err
}
