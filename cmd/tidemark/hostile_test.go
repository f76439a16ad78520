package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/tidemark/tidemark/rules"
)

// hostileIDs do something to a terminal, or to a log that is read line by line.
var hostileIDs = []string{
	"\x1b[2J\x1b[H", "\x1b]0;title\a", "\u009b31m", "a\nlevel=ERROR msg=forged", "a\rb", "\u202egnp.exe", "zero\u200bwidth", "\u2028line", "\x7f\b\b", "\x00", "\U000e0041tag",
}

// harmless tells that a text holds nothing but printable characters and its own line ends.
func harmless(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
	})
}

func TestVisible_NothingIsLeftForATerminalAndJSONStaysTheSame(t *testing.T) {
	t.Parallel()
	for _, id := range append(hostileIDs, "plain", "späß", "日本", "👍", "a\\u001bb", "\xff") {
		if got := visible(id); !harmless(got) || strings.Contains(got, "\n") {
			t.Errorf("visible(%q) is %q", id, got)
		}
		for _, raw := range []string{`{"id":` + mustJSON(t, id) + `}`, `{"id":"` + strings.Map(onlyAbove(' '), id) + `"}`} {
			var before, after any
			if err := errors.Join(json.Unmarshal([]byte(raw), &before), json.Unmarshal([]byte(visible(raw)), &after)); err != nil || fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("%q reads as %q, visible as %q (%v)", raw, before, after, err)
			}
		}
		shown := showID(id)
		back, err := readIDs(strings.NewReader(shown+"\n"), nil)
		if !harmless(shown) || id != "\xff" && (err != nil || len(back) != 1 || back[0] != id) {
			t.Errorf("showID(%q) is %q, which reads back as %q, %v", id, shown, back, err)
		}
	}
	for _, id := range []string{"plain", "späß", "日本", "👍"} {
		if got := visible(id); got != id {
			t.Errorf("visible(%q) is %q, want it as it is", id, got)
		}
	}
	for _, id := range hostileIDs { // the control
		if harmless(strings.ReplaceAll(id, "\n", "\r")) {
			t.Errorf("control: %q does no harm, so the test shows nothing", id)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// onlyAbove drops what may not stand raw in JSON.
func onlyAbove(least rune) func(rune) rune {
	return func(r rune) rune {
		if r < least || r == '"' || r == '\\' {
			return -1
		}
		return r
	}
}

// What is printed of IDs, values and errors comes from Kafka, where strangers wrote it, or from a view, which may be anybody's.
func TestVerbs_PrintNothingThatATerminalObeys(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	var events strings.Builder
	for i, id := range hostileIDs {
		fmt.Fprintf(&events, "{\"id\":%s,\"time\":\"2026-01-01T00:00:%02dZ\",\"type\":\"x\",\"value\":1}\n", mustJSON(t, id), i)
	}
	events.WriteString("{\"id\":\"x\",\"time\":\"\u009b2J\u202e\x1b[2J\",\"value\":1}\n{\"\u009b2J\":1,\"\u009b2J\":2}\n")
	s.do(events.String(), "produce", "--create-topics").isHarmless(t, "produce", exitUser)
	s.must("", "run", "--state", t.TempDir(), "--until-caught-up").isHarmless(t, "run", exitDone)
	list := s.must("", "list")
	list.isHarmless(t, "list", exitDone)
	if got := strings.Count(list.out, "\n"); got != len(hostileIDs) {
		t.Errorf("list: got %d lines for %d IDs:\n%s", got, len(hostileIDs), list.out)
	}
	s.must("", "dump").isHarmless(t, "dump", exitDone)
	s.must(list.out, "get", "--stdin").isHarmless(t, "get", exitDone)
	s.do("", "get", "\u009b2Jnobody").isHarmless(t, "get of nobody", exitUser)
	s.do("", "list", "--flag", "\x1b[2J").isHarmless(t, "list of a strange flag", exitUser)
	s.do("", "verify").isHarmless(t, "verify", exitDone)

	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/error") {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "{\"code\":\"internal\",\"message\":\"\u009b2J\\u001b[2J\",\"details\":[]}")
			return
		}
		io.WriteString(w, "{\"state\":{\"id\":\"\u009b2J\u202e\"},\"as_of\":{\"partition\":0,\"position\":\"1\",\"commit\":\"1\"}}")
	}))
	defer evil.Close()
	try(t, "", "get", "--view", evil.URL, "a").isHarmless(t, "get of a view that is not ours", exitDone)
	try(t, "", "get", "--view", evil.URL, "error").isHarmless(t, "get of a view that fails", exitEnvironment)
}

