package guard

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/view"
)

// call is one request under way, and the writer that the view writes to.
type call struct {
	http.ResponseWriter
	guard     *Guard
	request   *http.Request
	route     *Route
	trace     string
	start     time.Time
	principal *Principal // nil: not known
	client    *client    // nil: none counts

	status int
	bytes  int64
	webEnd connect.Code // the status in the last frame of gRPC-Web
	held   bool         // a place among the requests of its client
	placed bool         // a place among all
	broken bool         // the handler has panicked
	stop   []func()
}

var calls = sync.Pool{New: func() any { return &call{} }}

// serve answers a request, or refuses it.
func (g *Guard) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	c := calls.Get().(*call)
	*c = call{ResponseWriter: w, guard: g, request: r, route: g.routeOf(r), trace: traceOf(r.Header), start: time.Now(), stop: c.stop[:0]}
	w.Header()[TraceHeader] = []string{c.trace}
	defer c.leave()
	no := c.enter()
	c.broken = true // until the answer is there
	defer func() { c.end(no) }()
	if no != nil {
		c.refuse(no)
	} else {
		next.ServeHTTP(c, c.request)
	}
	c.broken = false
}

// leave gives back what the call held; also when the handler panics, as those do that want the connection to be cut.
func (c *call) leave() {
	for _, stop := range c.stop {
		stop()
	}
	if c.held {
		c.client.requests.Add(-1)
	}
	if c.placed {
		c.guard.places(c.route).leave()
	}
	clear(c.stop)
	*c = call{stop: c.stop[:0]}
	calls.Put(c)
}

func (c *call) refuse(no *refusal) {
	if no.code == connect.CodeUnauthenticated {
		challenge := `Bearer realm="tidemark"`
		if no.reason != noCredential {
			challenge += `, error="invalid_token"`
		}
		c.Header().Set("WWW-Authenticate", challenge)
	}
	view.Refuse(c, c.request, no.code, no.message, no.after)
}

// end counts and logs what has been answered.
func (c *call) end(no *refusal) {
	took, code := time.Since(c.start), c.code()
	if no == nil && (code == connect.CodeResourceExhausted || code == connect.CodeUnauthenticated || code == connect.CodePermissionDenied) {
		no = &refusal{reason: byView, code: code}
	}
	c.guard.metrics.answered(c.route, code, took)
	if no != nil {
		c.guard.audit.refused(c, no)
	}
	if c.guard.cfg.Requests != nil {
		logRequest(c.guard.cfg.Requests, c, took)
	}
}

func (c *call) who() string {
	if c.principal == nil {
		return ""
	}
	return plain(c.principal.Name)
}

func (c *call) remote() string { return plain(c.request.RemoteAddr) }

// until ends the call's context when its principal's time is over, or the principal, or what vouches for it, is taken away.
func (c *call) until(p *Principal) {
	ctx, cancel := context.WithCancel(c.request.Context())
	c.stop = append(c.stop, cancel)
	if !p.Expires.IsZero() {
		timer := time.AfterFunc(time.Until(p.Expires), cancel)
		c.stop = append(c.stop, func() { timer.Stop() })
	}
	for _, right := range [...]context.Context{p.revoked, p.trusted} {
		if right != nil {
			stop := context.AfterFunc(right, cancel)
			c.stop = append(c.stop, func() { stop() })
		}
	}
	c.request = c.request.WithContext(view.WithClient(ctx, p.Name))
}

// code is what has been answered. gRPC has it in the trailers, gRPC-Web in the last frame. An answer that broke off is internal,
// whatever it began with.
func (c *call) code() connect.Code {
	if c.broken {
		return connect.CodeInternal
	}
	h := c.Header()
	for _, name := range [...]string{http.TrailerPrefix + "Grpc-Status", "Grpc-Status"} {
		if given := h[name]; len(given) == 1 {
			return grpcCode(given[0])
		}
	}
	if c.webEnd != 0 {
		return c.webEnd
	}
	return view.CodeOf(c.status)
}

func grpcCode(text string) connect.Code {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n >= codesMax {
		return connect.CodeUnknown
	}
	return connect.Code(n)
}

// WriteHeader implements http.ResponseWriter.
func (c *call) WriteHeader(status int) {
	if c.status == 0 && status >= http.StatusOK { // else more is to come
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *call) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	if len(b) > 0 && b[0]&webTrailers != 0 && c.isWeb() {
		c.readWebTrailers(b)
	}
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher; a failure is met by the next Write.
func (c *call) Flush() { _ = c.FlushError() }

// FlushError is what http.ResponseController calls.
func (c *call) FlushError() error {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController find the server's own writer.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// webTrailers marks the frame of gRPC-Web that ends an answer.
const webTrailers = 0x80

func (c *call) isWeb() bool {
	given := c.Header()["Content-Type"]
	return len(given) == 1 && strings.HasPrefix(given[0], "application/grpc-web")
}

func (c *call) readWebTrailers(b []byte) {
	_, rest, ok := bytes.Cut(b, []byte("grpc-status: "))
	if digits, _, _ := bytes.Cut(rest, []byte("\r\n")); ok {
		c.webEnd = grpcCode(string(digits))
	}
}
