package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/view"
)

// lines are what was logged, a JSON object each.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// with gives the lines of a message.
func (l *lines) with(t testing.TB, msg string) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("the log has the line %q: %v", line, err)
		}
		if fields["msg"] == msg {
			found = append(found, fields)
		}
	}
	return found
}

// under is a guard under test, and a server behind which it stands.
type under struct {
	*Guard
	t        testing.TB
	url      string
	addr     string
	log      *lines
	requests *lines
	registry *prometheus.Registry
}

// mustGuard makes a guard that looks at its files all the time.
func mustGuard(t testing.TB, cfg Config) *under {
	t.Helper()
	u := &under{t: t, log: &lines{}, requests: &lines{}, registry: prometheus.NewRegistry()}
	cfg.RereadInterval, cfg.Metrics = 5*time.Millisecond, u.registry
	cfg.Logger = slog.New(slog.NewJSONHandler(u.log, nil))
	cfg.Requests = slog.New(slog.NewJSONHandler(u.requests, nil))
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	u.Guard = g
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return u
}

// mustServe serves next behind a guard.
func mustServe(t testing.TB, cfg Config, next http.Handler) *under {
	t.Helper()
	u := mustGuard(t, cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: u.Handler(next), TLSConfig: u.TLS(), ErrorLog: u.ErrorLog(), Protocols: &http.Protocols{}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	u.addr, u.url = l.Addr().String(), "http://"+l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if u.TLS() != nil {
			_ = s.ServeTLS(l, "", "")
		} else {
			_ = s.Serve(l)
		}
	})
	if u.TLS() != nil {
		u.url = "https://" + u.addr
	}
	t.Cleanup(func() { _ = s.Close(); serving.Wait() })
	return u
}

// idleView is a view that never runs: reads are 503, what needs no table is answered.
func idleView(t testing.TB) http.Handler {
	t.Helper()
	v, err := view.New(view.Config{
		Kafka: &eos.Kafka{Brokers: []string{"none:1"}}, Names: eos.Names{Job: "j"}, Input: "in", Dir: t.TempDir(),
		Schema: &codecs.Schema{Job: "j", InputTopic: "in", Digest: "d", Generation: 1, Totals: []string{"sum"}, Flags: []string{"big"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	answers := v.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprintln(w, "figures")
			return
		}
		answers.ServeHTTP(w, r)
	})
}

// people writes a file of principals, one of each role by its name and some lines more, and gives their tokens.
func people(t testing.TB, more ...string) (path string, tokens map[string]string) {
	t.Helper()
	path, tokens = filepath.Join(t.TempDir(), "principals"), map[string]string{}
	text := "# who may ask\n\n"
	for role := Read; role <= Admin; role++ {
		token, line, err := NewToken(role.String(), Roles(0).with(role), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		tokens[role.String()] = token
		text += line + " # its role is its name\n"
	}
	write(t, path, text+strings.Join(append(more, ""), "\n"))
	return path, tokens
}

// write replaces a file as an operator should: whole.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	code   string // of the one shape
}

// ask sends a request; headers are names and values.
func (u *under) ask(c *http.Client, method, path, body string, headers ...string) answer {
	u.t.Helper()
	a, err := u.try(c, method, path, body, headers...)
	if err != nil {
		u.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (u *under) try(c *http.Client, method, path, body string, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body == "" {
		req.Body = nil
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(text)}
	for name, values := range resp.Trailer {
		a.header[name] = values
	}
	var shape struct{ Code string }
	if json.Unmarshal(text, &shape) == nil {
		a.code = shape.Code
	}
	return a, err
}

func (u *under) get(path string, headers ...string) answer {
	u.t.Helper()
	return u.ask(plainClient(u.t), http.MethodGet, path, "", headers...)
}

// watch opens a stream, and tells when it has ended.
func (u *under) watch(c *http.Client, headers ...string) (ended <-chan struct{}) {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), http.MethodGet, u.url+"/v1/watch", nil)
	if err != nil {
		u.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		u.t.Fatalf("watch: %v %v", resp, err)
	}
	end := make(chan struct{})
	go func() {
		defer close(end)
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
	}()
	return end
}

// mustEnd waits for the end of a stream.
func mustEnd(t testing.TB, whose string, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Errorf("the stream of the one whose %s goes on", whose)
	}
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// plainClient has connections of its own.
func plainClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// figure reads a metric; labels are names and values.
func (u *under) figure(name string, labels ...string) float64 {
	u.t.Helper()
	families, err := u.registry.Gather()
	if err != nil {
		u.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.Metric {
			if hasLabels(m, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	u.t.Fatalf("no metric %s %v", name, labels)
	return 0
}

func hasLabels(m *dto.Metric, labels []string) bool {
	have := map[string]string{}
	for _, l := range m.Label {
		have[l.GetName()] = l.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if have[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never happened that %s", what)
		}
	}
}
