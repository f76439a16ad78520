package guard

import (
	"bytes"
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

// audit has a line in the log for every call that was refused, up to a rate. What is left out is counted, and the count is
// told.
type audit struct {
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex // guards the fields below
	most    *rate.Limiter
	leftOut int
}

func newAudit(log *slog.Logger, m *metrics) *audit {
	return &audit{log: log, metrics: m, most: rate.NewLimiter(auditRate, auditBurst)}
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
func plain(text string) string {
	cut := len(text) > textMax
	if cut {
		text = text[:textMax]
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

// ErrorLog is for a server whose connections end before there is a request: it counts them and tells of them as of refused
// calls.
func (g *Guard) ErrorLog() *log.Logger { return log.New(handshakes{g.audit}, "", 0) }

// handshakes takes the lines that net/http writes about connections, which hold what strangers sent.
type handshakes struct{ audit *audit }

// Write implements io.Writer: a line a call.
func (h handshakes) Write(line []byte) (int, error) {
	if !bytes.Contains(line, []byte("TLS handshake error")) {
		return len(line), nil
	}
	h.audit.metrics.refused[badHandshake].Inc()
	if h.audit.mayWrite(time.Now()) {
		h.audit.log.Warn("refused", "reason", badHandshake.String(), "cause", plain(strings.TrimSpace(string(line))))
	}
	return len(line), nil
}
