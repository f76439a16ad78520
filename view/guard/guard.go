// Package guard stands before a view: it asks callers who they are, lets them do what their roles allow, bounds what each
// and all of them may take, and keeps a record. It knows the routes of a view, and nothing of what is behind them.
//
// The way of a request: routes.go says what it needs, identify.go who asks (authfile.go, oidc.go, tls.go), limits.go and
// clients.go whether it is too much; call.go passes it on and sees what becomes of it, audit.go and metrics.go tell.
package guard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config of a Guard. Where it has neither principals, nor an issuer, nor client authorities, nobody is asked who they are.
type Config struct {
	TLS        TLSFiles // Cert "": no TLS
	Principals string   // the file of principals; "": none
	OIDC       OIDC
	// OpenMetrics lets everybody read /metrics, which otherwise needs the role admin.
	OpenMetrics bool
	// Alone says that all callers without a name are one client, as on the loopback interface.
	Alone bool
	// LocalNames says that, where nobody is asked, only requests to this machine's own names are answered: localhost, or an
	// address of the loopback interface. Else a page from anywhere could have a browser on this machine ask, by a name that it
	// has made point here (DNS rebinding).
	LocalNames bool
	Limits     Limits
	// RereadInterval is how often files are looked at (default 1 s). What two looks have found the same is taken.
	RereadInterval time.Duration

	Logger   *slog.Logger // refused calls, and files that were read again; nil: none
	Requests *slog.Logger // every request; nil: none
	Metrics  prometheus.Registerer
}

// What is read again.
const (
	fileTLS        = "tls"
	filePrincipals = "principals"
)

// Guard stands before the handlers of one process.
type Guard struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	audit   *audit

	tls    *files[served]     // nil: no TLS
	people *files[principals] // nil: no file
	issuer *issuer            // nil: none

	names     *clients[string]
	addresses *clients[netip.Addr]
	requests  places
	events    places // requests that write: readers who wait keep out no writers, nor writers readers
	streams   places
	checks    atomic.Int64 // tokens that wait for the issuer

	metricsOpen Route // /metrics, where everybody may read it
}

// New reads the files that are named. Each must be usable; later on a guard keeps what it has.
func New(cfg Config) (*Guard, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if cfg.RereadInterval == 0 {
		cfg.RereadInterval = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	g := &Guard{cfg: cfg, log: cfg.Logger, metrics: newMetrics()}
	l := &g.cfg.Limits
	l.fill(cfg.Alone && !g.Asks())
	g.audit = newAudit(g.log, g.metrics)
	g.metricsOpen = *exact[metricsRoute]
	g.metricsOpen.Needs = Open
	g.names, g.addresses = newClients[string](l), newClients[netip.Addr](l)
	g.requests = places{most: int64(l.RequestsMax), gauge: g.metrics.inFlight}
	g.events = places{most: int64(l.RequestsMax), gauge: g.metrics.inFlight}
	g.streams = places{most: int64(l.StreamsMax), gauge: g.metrics.streaming}
	if err := g.open(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if cfg.Metrics != nil {
		if err := g.metrics.register(cfg.Metrics, g); err != nil {
			return nil, fmt.Errorf("guard: metrics: %w", err)
		}
	}
	return g, nil
}

func (c *Config) validate() error {
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return errors.New("a certificate and its key go together")
	}
	if c.TLS.ClientCA != "" && c.TLS.Cert == "" {
		return errors.New("client authorities without a certificate of the server")
	}
	return errors.Join(c.OIDC.validate(), c.Limits.validate())
}

func (g *Guard) open() error {
	if g.cfg.TLS.Cert != "" {
		g.tls = &files[served]{what: fileTLS, paths: g.cfg.TLS.paths(), parse: parseTLS, taken: (*served).drop}
		if _, err := g.tls.reload(); err != nil {
			return err
		}
	}
	if g.cfg.Principals != "" {
		g.people = &files[principals]{
			what: filePrincipals, paths: []string{g.cfg.Principals}, taken: (*principals).drop,
			parse: func(contents [][]byte, before *principals) (*principals, error) {
				return parsePrincipals(string(contents[0]), before)
			},
		}
		if _, err := g.people.reload(); err != nil {
			return err
		}
	}
	if g.cfg.OIDC.Issuer != "" {
		g.issuer = newIssuer(g.cfg.OIDC)
	}
	return nil
}

// Asks tells whether callers are asked who they are.
func (g *Guard) Asks() bool {
	return g.cfg.Principals != "" || g.cfg.OIDC.Issuer != "" || g.cfg.TLS.ClientCA != ""
}

// TLS is what a server's listener needs; nil where there is no TLS.
func (g *Guard) TLS() *tls.Config {
	if g.tls == nil {
		return nil
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return g.tls.current.Load().tls, nil },
	}
}

