package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == childArgument {
		os.Exit(runChild(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		}
		stop()
		os.Exit(1)
	}
}

// errTotals is the one fault of a contender: a table that is not what it must be.
var errTotals = errors.New("totals differ from what was expected")

// parts that can be chosen, in the order in which they run.
var partNames = []string{"speed", "hot", "latency", "recovery"}

func parseFlags(args []string, out io.Writer) (cfg config, broker, external string, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	quick := fs.Bool("quick", false, "a smoke run of less than a minute: few events, one round, no recovery of a million IDs")
	fs.StringVar(&broker, "broker", "kafka", "kafka (a real one, started here) or embedded")
	fs.StringVar(&external, "brokers", "", "use these brokers instead of starting one")
	fs.IntVar(&cfg.events, "events", 1_000_000, "events of the speed runs")
	ids := fs.String("ids", "10000,200000", "numbers of IDs of the speed runs")
	fs.IntVar(&cfg.rounds, "rounds", 3, "rounds of the speed runs")
	rates := fs.String("rates", "1000,10000", "events/s of the latency runs")
	fs.IntVar(&cfg.seconds, "seconds", 60, "length of each latency run")
	fs.IntVar(&cfg.latencyRounds, "latency-rounds", 5, "rounds of the latency runs")
	fs.IntVar(&cfg.recoveryIDs, "recovery-ids", 1_000_000, "IDs of the state that is recovered")
	fs.IntVar(&cfg.recoveryRounds, "recovery-rounds", 3, "rounds of the recovery")
	fs.IntVar(&cfg.hotEntries, "hot-entries", 50_000, "window entries of the hot ID")
	chosen := fs.String("parts", "", "what to measure, of "+strings.Join(partNames, ",")+"; default all")
	fs.StringVar(&cfg.only, "only", "", "of the speed and latency runs, only contenders whose name contains this")
	fs.StringVar(&cfg.profiles, "profiles", "", "directory for CPU profiles of the contenders (they cost a little)")
	if err = fs.Parse(args); err != nil {
		return cfg, broker, external, err
	}
	if fs.NArg() > 0 {
		return cfg, broker, external, fmt.Errorf("unknown argument %q", fs.Arg(0))
	}
	var errs [2]error
	cfg.ids, errs[0] = numbers(*ids)
	cfg.rates, errs[1] = numbers(*rates)
	cfg.parts, err = chooseParts(*chosen)
	if *quick {
		cfg.events, cfg.ids, cfg.rounds = 100_000, []int{1000, 20_000}, 1
		cfg.rates, cfg.seconds, cfg.latencyRounds = []int{1000}, 3, 1
		cfg.recoveryIDs, cfg.recoveryRounds, cfg.hotEntries = 20_000, 1, 5000
	}
	return cfg, broker, external, errors.Join(errs[0], errs[1], err)
}

func numbers(list string) ([]int, error) {
	var out []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is not a positive number", text)
		}
		out = append(out, n)
	}
	return out, nil
}

func chooseParts(list string) (map[string]bool, error) {
	parts := map[string]bool{}
	if list == "" {
		return parts, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		known := false
		for _, p := range partNames {
			known = known || p == name
		}
		if !known {
			return nil, fmt.Errorf("no part %q; there are %s", name, strings.Join(partNames, ", "))
		}
		parts[name] = true
	}
	return parts, nil
}

// run does everything; the result is an error where totals differ.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	cfg, kind, external, err := parseFlags(args, out)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	started, err := startBroker(ctx, kind, external, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, started.stop()) }()
	c, err := openCluster(started.addrs)
	if err != nil {
		return err
	}
	defer c.close()
	b := &bench{config: cfg, c: c, dir: dir, out: out, mark: strconv.FormatInt(time.Now().UnixMilli(), 36)}
	b.printMachine(started.name)
	return b.measure(ctx)
}

// measure runs the parts that were chosen.
func (b *bench) measure(ctx context.Context) error {
	bad := false
	if b.wants("speed") {
		for _, ids := range b.ids {
			all, err := b.contest(ctx, ids)
			if err != nil {
				return err
			}
			b.printContest(ids, all)
			for _, runs := range all {
				for _, f := range runs {
					bad = bad || !f.ok
				}
			}
		}
	}
	if b.wants("hot") {
		f, err := b.hot(ctx)
		if err != nil {
			return fmt.Errorf("hot ID: %w", err)
		}
		b.printHot(&f)
		bad = bad || f.verdict != "OK"
	}
	if b.wants("latency") {
		for _, rate := range b.rates {
			all, err := b.latency(ctx, rate)
			if err != nil {
				return err
			}
			b.printLatency(rate, all)
		}
	}
	if b.wants("recovery") {
		all, err := b.recovery(ctx)
		if err != nil {
			return err
		}
		b.printRecovery(all)
	}
	if bad {
		return errTotals
	}
	return nil
}
