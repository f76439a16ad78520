package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/processor"
)

// runCmd runs the processor of a job.
type runCmd struct {
	State         string `placeholder:"DIR" help:"Directory of the local state. It may be deleted while nothing runs: Kafka has everything. Default: ./.tidemark/state/NAME."`
	Instance      string `placeholder:"NAME" help:"Stable name of this process among those of the job; one that is taken is refused. Default: from host and state directory."`
	UntilCaughtUp bool   `help:"End with 0 once every input record that was there at the start is committed."`
	Listen        string `placeholder:"HOST:PORT" help:"Serve /metrics, /healthz and /readyz there."`
	View          string `placeholder:"HOST:PORT" help:"Serve a view of the job there, in the same process; its state lies in ./.tidemark/view/NAME."`
	InflatedMib   int32  `name:"inflated-mib" placeholder:"N" help:"The most that one compressed record batch of the input may inflate to, in MiB (128). One that is larger stops the process."`
	Replication   int16  `placeholder:"N" help:"Replicas of the topics that are created; one that exists and has fewer is refused. Default: 3, or the number of brokers if there are fewer, and only a warning."`

	viewFlags
}

func (*runCmd) Help() string {
	return `Counts every event of the input topic into the state of its ID, exactly once. Start as many processes as there are
partitions, each with a state directory of its own; they share the work, and take over from one that dies. SIGTERM and
Ctrl-C make a last commit and leave the work to the others; a second one ends at once, which loses nothing either. Started again in
its state directory, a process goes on at once, whatever it ended by.

  tidemark run --job job.yaml --brokers k1:9092,k2:9092
  tidemark run --job job.yaml --embedded                   a broker for trying, in this process

Topics that are missing are created, the input alone is not: see ` + "`tidemark topics --help`" + `.`
}

// Run works until it is told to end.
func (c *runCmd) Run(a *app) (err error) {
	conn, err := a.connect(toRun)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	if c.UntilCaughtUp {
		if err := conn.inputExists(a.ctx); err != nil {
			return err
		}
	}
	show := a.progress(false)
	defer show.end()
	r := &running{app: a, cmd: c, conn: conn, show: show, log: a.logger(show)}
	spans, endSpans, err := a.spans(r.log)
	if err != nil {
		return err
	}
	defer endSpans()
	r.spans = spans
	return r.run()
}

// running is one `run` under way.
type running struct {
	*app
	cmd    *runCmd
	conn   *connection
	show   *progress
	log    *slog.Logger
	spans  trace.TracerProvider // nil: none
	proc   *processor.Processor
	events atomic.Int64 // committed by this process
}

func (r *running) run() error {
	c, name := r.cmd, r.conn.rules.Job().Name
	if c.State == "" {
		c.State = filepath.Join(r.dataDir(), "state", name)
	}
	if c.Instance == "" {
		c.Instance = instanceName(c.State)
	}
	if !eos.ValidInstance(c.Instance) {
		return usagef("--instance %q: want 1 to 200 of A-Z a-z 0-9 . _ -", c.Instance)
	}
	registry := newRegistry()
	cfg := processor.Config{
		Rules: r.conn.rules, Kafka: r.conn.kafka, StateDir: c.State, Instance: c.Instance, Replication: c.Replication,
		UntilCaughtUp: c.UntilCaughtUp, Metrics: registry, Spans: r.spans, Logger: r.log,
	}
	if c.Ingest && c.View == "" {
		return usagef("--ingest is for the view in this process: say --view HOST:PORT too")
	}
	if c.InflatedMib < 0 || c.InflatedMib > 2047 {
		return usagef("--inflated-mib %d: want 1 to 2047", c.InflatedMib)
	}
	cfg.Unit.InflatedBytesMax = c.InflatedMib << 20
	cfg.Unit.OnCommit = func(s eos.CommitStats) { r.events.Add(s.Events) }
	var err error
	if r.proc, err = processor.New(cfg); err != nil {
		return err
	}
	servers, err := r.servers(registry)
	if err != nil {
		return err
	}
	r.log.Info("running", "job", name, "instance", c.Instance, "state", c.State, "brokers", r.conn.kafka.Brokers, "rules", r.conn.rules.Schema().Digest)
	actors := append([]func(context.Context) error{r.proc.Run, r.watch}, servers...)
	start := time.Now()
	if err := together(r.ctx, actors...); err != nil {
		return err
	}
	r.show.end()
	r.log.Info("ended", "events", r.events.Load(), "seconds", int64(time.Since(start).Seconds()))
	return nil
}

