// Command cmd runs simulated histories of the unit of work until there have been enough crashes, or one again by its seed.
// Run it anywhere in the module.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/sim/histories"
)

type options struct {
	history histories.History // the first one
	one     bool
	crashes int
	most    time.Duration
	at      int
}

func main() {
	var o options
	one := flag.Uint64("seed", 0, "run this history alone, and keep its trace")
	flag.Uint64Var(&o.history.Seed, "from", 1, "the first seed of many")
	flag.IntVar(&o.crashes, "crashes", 2000, "so many crashes at least")
	flag.DurationVar(&o.most, "for", 0, "begin no history after so long, whatever was reached (default no bound)")
	flag.IntVar(&o.at, "parallel", 0, "histories at a time (default one for each processor, 4 at most)")
	flag.StringVar(&o.history.Without, "without", "", "protections to switch off, by their names in eos, with commas between")
	flag.StringVar(&o.history.Trace, "trace", "", "with -seed: the file for the trace (default a temporary one)")
	flag.Parse()
	if *one > 0 {
		o.one, o.history.Seed = true, *one
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "tidemark-sim-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := histories.Build(ctx, dir)
	if err != nil {
		return err
	}
	if o.at > 0 {
		r.Parallel = o.at
	}
	if o.one {
		return replay(ctx, r, o.history)
	}
	return many(ctx, r, o)
}

// replay runs one history and says where its trace is.
func replay(ctx context.Context, r *histories.Runner, h histories.History) error {
	if h.Trace == "" {
		h.Trace = filepath.Join(os.TempDir(), fmt.Sprintf("tidemark-sim-%d.trace", h.Seed))
	}
	trace, err := filepath.Abs(h.Trace)
	if err != nil {
		return err
	}
	h.Trace = trace
	began := time.Now()
	report, err := r.Run(ctx, h)
	if err != nil {
		return err
	}
	sum := histories.Sum{}
	sum.Add(report)
	sum.Took = time.Since(began)
	fmt.Printf("%strace %s of seed %d is in %s\n", &sum, report.Trace, h.Seed, h.Trace)
	return verdict(&sum)
}

// progressEvery is how often a long run says how far it is.
const progressEvery = 15 * time.Second

func many(ctx context.Context, r *histories.Runner, o options) error {
	began, said := time.Now(), time.Now()
	var sum histories.Sum
	err := r.From(ctx, o.history, func(report histories.Report) bool {
		sum.Add(report)
		sum.Took = time.Since(began)
		if time.Since(said) > progressEvery {
			said = time.Now()
			fmt.Println(sum.Line())
		}
		return len(sum.Finds) == 0 && sum.Crashed < o.crashes && (o.most == 0 || sum.Took < o.most)
	})
	if sum.Histories > 0 {
		fmt.Printf("%sgo on with -from %d\n", &sum, sum.Last+1)
	}
	if err != nil {
		return err
	}
	if len(sum.Finds) > 0 {
		first := o.history
		first.Seed = sum.Wrong
		fmt.Println("the first history with a finding again, for its trace:")
		return cmp.Or(replay(ctx, r, first), verdict(&sum))
	}
	if sum.Crashed < o.crashes && ctx.Err() != nil {
		return fmt.Errorf("stopped after %d of %d crashes", sum.Crashed, o.crashes)
	}
	return nil
}

func verdict(s *histories.Sum) error {
	if len(s.Finds) > 0 {
		return fmt.Errorf("%d findings", len(s.Finds))
	}
	return nil
}