// Handler stands before next.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(next, w, r) })
}

// Run reads files again when they change, and finds the issuer, until ctx ends, which is no error.
func (g *Guard) Run(ctx context.Context) error {
	tick := time.NewTicker(g.cfg.RereadInterval)
	defer tick.Stop()
	for said := ""; ; {
		said = g.discover(ctx, said)
		select {
		case <-ctx.Done():
			g.audit.flush()
			return nil
		case <-tick.C:
		}
		if g.tls != nil {
			g.reloaded(fileTLS)(g.tls.reload())
		}
		if g.people != nil {
			g.reloaded(filePrincipals)(g.people.reload())
		}
		g.audit.flush()
	}
}

// reloaded tells what became of new content.
func (g *Guard) reloaded(file string) func(changed bool, err error) {
	return func(changed bool, err error) {
		switch {
		case err != nil:
			g.metrics.reloads[file][reloadFailed].Inc()
			g.log.Error("files have changed and cannot be used; what was read before still holds", "files", file, "cause", err)
		case changed:
			g.metrics.reloads[file][reloadOK].Inc()
			g.log.Info("files have changed and were read again", "files", file)
		}
	}
}

// discover looks for the issuer until it was found, and tells of a failure once.
func (g *Guard) discover(ctx context.Context, said string) string {
	if g.issuer == nil || g.issuer.verifier.Load() != nil {
		return ""
	}
	err := g.issuer.discover(ctx)
	if err == nil || ctx.Err() != nil {
		return ""
	}
	why := plain(err.Error())
	if why != said {
		g.log.Error("the issuer of tokens was not found; its tokens are refused until it is", "issuer", g.cfg.OIDC.Issuer, "cause", why)
		return why
	}
	return said
}

func (g *Guard) staleFiles() (n float64) {
	if g.tls != nil && g.tls.stale.Load() {
		n++
	}
	if g.people != nil && g.people.stale.Load() {
		n++
	}
	return n
}

func (g *Guard) certificateExpires() float64 {
	if g.tls == nil {
		return 0
	}
	return float64(g.tls.current.Load().tls.Certificates[0].Leaf.NotAfter.Unix())
}

// places are what a bounded number of calls can hold at once.
type places struct {
	most  int64
	taken atomic.Int64
	gauge prometheus.Gauge
}

func (p *places) enter() bool {
	if p.taken.Add(1) > p.most {
		p.taken.Add(-1)
		return false
	}
	p.gauge.Inc()
	return true
}

func (p *places) leave() {
	p.taken.Add(-1)
	p.gauge.Dec()
}

func (g *Guard) places(r *Route) *places {
	switch {
	case r.Stream:
		return &g.streams
	case r.Needs == Produce:
		return &g.events
	}
	return &g.requests
}

// routeOf is the route of a request, as this guard has it.
func (g *Guard) routeOf(r *http.Request) *Route {
	route := routeOf(r)
	if route.Name == metricsRoute && g.cfg.OpenMetrics {
		return &g.metricsOpen
	}
	return route
}