// servers opens what else answers in this process.
func (r *running) servers(registry *prometheus.Registry) (actors []func(context.Context) error, err error) {
	c := r.cmd
	addrs := slices.DeleteFunc([]string{c.Listen, c.View}, func(addr string) bool { return addr == "" })
	if len(addrs) == 0 {
		return nil, nil
	}
	g, err := c.guard(registry, r.log, r.show, addrs...)
	if err != nil {
		return nil, err
	}
	actors = append(actors, g.Run)
	if c.Listen != "" {
		l, err := g.listen("listen", c.Listen)
		if err != nil {
			return nil, err
		}
		r.log.Info("serving metrics", "url", g.url(l)+"/metrics")
		actors = append(actors, g.server(l, r.handler(registry)))
	}
	if c.View != "" {
		l, err := g.listen("view", c.View)
		if err != nil {
			return nil, err
		}
		more, v, err := c.open(r.conn, r.viewDir(r.conn), registry, r.log, r.spans)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		r.log.Info("serving a view", "url", g.url(l))
		actors = append(append(actors, more...), g.server(l, viewHandler(v, registry)))
	}
	return actors, nil
}

// watch shows how far recovery and work are.
func (r *running) watch(ctx context.Context) error {
	every := 10 * time.Second
	if r.show.tty {
		every = 200 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	first, seen, at := int64(-1), int64(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s := sumStatus(r.proc.Status())
		if !r.show.tty {
			events := r.events.Load()
			rate := float64(events-seen) / time.Since(at).Seconds()
			seen, at = events, time.Now()
			r.log.Info("progress", "partitions", s.partitions, "recovering", s.recovering, "lag", s.lag, "events", events, "events_per_second", int64(rate))
			continue
		}
		switch {
		case s.partitions == 0:
			r.show.tell("waiting for partitions", 0, 0)
		case s.recovering > 0:
			r.show.tell("recovering", s.recovered, s.recoverEnd)
		case s.lag == 0:
			first = -1
			r.show.tell("caught up", r.events.Load(), 0)
		default:
			if first < 0 {
				first = s.next
			}
			r.show.tell("counting events", s.next-first, s.next-first+s.lag)
		}
	}
}

// statusSum is the progress over all partitions that a process owns.
type statusSum struct {
	partitions, recovering int
	recovered, recoverEnd  int64 // of the partitions that recover
	next, lag              int64 // over all source topics
}

func sumStatus(all []eos.PartitionStatus) (sum statusSum) {
	for i := range all {
		st := &all[i]
		sum.partitions++
		if st.State != "running" {
			sum.recovering++
			sum.recovered += st.Recovered
			sum.recoverEnd += st.RecoverEnd
		}
		for topic, high := range st.HighWater {
			if src := st.Position.Source(topic); src != nil {
				sum.next += src.Next
				sum.lag += max(high-src.Next, 0)
			}
		}
	}
	return sum
}

// handler answers those who look after the process.
func (r *running) handler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s := sumStatus(r.proc.Status())
		if s.partitions == 0 || s.recovering > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%d partitions, %d of them recovering, lag %d\n", s.partitions, s.recovering, s.lag)
	})
	return mux
}

func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// instanceName is the same at every start with the same state directory on the same host.
func instanceName(state string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	if abs, err := filepath.Abs(state); err == nil {
		state = abs
	}
	return fmt.Sprintf("%s-%x", host, sha256.Sum256([]byte(state)))[:len(host)+9]
}
