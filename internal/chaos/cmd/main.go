// Command cmd runs the chaos harness on a real Kafka of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/chaos"
	"github.com/tidemark/tidemark/internal/kafkatest"
)

func main() {
	chaos.ServeChild()
	cfg, brokers := chaos.Defaults(), 1
	cfg.Within = map[string]time.Duration{}
	properties, defaults := map[string]string{}, false
	flag.StringVar(&cfg.Subject, "subject", cfg.Subject, "tidemark, or stock for the control")
	flag.IntVar(&brokers, "brokers", brokers, "brokers of the Kafka that is started; of three, brokers are killed too")
	flag.IntVar(&cfg.Faults, "faults", cfg.Faults, "faults")
	flag.IntVar(&cfg.Events, "events", cfg.Events, "events at least")
	flag.IntVar(&cfg.Processors, "processors", cfg.Processors, "processors")
	flag.IntVar(&cfg.ProcessorsMax, "processors-max", 0, "have processors come and go, between 1 and so many")
	flag.BoolVar(&cfg.Damage, "damage", false, "damage local state")
	flag.BoolVar(&cfg.Network, "network", false, "have proxies between processes and brokers, and cut, delay and silence links")
	flag.IntVar(&cfg.Views, "views", 0, "views that are asked all the time")
	flag.IntVar(&cfg.TokenReads, "token-reads", 0, "so many reads there must be of what was just acknowledged, from any view")
	flag.IntVar(&cfg.Readers, "readers", 0, "who read what was just acknowledged")
	flag.IntVar(&cfg.Watchers, "watchers", 0, "watchers of everything, a prefix, an ID and a flag, so many each, which go from view to view")
	flag.BoolVar(&cfg.Careless, "careless", false, "have views overlook what a read over REST names, and lose events of a watch: the control")
	flag.Float64Var(&cfg.LoseReplies, "lose-replies", 0, "the share of a commit's requests whose reply gets lost")
	flag.IntVar(&cfg.RepliesLostMin, "lost-replies-min", 0, "so many lost replies there must be")
	flag.IntVar(&cfg.ZombiesMin, "zombies-min", 0, "so many zombie commits there must be")
	flag.DurationVar(&cfg.Apart, "apart", 0, "least time between two faults")
	flag.DurationVar(&cfg.Down, "down", 0, "the least time that a killed process stays down, so that others take over")
	flag.DurationVar(&cfg.ViewsWithin, "views-within", 0, "the longest that a view may be silent (default no bound)")
	flag.Func("within", "the longest gap in commits after a kind of fault, such as \"kill -9=10s\", or \"any=30s\"; may be repeated", func(text string) error {
		kind, most, _ := strings.Cut(text, "=")
		d, err := time.ParseDuration(most)
		cfg.Within[kind] = d
		return err
	})
	flag.BoolVar(&defaults, "kafka-defaults", false, "leave timeouts and internal topics of Kafka as they come, not tuned for tests")
	flag.Func("property", "of server.properties, name=value; may be repeated", func(text string) error {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("%q is not name=value", text)
		}
		properties[name] = value
		return nil
	})
	flag.Func("only", "a kind of fault, such as \"kill -9\"; may be repeated (default all kinds)", func(kind string) error {
		cfg.Only = append(cfg.Only, kind)
		return nil
	})
	flag.IntVar(&cfg.Partitions, "partitions", cfg.Partitions, "partitions of the input")
	flag.IntVar(&cfg.IDs, "ids", cfg.IDs, "IDs")
	flag.DurationVar(&cfg.Session, "session", cfg.Session, "session timeout of the consumer group")
	flag.DurationVar(&cfg.Every, "every", cfg.Every, "mean time between two faults")
	flag.BoolVar(&cfg.Settle, "settle", cfg.Settle, "let every partition commit again, and the group be whole, between two faults")
	flag.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "of events and faults")
	flag.StringVar(&cfg.Dir, "dir", "", "for logs and local state (default a temporary one, which stays if the run fails)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if defaults {
		named := maps.Clone(kafkaDefaults)
		maps.Copy(named, properties)
		properties = named
	}
	ok, err := run(ctx, cfg, kafkatest.Options{Brokers: brokers, Properties: properties})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// kafkaDefaults undo what package kafkatest sets for tests to be fast.
var kafkaDefaults = map[string]string{
	"offsets.topic.num.partitions":                                "50",
	"transaction.state.log.num.partitions":                        "50",
	"group.initial.rebalance.delay.ms":                            "3000",
	"group.min.session.timeout.ms":                                "6000",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000",
	"log.cleaner.backoff.ms":                                      "15000",
}

func run(ctx context.Context, cfg chaos.Config, o kafkatest.Options) (ok bool, err error) {
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
	o.Dir = filepath.Join(cfg.Dir, "kafka")
	cluster, err := kafkatest.Start(ctx, o)
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
