// Package ingest writes events into a job's input topic for many callers at once, through one idempotent producer, and
// tells each of them what became of each event: acknowledged, with the token that reads take; not written; or not known. It
// is the Producer of a view.
//
// It knows the rules only to refuse what the job would refuse on its arrival, and nothing of states and transports.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"github.com/tidemark/tidemark/view"
)

// Config of an Ingest. Kafka, Names and Rules are needed.
type Config struct {
	Kafka *eos.Kafka
	Names eos.Names
	Rules *rules.RuleSet
	// Key is the member of an event that keys it, for a job whose ID is the record's key.
	Key codecs.Path

	// InflightBytesMax bounds what all callers together have on its way (default 64 MiB). What comes on top is refused.
	InflightBytesMax int64
	// Timeout is how long an event may go unacknowledged before its caller is told so (default 10 s).
	Timeout time.Duration
	// Linger is how long a batch waits for further events (default 0: those that come while others are on their way share one).
	Linger time.Duration

	Metrics prometheus.Registerer // nil: none
	Logger  *slog.Logger          // nil: none

	lookEvery time.Duration // how often the input topic is looked up (default 10 s)
	weak      weakness
}

// weakness switches a protection off, for the test that shows what it is for. No other code can.
type weakness struct {
	plain  bool // the producer is not idempotent
	borrow bool // what is on its way lies in the callers' events
	late   bool // the client learns of the topic with its first event
}

func (c *Config) fill() {
	if c.InflightBytesMax == 0 {
		c.InflightBytesMax = 64 << 20
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.lookEvery == 0 {
		c.lookEvery = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func (c *Config) validate() error {
	switch {
	case c.Kafka == nil || c.Rules == nil || c.Names.Job == "":
		return errors.New("ingest: Kafka, Names and Rules must be set")
	case c.InflightBytesMax < 0 || c.Timeout < 0 || c.Linger < 0:
		return errors.New("ingest: a bound is negative")
	}
	switch own := c.Rules.Job().Input.ID; {
	case own == "" && len(c.Key) == 0:
		return errors.New("ingest: the job's ID is the record's key, and an event by itself has none: name the member that is to be the key")
	case own != "" && len(c.Key) > 0:
		return fmt.Errorf("ingest: a member as the key is for a job whose ID is the record's key; in this one it is %s", own)
	}
	return c.Kafka.Validate()
}

// Ingest writes events into the input of one job. Its methods may be called from any goroutine, before, during and after
// Run; they write while Run is at work.
type Ingest struct {
	cfg     Config
	topic   string
	log     *slog.Logger
	metrics *metrics
	readers sync.Pool // of *rules.Reader

	inflight atomic.Int64 // bytes
	writer   atomic.Pointer[writer]
	trouble  atomic.Pointer[string] // why there is no writer
}

var _ view.Producer = (*Ingest)(nil)

// New makes an Ingest. It opens nothing before Run.
func New(cfg Config) (*Ingest, error) {
	cfg.fill()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	i := &Ingest{cfg: cfg, topic: cfg.Rules.Job().Input.Topic, log: cfg.Logger}
	i.readers.New = func() any { return cfg.Rules.NewReader(cfg.Key) }
	i.block("it is starting")
	i.metrics = newMetrics(i)
	if cfg.Metrics != nil {
		if err := i.metrics.register(cfg.Metrics); err != nil {
			return nil, fmt.Errorf("ingest: metrics: %w", err)
		}
	}
	return i, nil
}

// Admit takes bytes of a request into account, before they are kept; a *view.TooMany says that there is no room for them now.
// What was admitted is given back by Release.
func (i *Ingest) Admit(bytes int64) error {
	if i.inflight.Add(bytes) <= i.cfg.InflightBytesMax {
		return nil
	}
	i.inflight.Add(-bytes)
	i.metrics.refused.Inc()
	return &view.TooMany{What: fmt.Sprintf("more than %d MiB of events are on their way to Kafka; try again a little later", i.cfg.InflightBytesMax>>20)}
}

// Release gives back what was admitted.
func (i *Ingest) Release(bytes int64) { i.inflight.Add(-bytes) }

// Produce writes the events of one request, in order, and returns what became of each when all are acknowledged or given up.
// All of them are checked before the first is written; where one is refused, none is written unless partial says so. Its error
// says that nothing was written. Once writing has begun, it goes on though ctx ends.
func (i *Ingest) Produce(ctx context.Context, events [][]byte, partial bool) ([]view.Produced, error) {
	w := i.writer.Load()
	if w == nil {
		return nil, &view.Unavailable{Why: "no events can be taken: " + *i.trouble.Load()}
	}
	c := newCall(i, w, len(events))
	ctx, span := startSpan(ctx, i.topic, len(events))
	defer span.End()
	c.headers = traceHeaders(ctx)
	refused := c.check(events)
	i.metrics.invalid.Add(float64(refused))
	if refused > 0 && !partial {
		for n := range c.results {
			if c.results[n].Code == 0 {
				c.results[n] = view.Produced{Code: connect.CodeAborted}
			}
		}
		return c.results, nil
	}
	if err := i.Admit(c.bytes); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		i.Release(c.bytes)
		return nil, err
	}
	c.write()
	return c.wait(), nil
}
