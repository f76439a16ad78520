package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark/tidemark/view"
)

// listenDefault is where a view answers.
const listenDefault = "127.0.0.1:8080"

// viewCmd serves the states of a job.
type viewCmd struct {
	Listen string `default:"${listen}" placeholder:"HOST:PORT" help:"Where to answer (${listen})."`
	State  string `placeholder:"DIR" help:"Directory of the local state. It may be deleted while nothing runs. Default: ./.tidemark/view/NAME."`

	viewFlags
}

// viewFlags are those of the verbs that serve a view.
type viewFlags struct {
	ingestFlags
	guardFlags
}

func (*viewCmd) Help() string {
	return `Follows the table of the job in Kafka, keeps it on local disk, and answers over HTTP and gRPC on one port. It asks no processor, and any
number may run. Every answer says as of which input position it is and how old; a view that is not complete answers 503.

  curl http://127.0.0.1:8080/v1/ids/85.245.107.41          one state; IDs in a path are percent-encoded
  curl 'http://127.0.0.1:8080/v1/ids?prefix=85.&limit=10'  a page of states, in ID order
  curl http://127.0.0.1:8080/v1/flags/NAME/ids             those that bear a flag
  curl http://127.0.0.1:8080/v1/status                     positions, lag, age
  curl 'http://127.0.0.1:8080/v1/ids/85.245.107.41?at_least=3@1042'   not before event 1042 of partition 3 is counted
  curl -N 'http://127.0.0.1:8080/v1/watch?flag=NAME'       every committed version of what bears the flag, as it comes
  curl --json '{"id":"a","value":1}' http://127.0.0.1:8080/v1/events   with --ingest: writes an event, and answers the token to read after
  also / for people, /openapi.json, /healthz, /readyz and /metrics; gRPC has reflection and health

Other machines are let in where callers are asked who they are, over TLS:

  tidemark token billing --role read,watch --to principals
  tidemark view … --listen :8443 --serve-tls-cert cert.pem --serve-tls-key key.pem --principals principals`
}

// Run serves until it is told to end.
func (c *viewCmd) Run(a *app) (err error) {
	conn, err := a.connect(mayStart)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	log := a.logger(a.err)
	registry := newRegistry()
	g, err := c.guard(registry, log, a.err, c.Listen)
	if err != nil {
		return err
	}
	l, err := g.listen("listen", c.Listen)
	if err != nil {
		return err
	}
	dir := c.State
	if dir == "" {
		dir = a.viewDir(conn)
	}
	spans, endSpans, err := a.spans(log)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer endSpans()
	actors, v, err := c.open(conn, dir, registry, log, spans)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	log.Info("view", "job", conn.job.Names.Job, "url", g.url(l), "state", dir, "brokers", conn.kafka.Brokers)
	return together(a.ctx, append(actors, g.Run, g.server(l, viewHandler(v, registry)))...)
}

// viewDir is where the view of a job keeps its state by default.
func (a *app) viewDir(conn *connection) string {
	return filepath.Join(a.dataDir(), "view", conn.job.Names.Job)
}

// open makes the view of the flags, and gives what is to run for it.
func (f *viewFlags) open(conn *connection, dir string, registry *prometheus.Registry, log *slog.Logger, spans trace.TracerProvider) (actors []func(context.Context) error, v *view.View, err error) {
	cfg := viewConfig(conn, dir, registry, log, f.watch())
	cfg.Spans = spans
	in, err := f.ingest(conn, registry, log)
	if err != nil {
		return nil, nil, err
	}
	if in != nil {
		cfg.Producer = in
		actors = append(actors, in.Run)
	}
	if v, err = view.New(cfg); err != nil {
		return nil, nil, err
	}
	return append(actors, v.Run), v, nil
}

func viewConfig(conn *connection, dir string, registry *prometheus.Registry, log *slog.Logger, watch view.WatchConfig) view.Config {
	watch.Horizon = conn.watchHorizon()
	return view.Config{
		Kafka: conn.kafka, Names: conn.job.Names, Input: conn.job.Input, Schema: conn.job.Schema,
		Dir: dir, Metrics: registry, Logger: log, Watch: watch,
	}
}

// viewHandler answers for a view, and with metrics.
func viewHandler(v *view.View, registry *prometheus.Registry) http.Handler {
	metrics, answers := promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), v.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// IDs are raw paths, so this is no multiplexer, which would clean them.
		if r.URL.Path == "/metrics" {
			metrics.ServeHTTP(w, r)
			return
		}
		answers.ServeHTTP(w, r)
	})
}
