// Package view is the read side of a job: it follows the job's table with read_committed, keeps it in LevelDB with an
// index by flag, and answers.
//
// What it knows, it knows from the table's position records alone (eos.Position): a commit is applied when its position
// record arrives, in one batch, so an answer never shows half a commit. It knows nothing of processors and of rules. Not
// connected, not complete, not level: it says so and never guesses.
//
// The way of a commit: follow.go reads batches, partition.go gathers them up to the position record and publishes a
// snapshot, read.go answers from snapshots, service.go makes answers of it, http.go and rpc.go say them to others. level.go
// finds out how fresh the snapshots are, and token.go waits until they are fresh enough.
// watchhub.go tells each commit to those who watch, watchcatchup.go brings those who resume to where the others are.
package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// Config of a View.
type Config struct {
	Kafka  *eos.Kafka
	Names  eos.Names
	Input  string // the job's input topic
	Schema *codecs.Schema
	// Dir is where the local state lies, a directory for each partition. It is disposable. One view at a time may use it.
	Dir string

	ProbeInterval    time.Duration // how often it is asked whether the view is level (default 100 ms)
	LocalStateMaxAge time.Duration // older local state is rebuilt (default 12 h, well under the table's delete.retention.ms)

	// CacheBytes bounds the states that are kept in memory as they are sent (default 128 MiB; less than 0: none). It comes on
	// top of LevelDB's own caches.
	CacheBytes int

	Watch WatchConfig

	Producer Producer // takes events; nil: the view takes none

	Metrics prometheus.Registerer // nil: none
	Spans   trace.TracerProvider  // nil: none
	Logger  *slog.Logger          // nil: none

	disk []eos.DiskOption // of the local state; tests make it small, slow and failing
}

func (c *Config) fill() {
	if c.ProbeInterval == 0 {
		c.ProbeInterval = 100 * time.Millisecond
	}
	if c.LocalStateMaxAge == 0 {
		c.LocalStateMaxAge = 12 * time.Hour
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 128 << 20
	}
	c.CacheBytes = max(c.CacheBytes, 0)
	c.Watch.fill()
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
}

func (c *Config) validate() error {
	if c.Kafka == nil || c.Schema == nil || c.Input == "" || c.Dir == "" || c.Names.Job == "" {
		return errors.New("view: Kafka, Names, Input, Schema and Dir must be set")
	}
	return c.Kafka.Validate()
}

// View follows the table of one job and answers from it. Reads may come from any goroutine, before, during and after Run.
type View struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	hub     *hub
	cache   *cache

	ran        atomic.Bool
	partitions atomic.Pointer[[]*partition] // in order; nil until the table was found
	trouble    atomic.Pointer[string]       // why it does not go on, nil while it does
	probeFails atomic.Pointer[string]

	rekeyed atomic.Bool   // the loop topic has, or had, records
	probes  atomic.Uint64 // that were answered

	waiting atomic.Int64  // reads that wait for an event
	hurry   chan struct{} // asks the prober to look at the loop now

	mu    sync.Mutex // guards ended
	ended error
}

// New makes a view. It opens nothing before Run.
func New(cfg Config) (*View, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.fill()
	v := &View{cfg: cfg, log: cfg.Logger, metrics: newMetrics(), cache: newCache(cfg.CacheBytes), hurry: make(chan struct{}, 1)}
	v.hub = newHub(v)
	if cfg.Metrics != nil {
		if err := v.metrics.register(cfg.Metrics, v); err != nil {
			return nil, fmt.Errorf("view: metrics: %w", err)
		}
	}
	return v, nil
}

// Run follows the table until ctx ends, which is no error. It waits for a table that does not exist yet, goes on by itself
// when brokers were away, and rebuilds local state that is damaged. What it cannot mend is a *eos.FailStop; a directory
// that another process holds is eos.ErrLocked. A view runs once.
func (v *View) Run(ctx context.Context) error {
	if v.ran.Swap(true) {
		return errors.New("view: Run was called twice")
	}
	err := v.run(ctx)
	if ctx.Err() != nil && !isFinal(err) {
		err = nil
	}
	v.mu.Lock()
	v.ended = errors.Join(errStopped, err)
	v.mu.Unlock()
	v.hub.close(errStopped)
	return err
}

// isFinal tells errors that stand even when the view was asked to end at the same time.
func isFinal(err error) bool {
	var stop *eos.FailStop
	return errors.As(err, &stop) || errors.Is(err, eos.ErrLocked)
}

var errStopped = errors.New("the view has stopped")

func (v *View) run(ctx context.Context) (err error) {
	cl, err := kgo.NewClient(v.cfg.Kafka.Franz()...)
	if err != nil {
		return fmt.Errorf("view: %w", err)
	}
	defer cl.Close()
	found, err := v.findTable(ctx, cl)
	if err != nil {
		return err
	}
	v.hub.begin(found)
	parts, err := v.openPartitions(found)
	defer func() {
		for _, p := range parts {
			err = errors.Join(err, p.close())
		}
	}()
	if err != nil {
		return err
	}
	v.partitions.Store(&parts)

	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { newProber(v, cl, parts).run(ctx) })
	beside.Go(func() { v.hub.catchUp(ctx) })
	defer func() { cancel(); beside.Wait() }()
	return v.follow(ctx, parts)
}

// found is the table as the cluster knows it.
type found struct {
	id         [16]byte
	partitions int32
}

// findTable waits until the table exists.
func (v *View) findTable(ctx context.Context, cl *kgo.Client) (found, error) {
	table := v.cfg.Names.Table()
	for said := ""; ; {
		f, err := lookUp(ctx, cl, table)
		if err == nil {
			v.trouble.Store(nil)
			return f, nil
		}
		if ctx.Err() != nil {
			return found{}, ctx.Err()
		}
		why := fmt.Sprintf("waiting for table %s: %v", table, err)
		if v.trouble.Store(&why); why != said {
			v.log.Info("the table is not there yet; start the job with `tidemark run`", "table", table, "cause", err)
			said = why
		}
		select {
		case <-ctx.Done():
			return found{}, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (v *View) openPartitions(f found) ([]*partition, error) {
	var parts []*partition
	for i := range f.partitions {
		p := newPartition(v, f.id, i)
		if err := p.open(); err != nil {
			return parts, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// all gives the partitions, nil while the table was not found.
func (v *View) all() []*partition {
	if parts := v.partitions.Load(); parts != nil {
		return *parts
	}
	return nil
}

// Ready is nil when every partition is complete: what is found is true, and what is not found does not exist. The error
// says what is missing.
func (v *View) Ready() error {
	v.mu.Lock()
	ended := v.ended
	v.mu.Unlock()
	if ended != nil {
		return ended
	}
	parts := v.all()
	if parts == nil {
		if why := v.trouble.Load(); why != nil {
			return &Unavailable{*why}
		}
		return &Unavailable{"the view is starting"}
	}
	for _, p := range parts {
		if err := p.ready(); err != nil {
			return err
		}
	}
	return nil
}
