package guard

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestAudit_ARefusedCallIsOneLineThatSaysEverything(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	u := mustGuard(t, Config{Principals: path})
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	headers := append(bearer(tokens["produce"]), "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	w := u.call("10.0.0.1:99", "/v1/ids/a%2Fb?max_age=1s", headers...)
	found := u.log.with(t, "refused")
	if len(found) != 1 || w.Code != http.StatusForbidden {
		t.Fatalf("got %d and %d lines: %s", w.Code, len(found), u.log)
	}
	delete(found[0], "time")
	want := `{"code":"permission_denied","from":"10.0.0.1:99","level":"WARN","method":"GET","msg":"refused","needs":"read","path":"/v1/ids/a%2Fb","reason":"no_role","route":"/v1/ids/{id}","trace":"` + trace + `","who":"produce"}`
	if got, _ := json.Marshal(found[0]); string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := w.Header().Get(TraceHeader); got != trace {
		t.Errorf("the answer has trace id %q, want that of the request", got)
	}
	if u.call("10.0.0.1:99", "/v1/ids/a", bearer(tokens["read"])...).Code != http.StatusOK || len(u.log.with(t, "refused")) != 1 {
		t.Error("a call that was answered has a line as a refused one")
	}
}

// What the view itself refuses because of a limit is in the audit too.
func TestAudit_HasWhatTheViewRefuses(t *testing.T) {
	t.Parallel()
	u := mustGuard(t, Config{})
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
	u.callWith(next, "10.0.0.1:1", "/v1/watch")
	if found := u.log.with(t, "refused"); len(found) != 1 || found[0]["reason"] != "view_limit" {
		t.Errorf("got %v", found)
	}
}

// Nobody fills a disk by being refused: beyond a rate calls are counted. The control is the same number of refusals at the
// pace that has lines for all.
func TestAudit_LinesAreBoundedAndWhatIsLeftOutIsCounted(t *testing.T) {
	t.Parallel()
	path, _ := people(t)
	const flood = 5000
	u := mustGuard(t, Config{Principals: path})
	start := time.Now()
	for range flood {
		u.call("10.0.0.1:1", "/v1/ids/a")
	}
	most := auditBurst + int(auditRate*(time.Since(start).Seconds()+1))
	written := len(u.log.with(t, "refused"))
	if written < auditBurst || written > most {
		t.Errorf("%d refusals have %d lines, want %d to %d", flood, written, auditBurst, most)
	}
	until(t, "what was left out is told", func() bool {
		told := 0.0
		for _, line := range u.log.with(t, "refused calls without a line of their own") {
			told += line["left_out"].(float64)
		}
		return int(told) == flood-written && int(u.figure("tidemark_guard_audit_left_out_total")) == flood-written
	})
	if got := u.figure("tidemark_guard_refused_total", "reason", "no_credential"); got != flood {
		t.Errorf("%v refusals were counted, want %d", got, flood)
	}
	a := newAudit(u.Guard.log, newMetrics()) // the control
	at := time.Now()
	for range flood {
		if at = at.Add(time.Second / auditRate); !a.mayWrite(at) {
			t.Fatal("control: a line is left out at the pace that has lines for all")
		}
	}
}

// A handler that panics is a fault of ours: it is told, with where, and the request is counted and logged as any other. The
// control is a request that is answered.
func TestAudit_APanicIsToldAndCounted(t *testing.T) {
	t.Parallel()
	u := mustServe(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/ids/begun":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			panic("fault of ours\x1b[2J")
		case "/v1/ids/none":
			panic("fault of ours\x1b[2J")
		}
	}))
	for _, path := range []string{"/v1/ids/none", "/v1/ids/begun"} {
		if a, err := u.try(plainClient(t), "GET", path, ""); err == nil {
			t.Errorf("%s: got %d, want the connection to be cut", path, a.status)
		}
	}
	u.get("/v1/ids/fine")
	until(t, "the faults are told", func() bool { return len(u.log.with(t, "a fault in the server")) == 2 })
	for _, line := range u.log.with(t, "a fault in the server") {
		if cause := line["cause"].(string); !strings.Contains(cause, "fault of ours") || !strings.Contains(cause, "audit_test.go:") || strings.Contains(cause, "\x1b") {
			t.Errorf("the line says %q, want what and where, as text", cause)
		}
	}
	for code, want := range map[string]float64{"internal": 2, "ok": 1} {
		if got := u.figure("tidemark_guard_requests_total", "route", idRoute, "code", code); got != want {
			t.Errorf("%v requests were counted as %s, want %v", got, code, want)
		}
	}
	if got := u.figure("tidemark_guard_server_faults_total"); got != 2 || len(u.requests.with(t, "request")) != 3 {
		t.Errorf("%v faults were counted, want 2; the log of requests is %s, want 3 lines", got, u.requests)
	}
}

