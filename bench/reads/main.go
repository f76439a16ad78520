package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == consumerArgument {
		if err := runConsumer(os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "consumer: %v\n", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "reads: %v\n", err)
		}
		stop()
		os.Exit(1)
	}
}

// parts that can be chosen, in the order in which they run.
var partNames = []string{"get", "flag", "fresh"}

// config is what is measured.
type config struct {
	parts    []string
	binaries []binary
	only     string
	ids      int // of the part get
	manyIDs  int // of the part flag
	rounds   int
	slice    time.Duration // of each measurement of the part get
	rate     int           // events/s of the part fresh
	length   time.Duration // of it
}

func parseFlags(args []string, out io.Writer) (cfg config, err error) {
	fs := flag.NewFlagSet("reads", flag.ContinueOnError)
	fs.SetOutput(out)
	parts := fs.String("parts", strings.Join(partNames, ","), "what to measure")
	binaries := fs.String("tidemark", "", "versions to measure, as NAME=PATH,…; default: this tree")
	fs.StringVar(&cfg.only, "only", "", "of the contenders, only those whose name contains one of these, separated by |")
	fs.IntVar(&cfg.ids, "ids", 200_000, "IDs of the part get")
	fs.IntVar(&cfg.rounds, "rounds", 3, "rounds")
	fs.DurationVar(&cfg.slice, "slice", 2*time.Second, "length of each measurement")
	fs.IntVar(&cfg.manyIDs, "many-ids", 1_000_000, "IDs of the part flag")
	fs.IntVar(&cfg.rate, "rate", 1000, "events/s of the part fresh")
	fs.DurationVar(&cfg.length, "length", 15*time.Second, "length of each run of the part fresh")
	quick := fs.Bool("quick", false, "a smoke run: few IDs, one round")
	if err := fs.Parse(args); err != nil {
		return cfg, err
	}
	if *quick {
		cfg.ids, cfg.rounds, cfg.slice = 2000, 1, 200*time.Millisecond
		cfg.manyIDs, cfg.length = 20_000, 2*time.Second
	}
	cfg.parts = strings.Split(*parts, ",")
	for _, p := range cfg.parts {
		if !slices.Contains(partNames, p) {
			return cfg, fmt.Errorf("no part %q; there are %s", p, strings.Join(partNames, ", "))
		}
	}
	cfg.binaries, err = parseBinaries(*binaries)
	return cfg, err
}

// bench is one run.
type bench struct {
	config
	dir   string
	kafka []string // brokers
	out   io.Writer
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out}
	if b.config, err = parseFlags(args, out); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "tidemark-reads-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o711); err != nil { // whoever Postgres runs as has a directory in it
		return err
	}
	if len(b.binaries) == 0 {
		own, err := buildTidemark(ctx, b.dir)
		if err != nil {
			return err
		}
		b.binaries = []binary{own}
	}
	k, err := kafkatest.Start(ctx, kafkatest.Options{JVM: []string{"-Xmx1g", "-XX:TieredStopAtLevel=4"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	b.kafka = k.Addrs()
	for _, part := range b.parts {
		if err := map[string]func(context.Context) error{"get": b.get, "flag": b.flag, "fresh": b.fresh}[part](ctx); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

func (b *bench) logf(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format+"\n", args...) }
