package watchers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/history"
)

// patience is how long anything that a run waits for may take, on a machine that does other things as well.
const patience = 3 * time.Minute

// Config of a run. Brokers, Name and Dir are needed; Defaults gives the rest.
type Config struct {
	Brokers []string
	Name    string // of the job, new for each run
	Dir     string // gets logs and local state

	Watchers int
	Views    int
	IDs      int
	Rate     int // events a second
	PadBytes int // by which each state is made larger
	For      time.Duration
	Kills    int // kill -9 of a view, spread over the run
	Seed     uint64
	Out      io.Writer // progress
}

// Defaults are those of the long run.
func Defaults() Config {
	return Config{Watchers: 10_000, Views: 2, IDs: 2000, Rate: 50, For: 90 * time.Second, Kills: 6, Seed: 1, Out: io.Discard}
}

// Report says what the watchers were told.
type Report struct {
	Events, Told, Resumed, Slow, Kills int
	Faults                             []string // gaps, repeats, disorder, and answers that no kill explains
	P50, P99                           time.Duration

	truth   *history.Truth
	watches []*history.Watch
}

// Print writes the report.
func (r *Report) Print(to io.Writer) {
	fmt.Fprintf(to, "%d watchers were told %d versions of %d events: %d faults\n", len(r.watches), r.Told, r.Events, len(r.Faults))
	fmt.Fprintf(to, "%d views killed, %d watches resumed at their places, %d resets of slow ones\n", r.Kills, r.Resumed, r.Slow)
	fmt.Fprintf(to, "from sent until told, to those that were live: p50 %v, p99 %v\n", r.P50.Round(100*time.Microsecond), r.P99.Round(100*time.Microsecond))
	for _, f := range r.Faults {
		fmt.Fprintln(to, "FAULT", f)
	}
}

// world is what a run has running.
type world struct {
	cfg      Config
	stream   *stream
	proc     *process
	fleet    *fleet
	clients  *clients
	watchers []*watcher
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Run has events produced, watched and views killed, and checks what the watchers were told. Its error means that the run could
// not be made; the report has the faults of what was.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	w, err := begin(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	if err := w.watch(ctx, cfg.Watchers); err != nil {
		return nil, err
	}
	r := &Report{}
	killing := make(chan error, 1)
	go func() { killing <- w.kill(ctx, r) }()
	r.Events, err = w.stream.produce(ctx, cfg.Rate, cfg.For)
	if err := errors.Join(err, <-killing); err != nil {
		return nil, err
	}
	fmt.Fprintf(cfg.Out, "%d events sent; waiting for the last watcher\n", r.Events)
	return r, w.judge(ctx, r)
}

// begin starts the processor and the views.
func begin(ctx context.Context, cfg Config) (_ *world, err error) {
	w := &world{
		cfg: cfg, clients: newClients(), fleet: &fleet{cfg: &cfg, views: map[int]*process{}, rnd: rand.New(rand.NewPCG(cfg.Seed, 1))}, stop: func() {},
		stream: &stream{
			kafka: &eos.Kafka{Brokers: cfg.Brokers, ClientID: "watchers"}, topic: cfg.Name + "-events", ids: cfg.IDs,
			pad: strings.Repeat("x", cfg.PadBytes), rnd: rand.New(rand.NewPCG(cfg.Seed, 0)),
		},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.end())
		}
	}()
	if err := w.stream.createTopic(ctx); err != nil {
		return nil, err
	}
	if w.proc, err = start(task{Brokers: cfg.Brokers, Job: cfg.Name, Dir: filepath.Join(cfg.Dir, "processor")}); err != nil {
		return nil, err
	}
	for i := range cfg.Views {
		if err := w.fleet.start(ctx, i); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// watch starts n watchers and returns when each was told where it begins.
func (w *world) watch(ctx context.Context, n int) error {
	running, stop := context.WithCancel(ctx)
	w.stop = stop
	begun := time.Now()
	const atOnce = 200
	for i := range n {
		one := newWatcher(i, w.cfg.IDs)
		w.watchers = append(w.watchers, one)
		w.running.Go(func() { one.run(running, w.fleet, w.clients) })
		if i < atOnce {
			continue
		}
		if err := w.watchers[i-atOnce].awaitBegun(ctx); err != nil {
			return err
		}
	}
	for _, one := range w.watchers {
		if err := one.awaitBegun(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(w.cfg.Out, "%d watchers after %v\n", n, time.Since(begun).Round(100*time.Millisecond))
	return nil
}

func (w *watcher) awaitBegun(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-w.begun:
		return nil
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		return fmt.Errorf("%s did not begin: %w", w.watch.Name, errors.Join(w.fault, context.Cause(ctx)))
	}
}

// kill kills one view after the other, a while after the one before is back.
func (w *world) kill(ctx context.Context, r *Report) error {
	for range w.cfg.Kills {
		pause(ctx, w.cfg.For/time.Duration(w.cfg.Kills+1))
		i := w.fleet.rnd.IntN(w.cfg.Views)
		begun := time.Now()
		if err := w.fleet.kill(i); err != nil {
			return err
		}
		if err := w.fleet.start(ctx, i); err != nil {
			return err
		}
		r.Kills++
		fmt.Fprintf(w.cfg.Out, "view %d was killed, and answers again after %v\n", i, time.Since(begun).Round(10*time.Millisecond))
	}
	return nil
}

// judge reads what was committed and compares what each watcher was told, once it had time to hear all of it.
func (w *world) judge(ctx context.Context, r *Report) error {
	rs, err := loadJob(w.cfg.Name)
	if err != nil {
		return err
	}
	names := eos.Names{Job: w.cfg.Name}
	if err := w.stream.covered(ctx, names); err != nil {
		return err
	}
	if r.truth, err = history.FromTable(ctx, w.stream.kafka, names, rs.Schema()); err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for _, one := range w.watchers {
		faults := one.faults(r.truth)
		for ; len(faults) > 0 && time.Now().Before(deadline) && ctx.Err() == nil; faults = one.faults(r.truth) {
			pause(ctx, 100*time.Millisecond)
		}
		r.Faults = append(r.Faults, faults...)
	}
	w.stop()
	w.running.Wait()
	var delays []time.Duration
	for _, one := range w.watchers {
		r.watches = append(r.watches, &one.watch)
		r.Told += len(one.watch.Events)
		r.Resumed += one.resumed
		r.Slow += one.slow
		delays = append(delays, one.delays...)
	}
	r.P50, r.P99 = quantiles(delays)
	return nil
}

// faults is what is wrong with what a watcher was told, if it had to be told everything from before the first event on.
func (w *watcher) faults(truth *history.Truth) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		return []string{w.watch.Name + ": " + w.fault.Error()}
	}
	w.watch.Begin, w.watch.Through = map[int32][2]uint64{}, map[int32]uint64{}
	for p := range int32(partitions) {
		w.watch.Begin[p], w.watch.Through[p] = [2]uint64{}, truth.Last(p)
	}
	return truth.CheckWatch(&w.watch)
}

func quantiles(all []time.Duration) (p50, p99 time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}

// end ends everything that runs.
func (w *world) end() (err error) {
	w.stop()
	w.running.Wait()
	w.clients.close()
	for _, v := range w.fleet.views {
		err = errors.Join(err, v.end(syscall.SIGTERM))
	}
	if w.proc != nil {
		err = errors.Join(err, w.proc.end(syscall.SIGTERM))
	}
	return err
}
