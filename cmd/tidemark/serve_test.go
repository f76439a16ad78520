package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// buffer is written by one goroutine and read by another.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// background is a run of the program that goes on until it is stopped, as by SIGTERM.
type background struct {
	t        *testing.T
	out, err buffer
	cancel   context.CancelFunc
	code     chan int
}

func start(t *testing.T, args ...string) *background {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := &background{t: t, cancel: cancel, code: make(chan int, 1)}
	go func() { b.code <- run(ctx, args, stdio{strings.NewReader(""), &b.out, &b.err}) }()
	t.Cleanup(cancel)
	return b
}

// says waits until what was printed matches, and gives the first group.
func (b *background) says(what string) string {
	b.t.Helper()
	pattern := regexp.MustCompile(what)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if m := pattern.FindStringSubmatch(b.out.String() + b.err.String()); m != nil {
			return m[len(m)-1]
		}
		select {
		case code := <-b.code:
			b.t.Fatalf("it ended with %d before it said %q:\n%s%s", code, what, b.out.String(), b.err.String())
		default:
		}
	}
	b.t.Fatalf("it never said %q:\n%s%s", what, b.out.String(), b.err.String())
	return ""
}

// stop ends it and gives the exit code.
func (b *background) stop() int {
	b.t.Helper()
	b.cancel()
	select {
	case code := <-b.code:
		return code
	case <-time.After(time.Minute):
		b.t.Fatalf("it did not end within a minute:\n%s", b.err.String())
		return -1
	}
}

// fetch asks until the answer is 200.
func fetch(t *testing.T, url string) string {
	t.Helper()
	last := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return string(body)
		}
		last = resp.Status + " " + string(body)
	}
	t.Fatalf("GET %s: %s", url, last)
	return ""
}

func TestView_AnswersAsKafkaDoesAndRunServesItToo(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("", "produce", "--create-topics", dataFile("events.ndjson.gz"))
	common := []string{"--job", s.job, "--brokers", strings.Join(s.brokers, ",")}
	state := t.TempDir()
	proc := start(t, append([]string{"run", "--state", state, "--listen", "127.0.0.1:0"}, common...)...)
	metrics := proc.says(`url=(http://\S+/metrics)`)
	alone := start(t, append([]string{"view", "--listen", "127.0.0.1:0", "--state", filepath.Join(t.TempDir(), "view")}, common...)...)
	url := alone.says(`url=(http://\S+)`)
	fetch(t, strings.TrimSuffix(metrics, "/metrics")+"/readyz")
	fetch(t, url+"/readyz")
	if text := fetch(t, url+"/metrics"); !strings.Contains(text, "\ntidemark_view_") {
		t.Errorf("metrics of the view: %s", text)
	}
	s.runUntilCommitted(t, metrics)
	want := s.must("", "dump").out
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got := try(t, "", "dump", "--view", url)
		if got.code == exitDone && got.out == want {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("dump of the view: exit code %d, %d bytes, want %d bytes as from Kafka\n%s", got.code, len(got.out), len(want), got.err)
		}
	}
	d := try(t, "", "get", "--view", url, "24.151.103.17", "nobody")
	d.wants(t, "get --view", exitUser, `"version":"602"`, "no event of ID nobody was counted")
	d.wants(t, "get --view, place", exitUser, "", "as of the input ")
	try(t, "", "list", "--view", url, "--flag", "ten_attempts_10m", "--prefix", "14.").wants(t, "list --view", exitDone, "14.54.210.101\n", "1 ID")
	try(t, "", "list", "--view", url, "--flag", "none").wants(t, "list --view of a strange flag", exitUser, "", "third_failure_10m")
	if code := alone.stop(); code != exitDone {
		t.Errorf("view ended with %d, want 0\n%s", code, alone.err.String())
	}
	if code := proc.stop(); code != exitDone {
		t.Errorf("run ended with %d, want 0\n%s", code, proc.err.String())
	}
}

// runUntilCommitted waits until the metrics say that all 2,785 events are committed.
func (s *shell) runUntilCommitted(t *testing.T, metrics string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if strings.Contains(fetch(t, metrics), "tidemark_events_applied_total 2785") && s.do("", "verify").code == exitDone {
			return
		}
	}
	t.Fatalf("the events were not applied within a minute:\n%s", fetch(t, metrics))
}

func TestEmbedded_OthersReachTheBrokerWhileRunIsUpAndItsDataStay(t *testing.T) {
	job, err := filepath.Abs(dataFile("job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	events, err := filepath.Abs(dataFile("events.ndjson.gz"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	common := []string{"--embedded", "--job", job}
	try(t, "", append(common, "produce", "--create-topics", events)...).wants(t, "produce", exitDone, "2,785 events", "created")
	proc := start(t, append(common, "run", "--view", "127.0.0.1:0")...)
	url := proc.says(`msg="serving a view" url=(http://\S+)`)
	proc.says("for one machine")
	if body := fetch(t, url+"/v1/ids/24.151.103.17"); !strings.Contains(body, `"id":"24.151.103.17"`) {
		t.Errorf("view of run: %s", body)
	}
	fetch(t, url+"/v1/ids?limit=1&max_age=1m") // an age is known once every partition has covered its input
	try(t, "", append(common, "verify")...).wants(t, "verify while run is up", exitDone, "202 of 202", "")
	if code := proc.stop(); code != exitDone {
		t.Errorf("run ended with %d, want 0\n%s", code, proc.err.String())
	}
	try(t, "", append(common, "verify")...).wants(t, "verify afterwards", exitDone, "202 of 202", "")
}

func TestListen_OtherMachinesAreLetInOnlyWhenToldSo(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "example.com:0"} {
		if l, err := listen("listen", addr, false); err == nil {
			l.Close()
			t.Errorf("listen %s: opened, want a refusal", addr)
		} else if exitCode(err) != exitUser || !strings.Contains(err.Error(), "--insecure") {
			t.Errorf("listen %s: %v; want a usage error that names --insecure", addr, err)
		}
	}
	for addr, insecure := range map[string]bool{"127.0.0.1:0": false, "localhost:0": false, "0.0.0.0:0": true} {
		l, err := listen("listen", addr, insecure)
		if err != nil {
			t.Errorf("listen %s, insecure %v: %v", addr, insecure, err)
			continue
		}
		l.Close()
	}
}

func TestTogether_TheFirstToReturnEndsTheOthersAndItsErrorStays(t *testing.T) {
	t.Parallel()
	fault := errors.New("fault")
	waits := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	if err := together(t.Context(), waits, func(context.Context) error { return fault }, waits); !errors.Is(err, fault) {
		t.Errorf("got %v, want the fault", err)
	}
	if err := together(t.Context(), waits, func(context.Context) error { return nil }); err != nil {
		t.Errorf("got %v after an actor that was done, want nil", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := together(ctx, waits, waits); err != nil {
		t.Errorf("got %v after the context's end, want nil", err)
	}
}
