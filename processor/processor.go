// Package processor is the job at work: a Goka group graph of input, loop, group table and outputs,
// whose callback decodes an event, applies the rules to its ID's state, and writes what follows from
// it. How all that becomes exactly once is package eos's affair; what an event means is package
// rules'. This package knows neither files nor flags.
package processor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"go.opentelemetry.io/otel/trace"
)

// Config of a Processor. Rules, Kafka, StateDir and Instance are needed.
type Config struct {
	Rules      *rules.RuleSet
	Kafka      *eos.Kafka
	Generation uint32 // of the state; 0 means 1
	StateDir   string // holds this instance's local state; may be deleted at any time between runs
	Instance   string // a stable name for this slot, one live process each

	// Replication of the topics that are created, and the least that is taken of those that exist; 0 means 3, or the number of
	// brokers where there are fewer, and only a warning where a topic has less.
	Replication int16
	// UntilCaughtUp ends Run, without error, once every input record that was there at the start, and every
	// record that it re-keyed, is committed. It is ErrNotCaughtUp if Run's context ends before.
	UntilCaughtUp bool

	Metrics prometheus.Registerer // nil: none
	Spans   trace.TracerProvider  // nil: none
	Logger  *slog.Logger          // nil: none

	// Unit overrides settings of the unit of work; its fields that are named above are ignored.
	Unit eos.Config
}

// ErrNotCaughtUp says that Run was ended before it had done what UntilCaughtUp asks for.
var ErrNotCaughtUp = errors.New("ended before everything was committed; what is committed stays, and the next run goes on from there")

// Processor runs one job in one process.
type Processor struct {
	cfg     Config
	names   eos.Names
	log     *slog.Logger
	unit    *eos.Unit
	metrics *metrics
	tracer  *tracer // nil: none

	partitions int32 // of the input; known once Run has found the topics
}

// New checks cfg. It starts nothing and opens no file.
func New(cfg Config) (*Processor, error) {
	if cfg.Rules == nil || cfg.Kafka == nil || cfg.StateDir == "" || cfg.Instance == "" {
		return nil, errors.New("processor: rules, brokers, state directory and instance are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Generation = max(cfg.Generation, 1)
	p := &Processor{cfg: cfg, log: cfg.Logger, metrics: newMetrics()}
	p.names = eos.Names{Job: cfg.Rules.Job().Name, Generation: cfg.Generation}
	p.tracer = newTracer(cfg.Spans, p.names.Job, cfg.Rules.Job().Input.Topic)
	if err := p.openUnit(); err != nil {
		return nil, err
	}
	if cfg.Metrics != nil {
		if err := p.metrics.register(cfg.Metrics, p); err != nil {
			return nil, errors.Join(fmt.Errorf("processor: metrics: %w", err), p.unit.Close())
		}
	}
	return p, nil
}

func (p *Processor) openUnit() error {
	in := p.cfg.Rules.Job().Input
	u := p.cfg.Unit
	u.Kafka, u.Names, u.Input, u.Instance = p.cfg.Kafka, p.names, in.Topic, p.cfg.Instance
	u.Digest, u.Dir = p.cfg.Rules.Schema().Digest, filepath.Join(p.cfg.StateDir, "table")
	u.Codec, u.NewHandler, u.Logger = stateCodec{p.cfg.Rules}, p.newHandler, p.cfg.Logger
	u.Finite = p.cfg.UntilCaughtUp
	u.From = eos.StartFrom{Latest: in.From.Latest, HasMs: in.From.HasMs, AtMs: in.From.Ms}
	onCommit := u.OnCommit
	u.OnCommit = func(st eos.CommitStats) {
		p.metrics.committed(st)
		p.tracer.committed(&st)
		if onCommit != nil {
			onCommit(st)
		}
	}
	unit, err := eos.New(u)
	p.unit = unit
	return err
}

// Run works until ctx ends (nil, after a last commit and giving the group notice), until it is caught up if
// that was asked for (nil, and ErrNotCaughtUp if ctx ended before), or until a fault that waiting does not mend: *eos.FailStop,
// eos.ErrInstanceTaken. Brokers that are away are waited for. Run may be called once.
func (p *Processor) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, p.unit.Close()) }()
	caughtUp, err := p.work(ctx)
	if err == nil && p.cfg.UntilCaughtUp && !caughtUp {
		return ErrNotCaughtUp
	}
	return err
}

// work is Run between opening and closing.
func (p *Processor) work(ctx context.Context) (caughtUp bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := p.prepareTopics(ctx); err != nil {
		return false, endedBy(ctx, err)
	}
	watched := make(chan error, 1)
	go func() {
		defer stop()
		var err error
		caughtUp, err = p.watch(ctx)
		watched <- err
	}()
	err = p.runGoka(ctx)
	stop()
	err = errors.Join(err, <-watched)
	return caughtUp, err
}

// runGoka runs the graph, again where Goka gave up on something that passes.
func (p *Processor) runGoka(ctx context.Context) error {
	for {
		err := p.runGraph(ctx)
		if stop := p.unit.Err(); stop != nil {
			return stop
		}
		if ctx.Err() != nil {
			return nil
		}
		p.log.Warn("the processor ended; starting it again", "cause", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (p *Processor) runGraph(ctx context.Context) error {
	graph := goka.DefineGroup(goka.Group(p.names.Group()),
		goka.Input(goka.Stream(p.cfg.Rules.Job().Input.Topic), p.unit.BatchCodec(), p.unit.Callback),
		goka.Loop(p.unit.BatchCodec(), p.unit.Callback),
		goka.Persist(p.unit.TableCodec()),
		goka.Output(goka.Stream(p.names.Flags()), p.unit.TableCodec()),
		goka.Output(goka.Stream(p.names.DeadLetters()), p.unit.TableCodec()),
	)
	proc, err := goka.NewProcessor(p.cfg.Kafka.Brokers, graph, p.unit.Options()...)
	if err != nil {
		return fmt.Errorf("make the processor: %w", err)
	}
	return proc.Run(ctx)
}

// Status lists the partitions that this process owns now.
func (p *Processor) Status() []eos.PartitionStatus { return p.unit.Status() }

// Names of the job's topics and group.
func (p *Processor) Names() eos.Names { return p.names }

// endedBy drops an error that is only the context's end.
func endedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func init() {
	// Goka's own default logger writes to standard error; ours is handed in by option, and what little
	// passes it by says nothing that the unit does not say.
	sarama.Logger = log.New(io.Discard, "", 0)
}
