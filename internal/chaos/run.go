package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/history"
	"github.com/tidemark/tidemark/rules"
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
	lostReply  = regexp.MustCompile(`msg="` + replyLost + `" request=(\w+)`)
	// refusedCommit is a commit that Kafka did not take, as the unit of work logs it.
	refusedCommit = regexp.MustCompile(`cause="(opening )?commit: |msg="final commit did not succeed`)
)

// run is one run.
type run struct {
	cfg     Config
	kafka   *eos.Kafka
	client  *kgo.Client
	rules   *rules.RuleSet
	names   eos.Names
	slots   []*slot // of processors
	views   []*slot
	askers  []*asker // one for each view
	clients []*client
	acks    *acks // nil: nobody reads what was acknowledged
	input   input
	tally   *tally
	watches []*watcher
	network *network // nil: none between
	report  *Report
	begun   time.Time

	broker sync.Mutex // held while a broker is down

	over      atomic.Bool  // nothing is started any more
	faulted   atomic.Bool  // all faults are done
	committed atomic.Int64 // input records

	mu      sync.Mutex // guards the fields below, report and cfg.Out
	marks   []mark
	gaps    []gap
	commits map[int32]time.Time // the last one of each partition
	owners  map[int32]string    // who committed each partition last
}

// Run runs the job, does its faults and compares every ID. Its error says that the run could not be judged; what the
// judgement is stands in the report.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &run{cfg: cfg, kafka: &eos.Kafka{Brokers: cfg.Brokers}, names: eos.Names{Job: cfg.Name}, begun: time.Now(), commits: map[int32]time.Time{}, owners: map[int32]string{}}
	if cfg.Subject == Stock {
		r.cfg.Rekey = 0 // it has no loop
	}
	r.report = &Report{Subject: cfg.Subject, Seed: cfg.Seed, Faults: map[string]int{}, Obeyed: map[string]int{}, Zombies: map[string]int{}, RepliesLost: map[string]int{}, Wrong: map[string]int{}}
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
	if err := r.makePlaces(); err != nil {
		return nil, err
	}
	r.makeCallers()
	// An order may reach a child before it listens; ignored signals are inherited.
	signal.Ignore(syscall.SIGUSR1)
	defer func() { err = errors.Join(err, r.killAll()) }()
	err = r.work(ctx)
	r.report.Took = time.Since(r.begun)
	return r.report, errors.Join(err, r.keep())
}

// makePlaces makes the places of processors and views, and their links to the brokers.
func (r *run) makePlaces() error {
	if r.cfg.Network {
		r.network = newNetwork(r.cfg.Brokers)
	}
	place := func(t task) (*slot, error) {
		t.Brokers, t.Job, t.SessionMs, t.Seed = r.cfg.Brokers, r.cfg.Name, r.cfg.Session.Milliseconds(), r.cfg.Seed
		var err error
		if r.network != nil {
			t.Via, err = r.network.connect(t.Instance)
		}
		return newSlot(r.cfg.Dir, t), err
	}
	for i := range max(r.cfg.Processors, r.cfg.ProcessorsMax) {
		s, err := place(task{Subject: r.cfg.Subject, Instance: fmt.Sprintf("p%d", i), LoseReplies: r.cfg.LoseReplies})
		if err != nil {
			return err
		}
		s.wanted.Store(i < r.cfg.Processors)
		r.slots = append(r.slots, s)
	}
	for i := range r.cfg.Views {
		s, err := place(task{Subject: viewer, Instance: fmt.Sprintf("v%d", i), Careless: r.cfg.Careless})
		if err != nil {
			return err
		}
		s.wanted.Store(true)
		r.views = append(r.views, s)
		r.askers = append(r.askers, &asker{view: s, seed: r.cfg.Seed + uint64(i), ids: r.cfg.IDs})
	}
	return nil
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
		countLost(log, r.report.RepliesLost)
		r.report.Refused += len(refusedCommit.FindAll(log, -1))
	}
	r.report.holdTo(&r.cfg)
	if len(r.report.Blames) == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(r.cfg.Dir, "wrong"), []byte(strings.Join(r.report.Blames, "\n")+"\n"), 0o644)
}

// countLost counts the lost replies that a processor's log tells of.
func countLost(log []byte, lost map[string]int) {
	for _, m := range lostReply.FindAllSubmatch(log, -1) {
		lost[string(m[1])]++
	}
}

