package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// Config of a Client. Views is needed; each other field's zero value is its default.
type Config struct {
	// Views are the base URLs of views of one job, such as https://view-1.example:8080. Requests go to them in turn; one that
	// cannot be reached, is not ready or too old is passed over for a while.
	Views []string

	// Timeout is how long one attempt of a request may take, beyond what it asks the view to wait (default 10 s).
	Timeout time.Duration
	// Silence is after how long without a word a watch is taken for dead, and resumed. It must be longer than the views'
	// heartbeat interval, which is 15 s (default 45 s).
	Silence time.Duration

	// AttemptsMax is how often a request is made in all (default 4; 1: never again).
	AttemptsMax int
	// RetryRatio is how many retries there may be for each request (default 0.1), beyond RetryBurst (default 100). When
	// every view is in trouble, the load that the client adds is no greater than this.
	RetryRatio float64
	RetryBurst int

	// TLS is for https; nil is the system's roots. The client's own certificate goes there too.
	TLS *tls.Config
	// Token gives the bearer token to send, for each attempt; it is to keep one as long as it is valid.
	Token func(context.Context) (string, error)
	// TokenInPlain allows to send tokens over http to other machines, where anybody on the way can read them.
	TokenInPlain bool
	// Propagate puts the trace of a request into its header, for each attempt.
	Propagate func(context.Context, http.Header)

	// Transport is used instead of the client's own, with TLS of its own.
	Transport http.RoundTripper
}

func (c *Config) fill() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.Timeout, 10 * time.Second}, {&c.Silence, 45 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.AttemptsMax == 0 {
		c.AttemptsMax = 4
	}
	if c.RetryRatio == 0 {
		c.RetryRatio = 0.1
	}
	if c.RetryBurst == 0 {
		c.RetryBurst = 100
	}
}

// validate tells every fault.
func (c *Config) validate() error {
	var faults []error
	if len(c.Views) == 0 {
		faults = append(faults, errors.New("no view is named"))
	}
	for _, v := range c.Views {
		u, err := url.Parse(v)
		switch {
		case err != nil:
			faults = append(faults, err)
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
			faults = append(faults, fmt.Errorf("view %q: want a URL such as http://127.0.0.1:8080", v))
		case u.User != nil:
			faults = append(faults, fmt.Errorf("view %s: a password in a URL ends up in logs: use Token", u.Redacted()))
		case c.Token != nil && u.Scheme == "http" && !c.TokenInPlain && !loopback(u.Hostname()):
			faults = append(faults, fmt.Errorf("view %s: the token could be read on its way: use https, or set TokenInPlain", v))
		}
	}
	if c.Timeout < 0 || c.Silence < 0 || c.AttemptsMax < 0 || c.RetryRatio < 0 || c.RetryBurst < 0 {
		faults = append(faults, errors.New("a number is below zero"))
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("tidemark client: %w", errors.Join(faults...))
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Client asks the views of one job. It may be used from any number of goroutines.
type Client struct {
	cfg        Config
	http       *http.Client
	views      []*endpoint
	next       atomic.Uint32 // the view that is asked next
	budget     budget
	partitions atomic.Int32 // of the input, as last heard; 0: not yet
}

// New makes a client. It connects when it is first asked for something.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.fill()
	burst := float64(cfg.RetryBurst)
	c := &Client{cfg: cfg, budget: budget{ratio: cfg.RetryRatio, most: burst, left: burst}}
	transport := cfg.Transport
	if transport == nil {
		transport = newTransport(cfg.TLS)
	}
	c.http = &http.Client{
		Transport: transport,
		// Nobody is to send a request, and its token, elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, v := range cfg.Views {
		v = strings.TrimRight(v, "/")
		c.views = append(c.views, &endpoint{url: v, begun: time.Now(), rpc: tidemarkv1connect.NewViewClient(c.http, v,
			connect.WithAcceptCompression("gzip", nil, nil), // small answers cost more time so than they save
			connect.WithInterceptors(&headers{&c.cfg}),
		)})
	}
	return c, nil
}

// newTransport makes connections of HTTP/1.1, of which each carries one request at a time: small answers come sooner than over
// HTTP/2 (BenchmarkGet), and a watch that stalls holds up nothing else.
func newTransport(conf *tls.Config) *http.Transport {
	conf = conf.Clone()
	if conf == nil {
		conf = &tls.Config{}
	}
	conf.NextProtos = []string{"http/1.1"}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		Protocols:           &http.Protocols{},
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// Close gives up connections that are idle. Caches are closed by themselves.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// headers puts token and trace into every request.
type headers struct{ cfg *Config }

func (h *headers) set(ctx context.Context, to http.Header) error {
	if h.cfg.Propagate != nil {
		h.cfg.Propagate(ctx, to)
	}
	if h.cfg.Token == nil {
		return nil
	}
	token, err := h.cfg.Token(ctx)
	if err != nil {
		return &noToken{err}
	}
	to.Set("Authorization", "Bearer "+token)
	return nil
}

// noToken says that there is no token to send.
type noToken struct{ cause error }

func (n *noToken) Error() string { return "no token: " + n.cause.Error() }
func (n *noToken) Unwrap() error { return n.cause }

// WrapUnary implements connect.Interceptor.
func (h *headers) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := h.set(ctx, req.Header()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (h *headers) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if err := h.set(ctx, conn.RequestHeader()); err != nil {
			return &unsent{conn, err}
		}
		return conn
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (h *headers) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// unsent is a stream that fails before it is begun.
type unsent struct {
	connect.StreamingClientConn
	err error
}

func (u *unsent) Send(any) error    { return u.err }
func (u *unsent) Receive(any) error { return u.err }