func (d done) isHarmless(t *testing.T, what string, code int) {
	t.Helper()
	if d.code != code {
		t.Errorf("%s: exit code %d, want %d\n%s", what, d.code, code, d.err)
	}
	if !harmless(d.out) || !harmless(d.err) {
		t.Errorf("%s prints %q and %q", what, d.out, d.err)
	}
}

func TestCheck_PrintsNothingThatATerminalObeys(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]string{
		"faults":  "name: x\n\"k\\e[2J\": 1\ninput: {topic: t}\nflags: {a: {when: \"totals['\\e[2J'] > 1\"}}\n",
		"meaning": "name: x\ninput: {topic: t}\nflags: {a: {when: \"event.s == '\\u009b2J\\u202e'\"}}\n",
	} {
		file := filepath.Join(t.TempDir(), "job.yaml")
		if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		try(t, "", "check", file).isHarmless(t, name, map[string]int{"faults": exitUser, "meaning": exitDone}[name])
	}
}

// One record is one line of a log, whatever strangers put into it.
func TestLog_ARecordIsOneHarmlessLine(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		for _, text := range hostileIDs {
			var out bytes.Buffer
			g := &globals{Log: format}
			g.logger(&out).Warn("refused "+text, "id", text, slog.Group("g", text, text), "cause", errors.New(text))
			line := strings.TrimSuffix(out.String(), "\n")
			if strings.ContainsAny(line, "\n\r\x1b\x00") || format == "text" && !harmless(line) {
				t.Errorf("%s: %q is logged as %q", format, text, line)
			}
		}
	}
}

// Names that become paths, groups and topics stay where they belong.
func TestNames_ThatWouldLeaveTheirDirectoryAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", ".", "..", "../x", "a/../../x", "/etc/passwd", "a/b", `a\b`, "a\x00b", "a\nb", "%2e%2e", "~", "$HOME", "a b", "a:b", "é", "\u202ea", strings.Repeat("x", 201),
	} {
		src := fmt.Sprintf("name: %s\ninput: {topic: t}\n", mustJSON(t, name))
		if _, err := rules.Load([]byte(src)); err == nil {
			t.Errorf("a job of name %q loads", name)
		}
		if _, err := rules.Load([]byte(fmt.Sprintf("name: x\ninput: {topic: %s}\n", mustJSON(t, name)))); err == nil && len(name) < 201 {
			t.Errorf("an input topic of name %q loads", name)
		}
	}
	for _, name := range []string{"...", "-rf", "..a", "a.g2"} { // odd, but they name one folder
		rs, err := rules.Load([]byte(fmt.Sprintf("name: %q\ninput: {topic: t}\n", name)))
		if err != nil {
			t.Errorf("a job of name %q: %v", name, err)
			continue
		}
		base := filepath.Join("here", "state")
		if dir := filepath.Join(base, rs.Job().Name); filepath.Dir(dir) != base {
			t.Errorf("the state of job %q lies in %s", name, dir)
		}
	}
}

func TestRun_RefusesInstancesAndInputsThatAreNotItsOwn(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("", "produce", "--create-topics", dataFile("events.ndjson.gz"))
	for _, name := range []string{"..", "../x", "a/b", "a#0", "a b", "a\nb", "\x1b[2J", strings.Repeat("x", 201)} {
		got := s.do("", "run", "--state", t.TempDir(), "--until-caught-up", "--instance", name)
		if name == ".." { // a name, and nowhere a path
			got.wants(t, "instance "+name, exitDone, "", "")
			continue
		}
		got.wants(t, "instance "+name, exitUser, "", "--instance")
		got.isHarmless(t, "instance "+name, exitUser)
	}
	for _, topic := range []string{"x-table", "x-loop", "x-flags", "x-dead-letters"} {
		file := filepath.Join(t.TempDir(), "job.yaml")
		if err := os.WriteFile(file, []byte("name: x\ninput: {topic: "+topic+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		loop := &shell{t: t, job: file, brokers: s.brokers}
		loop.do("", "run", "--state", t.TempDir()).wants(t, "input "+topic, exitUser, "", "would never end")
	}
}
