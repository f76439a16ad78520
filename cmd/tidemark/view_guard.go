package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark/tidemark/view"
	"github.com/tidemark/tidemark/view/guard"
)

// guardFlags say how a verb answers over HTTP: to whom, and how much. A limit that is not given has its default.
type guardFlags struct {
	Insecure bool `help:"Let addresses be taken that other machines can reach, without TLS or without asking who they are; on loopback, answer to whatever name a request gives this machine."`

	ServeTLSCert     string `name:"serve-tls-cert" group:"who may ask" placeholder:"FILE" help:"Answer over TLS with this certificate, PEM. It is read again when it changes."`
	ServeTLSKey      string `name:"serve-tls-key" group:"who may ask" placeholder:"FILE" help:"Its private key, PEM."`
	ServeTLSClientCA string `name:"serve-tls-client-ca" group:"who may ask" placeholder:"FILE" help:"Authorities of client certificates, PEM. Who a certificate is, --principals says."`
	Principals       string `group:"who may ask" placeholder:"FILE" help:"Who may ask, and what: names, roles, hashes of tokens or names of certificates. See 'tidemark token'."`
	OIDCIssuer       string `name:"oidc-issuer" group:"who may ask" placeholder:"URL" help:"Take the tokens (JWT) that this issuer signs."`
	OIDCAudience     string `name:"oidc-audience" group:"who may ask" placeholder:"NAME" help:"What its tokens must be for."`
	OIDCRolesClaim   string `name:"oidc-roles-claim" group:"who may ask" placeholder:"CLAIM" help:"Where they have the roles (roles)."`
	OpenMetrics      bool   `group:"who may ask" help:"Let everybody read /metrics, which else needs the role admin."`
	LogRequests      bool   `group:"who may ask" help:"Log every request, as JSON."`

	HeaderTimeout time.Duration `group:"limits" placeholder:"10s" help:"Time for a request's header, and for the handshake of TLS."`
	ReadTimeout   time.Duration `group:"limits" placeholder:"30s" help:"Time for the whole of a request."`
	WriteTimeout  time.Duration `group:"limits" placeholder:"1m" help:"Time for an answer, streams apart."`
	IdleTimeout   time.Duration `group:"limits" placeholder:"2m" help:"Time between two requests of a connection."`

	HeaderBytesMax    int     `group:"limits" placeholder:"65536" help:"Bytes of a request's header."`
	URLBytesMax       int     `name:"url-bytes-max" group:"limits" placeholder:"16384" help:"Bytes of a URL."`
	BodyBytesMax      int64   `group:"limits" placeholder:"2097152" help:"Bytes of a request's body."`
	RequestsMax       int     `group:"limits" placeholder:"512" help:"Requests under way at once, those that read and those that write each; watchers apart."`
	ClientRequestsMax int     `group:"limits" placeholder:"256" help:"The same of one client: who has a name, else an address."`
	ClientRate        float64 `group:"limits" placeholder:"10000" help:"Requests a second of one client. On loopback, with nobody asked who they are, there is no limit by default."`
	ClientBurst       int     `group:"limits" placeholder:"N" help:"Requests of one client at once; by default those of a second."`
	ClientFailures    float64 `group:"limits" placeholder:"10" help:"Wrong tokens a second of one address."`
	ClientsMax        int     `group:"limits" placeholder:"10000" help:"Clients that are told apart."`

	ConnectionsMax       int `group:"limits" placeholder:"4096" help:"Connections at once; further ones wait. Each needs a file descriptor."`
	ClientConnectionsMax int `group:"limits" placeholder:"1024" help:"The same of one address, on other interfaces than loopback; further ones are closed."`
	StreamsMax           int `group:"limits" placeholder:"250" help:"Requests and watchers at once of one connection of HTTP/2."`
	WatchersMax          int `group:"limits" placeholder:"20000" help:"Watchers at once."`
	ClientWatchersMax    int `group:"limits" placeholder:"1000" help:"The same of one client."`
	WatcherQueueBytesMax int `group:"limits" placeholder:"1048576" help:"Bytes that may wait for a watcher; beyond them it is told that it is slow, and goes on from where it is."`
}

// watch are the limits of watchers.
func (f *guardFlags) watch() view.WatchConfig {
	return view.WatchConfig{Max: f.WatchersMax, PerClientMax: f.ClientWatchersMax, QueueBytesMax: f.WatcherQueueBytesMax}
}

// guarded is a guard and what belongs to it in a server.
type guarded struct {
	*guard.Guard
	limits limits
	letIn  bool // other machines may come
}