// awaitLost has events produced until enough replies were lost; how many that takes hangs on the machine. It gives up where none is
// lost for a while, and the report tells.
func (r *run) awaitLost(ctx context.Context) error {
	before, since := 0, time.Now()
	for r.cfg.RepliesLostMin > 0 {
		lost := map[string]int{}
		for _, s := range r.slots {
			log, err := os.ReadFile(s.log)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			countLost(log, lost)
		}
		n := sum(lost)
		if n > before {
			before, since = n, time.Now()
		}
		if n >= r.cfg.RepliesLostMin || time.Since(since) > drainWithin {
			return nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// work starts everything, does the faults, waits for the rest and compares.
func (r *run) work(ctx context.Context) error {
	for _, s := range slices.Concat(r.slots[:r.cfg.Processors], r.views) {
		if err := s.start(r.endedByItself(s)); err != nil {
			return err
		}
	}
	p, err := newProducer(r.kafka, r.rules.Job().Input.Topic, filepath.Join(r.cfg.Dir, "journal"), &r.cfg, r.acks)
	if err != nil {
		return err
	}
	stopWatching, err := r.watch(ctx)
	defer stopWatching()
	if err != nil {
		return errors.Join(err, p.close())
	}
	err = r.faultsUnderLoad(ctx, p)
	r.report.Events = p.acks.Load()
	if err != nil {
		return err
	}
	r.say("everything is produced")
	if r.cfg.Subject == Stock {
		r.oneStays()
	}
	if err := r.drain(ctx); err != nil {
		for _, s := range r.slots {
			err = errors.Join(err, s.signal(syscall.SIGQUIT)) // the logs get the stacks
		}
		return errors.Join(err, pause(ctx, time.Second))
	}
	r.say("everything is processed")
	truth, err := r.awaitWatches(ctx)
	if err != nil {
		return err
	}
	stopWatching()
	r.over.Store(true)
	for _, s := range slices.Concat(r.slots, r.views) {
		if err := s.end(syscall.SIGTERM, stopWithin); err != nil {
			r.blame(err)
		}
	}
	r.say("everything has ended; comparing")
	if err := r.compare(ctx, p.oracle); err != nil {
		return err
	}
	return r.judgeViews(ctx, p.oracle, truth)
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
	for _, a := range r.askers {
		watching.Go(func() {
			if err := a.run(ctx); err != nil {
				r.blame(err)
			}
		})
	}
	r.read(ctx, &watching)
	injected := make(chan error, 1)
	go func() {
		err := r.injectAll(ctx)
		if err == nil {
			err = r.awaitLost(ctx)
		}
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
	if r.tally != nil {
		r.report.TokenReads = r.tally.sum()
	}
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
		r.say("%d events produced, %d acknowledged, %d committed, %d processes%s", p.intents.Load(), p.acks.Load(), r.committed.Load(), up, r.readSoFar())
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

// judgeViews judges every answer that a view has given.
func (r *run) judgeViews(ctx context.Context, o *oracle, truth *history.Truth) error {
	if len(r.views) == 0 {
		return nil
	}
	commits, err := readCommits(ctx, r.kafka, r.client, r.rules)
	if err != nil {
		return err
	}
	l := newLedger(o, commits, r.cfg.Partitions, func(a *answer, what string) {
		r.blame(fmt.Errorf("%s said of %s %.2fs after the start, as of %+v: %s", a.view, a.id, a.asked.Sub(r.begun).Seconds(), a.asOf, what))
	})
	for _, a := range r.askers {
		l.judge(a.answers)
		r.report.Answers += len(a.answers)
		r.report.Unanswered += a.refused.Load()
		r.report.Silence = max(r.report.Silence, a.silence)
	}
	if len(r.watches) > 0 {
		r.judgeWatches(truth, o, l)
	}
	r.report.Wrong = l.reports
	return nil
}

// killAll ends what is left, by process ID.
func (r *run) killAll() error {
	r.over.Store(true)
	var all error
	for _, s := range slices.Concat(r.slots, r.views) {
		s.op.Lock()
		all = errors.Join(all, s.end(syscall.SIGKILL, stopWithin))
		s.op.Unlock()
	}
	if r.network != nil {
		r.network.close()
	}
	for _, c := range r.clients {
		c.close()
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
