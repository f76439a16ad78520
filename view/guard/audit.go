package guard

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many lines refused calls may make: nobody fills a disk by being refused.
const (
	auditRate  = 20 // a second
	auditBurst = 200
)

// How many lines of its own the server may make, which callers can be the cause of too.
const (
	faultsRate     = 1 // a second
	faultsBurst    = 20
	faultsBytesMax = 8 << 10 // of a line: a panic's has the stack
)

// audit has a line in the log for every call that was refused, up to a rate. What is left out is counted, and the count is
// told.
type audit struct {
	log     *slog.Logger
	metrics *metrics
	faults  *rate.Limiter

	mu      sync.Mutex // guards the fields below
	most    *rate.Limiter
	leftOut int
}

func newAudit(log *slog.Logger, m *metrics) *audit {
	return &audit{log: log, metrics: m, most: rate.NewLimiter(auditRate, auditBurst), faults: rate.NewLimiter(faultsRate, faultsBurst)}
}

func (a *audit) refused(c *call, no *refusal) {
	a.metrics.refused[no.reason].Inc()
	if !a.mayWrite(c.start) {
		return
	}
	a.log.LogAttrs(context.Background(), slog.LevelWarn, "refused",
		slog.String("trace", c.trace), slog.String("who", c.who()), slog.String("from", c.remote()),
		slog.String("method", plain(c.request.Method)), slog.String("route", c.route.Name), slog.String("path", pathOf(c.request)),
		slog.String("needs", c.route.Needs.String()), slog.String("reason", no.reason.String()), slog.String("code", codeName(no.code)))
}

func (a *audit) mayWrite(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most.AllowN(now, 1) {
		return true
	}
	a.leftOut++
	a.metrics.leftOut.Inc()
	return false
}

// flush tells how many lines were left out since it was last told.
func (a *audit) flush() {
	a.mu.Lock()
	n := a.leftOut
	a.leftOut = 0
	a.mu.Unlock()
	if n > 0 {
		a.log.Warn("refused calls without a line of their own", "left_out", n, "lines_per_second_max", auditRate)
	}
}

// logRequest writes the line of a request that was answered.
func logRequest(log *slog.Logger, c *call, took time.Duration) {
	log.LogAttrs(context.Background(), slog.LevelInfo, "request",
		slog.String("trace", c.trace), slog.String("who", c.who()), slog.String("from", c.remote()),
		slog.String("method", plain(c.request.Method)), slog.String("route", c.route.Name), slog.String("path", pathOf(c.request)),
		slog.String("code", codeName(c.code())), slog.Int("status", c.status), slog.Int64("bytes", c.bytes), slog.Float64("seconds", took.Seconds()))
}

// textMax is how much of what a caller wrote goes into a log.
const textMax = 256

// pathOf is the path without the query, escaped and cut.
func pathOf(r *http.Request) string { return plain(r.URL.EscapedPath()) }

// plain is a text of strangers in printable ASCII, cut.
func plain(text string) string { return printable(text, textMax) }

func printable(text string, most int) string {
	cut := len(text) > most
	if cut {
		text = text[:most]
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			quoted := strconv.QuoteToASCII(text)
			text = quoted[1 : len(quoted)-1]
			break
		}
	}
	if cut {
		text += "..."
	}
	return text
}

// ErrorLog is for a server: it counts connections that end before there is a request, and tells of them as of refused calls.
// What else goes wrong in the server, such as a panic or a connection that cannot be accepted, is a fault of ours.
func (g *Guard) ErrorLog() *log.Logger { return log.New(serverLines{g.audit}, "", 0) }

// serverLines takes the lines that net/http writes, which hold what strangers sent.
type serverLines struct{ audit *audit }

// Write implements io.Writer: a line, or a panic with its stack, a call.
func (s serverLines) Write(text []byte) (int, error) {
	a, line := s.audit, strings.Join(strings.Fields(string(text)), " ")
	switch {
	case strings.HasPrefix(line, "http: TLS handshake error"):
		a.metrics.refused[badHandshake].Inc()
		if a.mayWrite(time.Now()) {
			a.log.Warn("refused", "reason", badHandshake.String(), "cause", plain(line))
		}
	default:
		a.metrics.faults.Inc()
		if a.faults.Allow() {
			a.log.Error("a fault in the server", "cause", printable(line, faultsBytesMax))
		}
	}
	return len(text), nil
}
