package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// stopWithin is the patience with a processor that was told to end.
	stopWithin = 30 * time.Second
	// drainWithin is the patience with what is left to process after the last fault.
	drainWithin   = 2 * time.Minute
	progressEvery = 5 * time.Second
)

var (
	// generation is that of the group, as Goka logs it.
	generation = regexp.MustCompile(`setup generation (\d+)`)
	// refusedCommit is a commit that Kafka did not take, as the unit of work logs it.
	refusedCommit = regexp.MustCompile(`cause="(opening )?commit: |msg="final commit did not succeed`)
)

// run is one run.
type run struct {
	cfg    Config
	kafka  *eos.Kafka
	client *kgo.Client
	rules  *rules.RuleSet
	names  eos.Names
	slots  []*slot
	report *Report
	begun  time.Time

	broker sync.Mutex // held while a broker is down

	over      atomic.Bool  // nothing is started any more
	faulted   atomic.Bool  // all faults are done
	committed atomic.Int64 // input records

	mu      sync.Mutex // guards the fields below, report and cfg.Out
	marks   []mark
	gaps    []gap
	commits map[int32]time.Time // the last one of each partition
}

// Run runs the job, does its faults and compares every ID. Its error says that the run could not be judged; what the
// judgement is stands in the report.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, kafka: &eos.Kafka{Brokers: cfg.Brokers}, names: eos.Names{Job: cfg.Name}, begun: time.Now(), commits: map[int32]time.Time{}}
	if cfg.Subject == Stock {
		r.cfg.Rekey = 0 // it has no loop
	}
	r.report = &Report{Subject: cfg.Subject, Seed: cfg.Seed, Faults: map[string]int{}}
	if r.rules, err = loadJob(cfg.Name); err != nil {
		return nil, err
	}
	if r.client, err = kgo.NewClient(r.kafka.Franz()...); err != nil {
		return nil, err
	}
	defer r.client.Close()
	if err := r.createTopics(ctx); err != nil {
		return nil, err
	}
	for i := range max(cfg.Processors, cfg.ProcessorsMax) {
		r.slots = append(r.slots, newSlot(cfg.Dir, task{
			Subject: cfg.Subject, Brokers: cfg.Brokers, Job: cfg.Name, Instance: fmt.Sprintf("p%d", i), SessionMs: cfg.Session.Milliseconds(),
		}))
		r.slots[i].wanted.Store(i < cfg.Processors)
	}
	// An order may reach a child before it listens; ignored signals are inherited.
	signal.Ignore(syscall.SIGUSR1)
	defer func() { err = errors.Join(err, r.killAll()) }()
	err = r.work(ctx)
	r.report.Took = time.Since(r.begun)
	return r.report, errors.Join(err, r.keep())
}

// keep writes down what was wrong, and counts what only the processors' logs tell.
func (r *run) keep() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.slots {
		log, err := os.ReadFile(s.log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, m := range generation.FindAllSubmatch(log, -1) {
			if n, err := strconv.Atoi(string(m[1])); err == nil {
				r.report.Rebalances = max(r.report.Rebalances, n)
			}
		}
		r.report.Obeyed += bytes.Count(log, []byte("msg="+obeying))
		r.report.Refused += len(refusedCommit.FindAll(log, -1))
	}
	if len(r.report.Blames) == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(r.cfg.Dir, "wrong"), []byte(strings.Join(r.report.Blames, "\n")+"\n"), 0o644)
}

// createTopics creates the input, and what stock Goka does not create by itself.
func (r *run) createTopics(ctx context.Context) error {
	topics := []string{r.rules.Job().Input.Topic}
	if r.cfg.Subject == Stock {
		topics = append(topics, r.names.Flags())
	}
	created, err := kadm.NewClient(r.client).CreateTopics(ctx, int32(r.cfg.Partitions), int16(min(3, len(r.cfg.Brokers))), nil, topics...)
	if err = errors.Join(err, created.Error()); err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	return nil
}

// work starts everything, does the faults, waits for the rest and compares.
func (r *run) work(ctx context.Context) error {
	for _, s := range r.slots[:r.cfg.Processors] {
		if err := s.start(r.endedByItself(s)); err != nil {
			return err
		}
	}
	p, err := newProducer(r.kafka, r.rules.Job().Input.Topic, filepath.Join(r.cfg.Dir, "journal"), &r.cfg)
	if err != nil {
		return err
	}
	err = r.faultsUnderLoad(ctx, p)
	r.report.Events = p.acks.Load()
	if err != nil {
		return err
	}
	r.say("everything is produced")
	if err := r.drain(ctx); err != nil {
		for _, s := range r.slots {
			err = errors.Join(err, s.signal(syscall.SIGQUIT)) // the logs get the stacks
		}
		return errors.Join(err, pause(ctx, time.Second))
	}
	r.say("everything is processed")
	r.over.Store(true)
	for _, s := range r.slots {
		if err := s.end(syscall.SIGTERM, stopWithin); err != nil {
			r.blame(err)
		}
	}
	r.say("everything has ended; comparing")
	return r.compare(ctx, p.oracle)
}

// faultsUnderLoad returns when the faults are done, the events produced, and all of them acknowledged.
func (r *run) faultsUnderLoad(ctx context.Context, p *producer) error {
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() {
		if err := r.watchCommits(ctx); err != nil {
			r.blame(err)
		}
	})
	watching.Go(func() { r.progress(ctx, p) })
	injected := make(chan error, 1)
	go func() {
		err := r.inject(ctx)
		r.faulted.Store(true)
		if err != nil {
			stop()
		}
		injected <- err
	}()
	err := p.run(ctx, r.cfg.rate(), func(n int64) bool { return n >= int64(r.cfg.Events) && r.faulted.Load() })
	if err != nil {
		stop()
	}
	err = errors.Join(<-injected, err, p.close())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Gaps = explain(r.marks, r.gaps)
	return err
}

// progress writes a line every few seconds.
func (r *run) progress(ctx context.Context, p *producer) {
	for pause(ctx, progressEvery) == nil {
		up := 0
		for _, s := range r.slots {
			if s.pid() != 0 {
				up++
			}
		}
		r.say("%d events produced, %d acknowledged, %d committed, %d processes", p.intents.Load(), p.acks.Load(), r.committed.Load(), up)
	}
}

// compare judges every ID.
func (r *run) compare(ctx context.Context, o *oracle) error {
	all, err := readFound(ctx, r.kafka, r.client, r.cfg.Subject, r.rules)
	if err != nil {
		return err
	}
	r.report.IDs = len(o.ids)
	for id, x := range o.ids {
		faults, lost, doubled := x.faults(all[id])
		r.report.Lost += lost
		r.report.Doubled += doubled
		if len(faults) > 0 {
			r.report.Differ++
			r.blame(fmt.Errorf("%s: %v", id, faults))
		}
		if f := all[id]; f != nil {
			r.report.FlagChanges += len(f.changes)
			r.report.FlagsAgain += f.changesAgain
		}
		delete(all, id)
	}
	for id := range all {
		r.report.Differ++
		r.blame(fmt.Errorf("%s: nobody produced this ID", id))
	}
	return nil
}

// killAll ends what is left, by process ID.
func (r *run) killAll() error {
	r.over.Store(true)
	var all error
	for _, s := range r.slots {
		s.op.Lock()
		all = errors.Join(all, s.end(syscall.SIGKILL, stopWithin))
		s.op.Unlock()
	}
	return all
}

// blame notes something that must not be.
func (r *run) blame(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.blame(err)
}

// say writes a line with the time since the beginning.
func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.cfg.Out, "%7.2fs  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}
