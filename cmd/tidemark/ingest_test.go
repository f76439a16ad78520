package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector is a receiver of spans, and keeps their names.
type collector struct {
	url string

	mu    sync.Mutex // guards names and who
	names map[string]bool
	who   string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{names: map[string]bool{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		req := &tracepb.ExportTraceServiceRequest{}
		if err == nil {
			err = proto.Unmarshal(body, req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("the collector got %s: %v", r.URL.Path, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range req.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					c.who = a.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					c.names[s.Name] = true
				}
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *collector) has(names ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		if !c.names[name] {
			return false
		}
	}
	return true
}

// TestIngest_TheWholeWay writes an event through `run --view --ingest`, reads it by its token, and finds its spans.
func TestIngest_TheWholeWay(t *testing.T) {
	spans := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", spans.url)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	s := newShell(t)
	job, err := filepath.Abs(s.job)
	if err != nil {
		t.Fatal(err)
	}
	s.job = job
	t.Chdir(t.TempDir()) // where the view's state lies
	s.must("", "topics", "--create", "--partitions", "2")
	proc := start(t, "run", "--job", s.job, "--brokers", strings.Join(s.brokers, ","), "--state", filepath.Join(t.TempDir(), "state"), "--view", "127.0.0.1:0", "--ingest")
	proc.says(`msg="sending spans"`)
	url := proc.says(`msg="serving a view" url=(http://\S+)`)
	proc.says(`msg="taking events"`)
	resp, err := http.Post(url+"/v1/events", "application/json", strings.NewReader(`{"id":"10.0.0.1","time":"2026-01-02T03:04:05Z","type":"x","value":7}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Results []struct{ Token string } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK || len(answer.Results) != 1 {
		t.Fatalf("got %d %+v (%v)", resp.StatusCode, answer, err)
	}
	if body := fetch(t, url+"/v1/ids/10.0.0.1?wait=20s&at_least="+answer.Results[0].Token); !strings.Contains(body, `"sum":"7"`) {
		t.Errorf("got %s", body)
	}
	if text := fetch(t, url+"/metrics"); !strings.Contains(text, `tidemark_ingest_events_total{result="acknowledged"} 1`) {
		t.Errorf("metrics: %s", text)
	}
	want := []string{"POST /v1/events", "send ssh-auth-events", "process ssh-auth-events", "commit", "GET /v1/ids/{id}"}
	for end := time.Now().Add(time.Minute); !spans.has(want...); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the collector has %v, want %v", spans.names, want)
		}
	}
	if spans.who != "tidemark" {
		t.Errorf("the spans are of %q, want tidemark", spans.who)
	}
	if code := proc.stop(); code != exitDone {
		t.Errorf("run ended with %d, want 0\n%s", code, proc.err.String())
	}
}

func TestIngest_FlagsThatDoNotGoTogetherAreRefused(t *testing.T) {
	s := newShell(t)
	s.must("", "topics", "--create", "--partitions", "1")
	keyed := writeFile(t, "keyed.yaml", "name: keyed\ninput: {topic: keyed-events}\ntotals:\n  n: {count: true}\n")
	for _, c := range []struct {
		job, err string
		args     []string
	}{
		{s.job, "--view HOST:PORT", []string{"run", "--ingest"}},
		{s.job, "say --ingest too", []string{"view", "--ingest-key", "id"}},
		{s.job, "in this one it is event.id", []string{"view", "--ingest", "--ingest-key", "id"}},
		{s.job, "want 1 to", []string{"view", "--ingest", "--ingest-inflight-mib", "0"}},
		{keyed, "say --ingest-key MEMBER", []string{"view", "--ingest"}},
	} {
		args := append(c.args, "--job", c.job, "--brokers", strings.Join(s.brokers, ","), "--state", t.TempDir())
		if c.args[0] == "view" {
			args = append(args, "--listen", "127.0.0.1:0")
		}
		try(t, "", args...).wants(t, strings.Join(c.args, " "), exitUser, "", c.err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	s.do("", "view", "--listen", "127.0.0.1:0", "--state", t.TempDir()).wants(t, "another protocol", exitUser, "", "http/protobuf alone")
}