// What else the server has to say is told too, up to a rate; handshakes stay refused calls.
func TestAudit_LinesOfTheServerAreToldUpToARate(t *testing.T) {
	t.Parallel()
	u := mustGuard(t, Config{})
	log := u.ErrorLog()
	log.Print("http: TLS handshake error from 10.0.0.1:1: EOF")
	if u.figure("tidemark_guard_server_faults_total") != 0 || u.figure("tidemark_guard_refused_total", "reason", "tls_handshake") != 1 {
		t.Error("a handshake counts as a fault, or as nothing")
	}
	const flood = 1000
	start := time.Now()
	for range flood {
		log.Print("http: Accept error: accept tcp: too many open files; retrying in 1s")
	}
	written, most := len(u.log.with(t, "a fault in the server")), faultsBurst+int(faultsRate*(time.Since(start).Seconds()+1))
	if written < faultsBurst || written > most || u.figure("tidemark_guard_server_faults_total") != flood {
		t.Errorf("%d faults have %d lines, want %d to %d, and count as %v", flood, written, faultsBurst, most, u.figure("tidemark_guard_server_faults_total"))
	}
}

// Whatever a caller writes, a line of the log is one line of printable ASCII.
func TestLogs_HoldNothingThatATerminalObeys(t *testing.T) {
	t.Parallel()
	u := mustGuard(t, Config{})
	for _, text := range []string{"\x1b[2J", "a\nb", "a\r", "\u009b2J", "\u202egnp", "\u2028", "\x00", "\xff", strings.Repeat("long", 1000), "日本"} {
		r, err := http.NewRequest("GET", "http://a/v1/nothing", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Method, r.URL.Path, r.RemoteAddr, r.Host = text, "/v1/"+text, text, text
		r.Header = http.Header{"Authorization": {text}, "Traceparent": {text}, "User-Agent": {text}}
		u.Handler(who()).ServeHTTP(&nowhere{header: http.Header{}}, r)
	}
	for _, log := range []*lines{u.log, u.requests} {
		n := 0
		for line := range strings.Lines(log.String()) {
			n++
			if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }) || len(line) > 2000 {
				t.Errorf("a line of %d bytes: %q", len(line), line)
			}
		}
		if n != 10 {
			t.Errorf("10 requests have %d lines", n)
		}
	}
}

// nowhere is an answer that nobody reads.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) WriteHeader(int)             {}
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }

func TestTrace_TakesWhatHoldsAndMakesTheRest(t *testing.T) {
	t.Parallel()
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for given, taken := range map[string]bool{
		"00-" + id + "-" + parent + "-01":                      true,
		"00-" + id + "-" + parent + "-00":                      true,
		"01-" + id + "-" + parent + "-01-more":                 true, // a later version may have more
		"01-" + id + "-" + parent + "-01":                      true,
		"00-" + id + "-" + parent + "-01-more":                 false,
		"01-" + id + "-" + parent + "-01more":                  false,
		"ff-" + id + "-" + parent + "-01":                      false,
		"00-" + strings.ToUpper(id) + "-" + parent + "-01":     false,
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01": false,
		"00-" + id + "-" + strings.Repeat("0", 16) + "-01":     false,
		"00-" + id + "-" + parent:                              false,
		"00_" + id + "_" + parent + "_01":                      false,
		"":                                                     false,
		"00-" + id[:31] + "\n-" + parent + "-01":               false,
		"00-" + strings.Repeat("g", 32) + "-" + parent + "-01": false,
		fmt.Sprintf("00-%s-%s-0g", id, parent):                 false,
	} {
		got := traceOf(http.Header{"Traceparent": {given}})
		if taken != (got == id) || len(got) != 32 || !isHex(got) {
			t.Errorf("%q: the trace id is %q, taken from it: %v, want %v", given, got, got == id, taken)
		}
	}
	if a, b := traceOf(nil), traceOf(nil); a == b {
		t.Errorf("two requests have trace id %s", a)
	}
}