// guard reads what the flags name, for servers on some addresses.
func (f *guardFlags) guard(registry *prometheus.Registry, log *slog.Logger, stderr io.Writer, addrs ...string) (*guarded, error) {
	alone := true
	for _, addr := range addrs {
		alone = alone && isLoopback(addr)
	}
	m, err := f.limits(alone)
	if err != nil {
		return nil, err
	}
	cfg := guard.Config{
		TLS:        guard.TLSFiles{Cert: f.ServeTLSCert, Key: f.ServeTLSKey, ClientCA: f.ServeTLSClientCA},
		Principals: f.Principals, OpenMetrics: f.OpenMetrics, Alone: alone, LocalNames: alone && !f.Insecure, Logger: log, Metrics: registry,
		OIDC: guard.OIDC{Issuer: f.OIDCIssuer, Audience: f.OIDCAudience, RolesClaim: f.OIDCRolesClaim},
		Limits: guard.Limits{
			BodyBytesMax: f.BodyBytesMax, URLBytesMax: f.URLBytesMax, RequestsMax: f.RequestsMax, ClientRequestsMax: f.ClientRequestsMax,
			StreamsMax: f.WatchersMax, ClientRate: f.ClientRate, ClientBurst: f.ClientBurst, ClientFailures: f.ClientFailures, ClientsMax: f.ClientsMax,
		},
	}
	if f.LogRequests {
		cfg.Requests = slog.New(slog.NewJSONHandler(stderr, nil))
	}
	g, err := guard.New(cfg)
	if err != nil {
		return nil, &usage{err}
	}
	m.tls, m.faults = g.TLS(), g.ErrorLog()
	return &guarded{g, m, f.Insecure || m.tls != nil && g.Asks()}, nil
}

// limits are those of a server, with the flags in place of the usual ones.
func (f *guardFlags) limits(alone bool) (limits, error) {
	m := serveLimits
	for _, t := range []struct {
		name  string
		field *time.Duration
		value time.Duration
	}{{"header", &m.readHeader, f.HeaderTimeout}, {"read", &m.read, f.ReadTimeout}, {"write", &m.write, f.WriteTimeout}, {"idle", &m.idle, f.IdleTimeout}} {
		if t.value < 0 {
			return m, usagef("--%s-timeout %v: want a time above zero", t.name, t.value)
		} else if t.value > 0 {
			*t.field = t.value
		}
	}
	most := descriptors()
	m.connections = min(m.connections, most)
	if f.ConnectionsMax > most {
		return m, usagef("--connections-max %d: only %d of the file descriptors that this process may open are left for connections: raise the limit (ulimit -n)", f.ConnectionsMax, most)
	}
	m.clientConnections = min(m.clientConnections, m.connections)
	if alone { // then all have one address
		m.clientConnections = 0
	}
	for _, n := range []struct {
		name  string
		field *int
		value int
	}{
		{"header-bytes-max", &m.headerBytes, f.HeaderBytesMax},
		{"connections-max", &m.connections, f.ConnectionsMax},
		{"client-connections-max", &m.clientConnections, f.ClientConnectionsMax},
		{"streams-max", &m.streams, f.StreamsMax},
		{"watchers-max", new(int), f.WatchersMax},
		{"client-watchers-max", new(int), f.ClientWatchersMax},
		{"watcher-queue-bytes-max", new(int), f.WatcherQueueBytesMax},
	} {
		if n.value < 0 {
			return m, usagef("--%s %d: want a number above zero", n.name, n.value)
		} else if n.value > 0 {
			*n.field = n.value
		}
	}
	return m, nil
}

// descriptorsKept are for local state, Kafka and the rest.
const descriptorsKept = 1024

// descriptors is how many connections fit into what the process may open, of which Go takes all that the system lets it
// have.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return serveLimits.connections
	}
	return int(min(limit.Cur-min(descriptorsKept, limit.Cur/2), 1<<20))
}

// listen opens an address. Other machines are let in where they are asked who they are, over TLS.
func (g *guarded) listen(flag, addr string) (net.Listener, error) { return listen(flag, addr, g.letIn) }

// server answers for a handler, behind the guard.
func (g *guarded) server(l net.Listener, h http.Handler) func(context.Context) error {
	return func(ctx context.Context) error { return g.limits.serve(ctx, l, g.Handler(h)) }
}

// url is where a listener is asked.
func (g *guarded) url(l net.Listener) string {
	if g.limits.tls != nil {
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}
