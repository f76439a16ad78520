package view

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
)

// FuzzHandler sends what no client would. Whatever it is, the answer has the documented shape: JSON, an error with code,
// message and details, no redirect, and never an internal error.
func FuzzHandler(f *testing.F) {
	w := mustTable(f, embedded(f), 2)
	w.begin()
	w.commit(change{"a", 1, 3}, change{"b/c", 2, 101}, change{"..", 3, 105}, change{"nul\x00", 4, 1})
	w.producer = &scripted{results: []Produced{{Token: "0@1"}}}
	r := w.view(f.TempDir()).ready()
	_, body, _ := r.getRaw("/v1/ids?limit=1")
	var page struct {
		Token string `json:"next_page_token"`
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		f.Fatal(err)
	}
	for _, path := range []string{
		"/", "*", "", "//", "/v1", "/v1/", "/v1/ids", "/v1/ids/", "/v1//ids", "/v1/./ids", "/v1/../v1/ids", "//v1/ids/a", "/v1/ids/../ids/a",
		"/v1/ids/a", "/v1/ids/b%2Fc", "/v1/ids/b/c", "/v1/ids/%2e%2e", "/v1/ids/..", "/v1/ids/nul%00", "/v1/ids/%2500", "/v1/ids/%", "/v1/ids/%zz",
		"/v1%2Fids/a", "/%76%31/ids/a", "/v1/ids/%ff", "/v1/ids/a?", "/v1/ids/a?;", "/v1/ids/a?%", "/v1/ids/a?max_age", "/v1/ids/a?max_age=-1s", "/v1/ids/a?max_age=1e999h",
		"/v1/ids?limit=-1", "/v1/ids?limit=99999999999999999999", "/v1/ids?prefix=%ff", "/v1/ids?prefix=a&prefix=b", "/v1/ids?page_token=" + page.Token, "/v1/ids?page_token=!!",
		"/v1/ids?page_token=eyJnIjoxLCJhIjoi_yJ9", "/v1/flags/big/ids", "/v1/flags//ids", "/v1/flags/..%2f..%2f/ids", "/v1/flags/%ff/ids", "/v1/flags/big/ids/../ids", "/v1/status", "/v1/status/", "/v1/status?x",
		"/healthz", "/readyz", "/healthz/", "/V1/ids", "http://elsewhere/v1/ids", "http://[::1]:namedport/", "/v1/ids/" + strings.Repeat("%41", 1025),
	} {
		f.Add("GET", path, "X-A", "b", "")
	}
	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "get", "G\u00c9T"} {
		f.Add(method, "/v1/ids/a", "Content-Type", "application/grpc", "{}")
		f.Add(method, "/v1//ids", "Content-Length", "5", "hello")
	}
	for _, media := range []string{"application/json", "application/x-ndjson", "application/x-ndjson; charset=\"", "text/plain", ""} {
		for _, target := range []string{"/v1/events", "/v1/events?partial=true", "/v1/events?partial", "/v1/events/"} {
			f.Add("POST", target, "Content-Type", media, "{}\n\r\n{\"id\":\"\xff\"}\n")
		}
	}
	for header, value := range map[string]string{
		"If-None-Match": `*, W/"1-1", ",`, "Accept": "text/html", "Accept-Encoding": "gzip;q=0,br", "Range": "bytes=0-1", "Transfer-Encoding": "chunked",
		"Upgrade": "h2c", "Expect": "100-continue", "Content-Encoding": "gzip", "Connect-Protocol-Version": "1", "X-Http-Method-Override": "DELETE", "Forwarded": "for=\"\x1b[31m\"",
	} {
		f.Add("GET", "/v1/ids/a", header, value, "0\r\n\r\n")
	}
	handler := r.Handler()
	f.Fuzz(func(t *testing.T, method, target, header, value, body string) {
		raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a\r\n%s: %s\r\n\r\n%s", method, target, header, value, body)
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return // a server answers this by itself
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		checkShape(t, raw, req, rec)
	})
}

// checkShape checks an answer against what docs/view.md says of all of them.
func checkShape(t *testing.T, raw string, req *http.Request, rec *httptest.ResponseRecorder) {
	t.Helper()
	body := rec.Body.Bytes()
	switch {
	case rec.Code == http.StatusNotModified:
		if len(body) > 0 || rec.Header().Get("ETag") == "" {
			t.Errorf("%q: 304 with body %q and ETag %q", raw, body, rec.Header().Get("ETag"))
		}
		return
	case rec.Code >= 500 && rec.Code != http.StatusServiceUnavailable, rec.Code < 200, rec.Code >= 300 && rec.Code < 400:
		t.Fatalf("%q: got %d %s, want an answer or a refusal", raw, rec.Code, body)
	case req.URL.EscapedPath() == "/" && rec.Code == http.StatusOK && strings.HasPrefix(rec.Header().Get("Content-Type"), "text/html") && rec.Header().Get("X-Content-Type-Options") == "nosniff":
		return // the page for people
	case rec.Header().Get("Content-Type") != "application/json" || rec.Header().Get("X-Content-Type-Options") != "nosniff":
		t.Errorf("%q: got %d with headers %v, want JSON that no browser takes for anything else", raw, rec.Code, rec.Header())
	}
	var failure struct {
		Code    string
		Message *string
		Details *[]any
	}
	if err := json.Unmarshal(body, &failure); err != nil {
		t.Fatalf("%q: got %d %q, want JSON: %v", raw, rec.Code, body, err)
	}
	if wrong := rec.Code >= 400; wrong && (failure.Code == "" || failure.Message == nil || failure.Details == nil) || !wrong && failure.Code != "" {
		t.Errorf("%q: got %d %s, want code, message and details in errors alone", raw, rec.Code, body)
	}
	if strings.ContainsFunc(string(body[:len(body)-1]), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("%q: got %q, want no control character in an answer", raw, body)
	}
	for name, values := range rec.Header() {
		if strings.ContainsAny(name+strings.Join(values, ""), "\r\n") {
			t.Errorf("%q: got header %s: %q with a line end", raw, name, values)
		}
	}
}

// Tricks with paths reach the ID that they spell, or nothing: never another ID, never a file, never a redirect.
func TestHTTP_PathTricksNameTheIDThatTheySpell(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	ids := []string{"a", "..", "../a", "a/../b", "b", "%2e%2e", "nul\x00", "nul", "x\r\nSet-Cookie: a=b", "/etc/passwd", "a?limit=1", "\x1b[2J", "a b", "a+b", "\u202egnp.exe"}
	for i, id := range ids {
		w.commit(change{id, uint64(i + 1), 3})
	}
	r := w.view(t.TempDir()).ready()
	for target, want := range map[string]string{
		"/v1/ids/..": "..", "/v1/ids/%2e%2e": "..", "/v1/ids/%2E%2e": "..", "/v1/ids/%252e%252e": "%2e%2e", "/v1/ids/../a": "../a", "/v1/ids/%2e%2e%2fa": "../a",
		"/v1/ids/a/../b": "a/../b", "/v1/ids/a%2F..%2Fb": "a/../b", "/v1/ids/nul%00": "nul\x00", "/v1/ids/nul": "nul", "/v1/ids/nul%2500": "",
		"/v1/ids/x%0d%0aSet-Cookie:%20a=b": "x\r\nSet-Cookie: a=b", "/v1/ids//etc/passwd": "/etc/passwd", "/v1/ids/%2fetc%2fpasswd": "/etc/passwd",
		"/v1/ids/a%3Flimit=1": "a?limit=1", "/v1/ids/%1b[2J": "\x1b[2J", "/v1/ids/a%20b": "a b", "/v1/ids/a+b": "a+b", "/v1/ids/%e2%80%aegnp.exe": "\u202egnp.exe",
		"/v1/ids/a/": "", "/v1/ids/%c0%ae%c0%ae": "-", "/v1//ids/a": "", "/v1/./ids/a": "", "/v1/x/../ids/a": "", "//v1/ids/a": "", "/v1%2fids%2fa": "", "/V1/ids/a": "",
	} {
		raw := "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n"
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		rec := httptest.NewRecorder()
		r.Handler().ServeHTTP(rec, req)
		checkShape(t, raw, req, rec)
		var got struct{ State struct{ ID string } }
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		switch want {
		case "", "-":
			if code := map[string]int{"": http.StatusNotFound, "-": http.StatusBadRequest}[want]; rec.Code != code {
				t.Errorf("%s: got %d %s, want %d", target, rec.Code, rec.Body, code)
			}
		default:
			if rec.Code != http.StatusOK || got.State.ID != want {
				t.Errorf("%s: got %d %q, want the state of %q", target, rec.Code, got.State.ID, want)
			}
		}
	}
}

// A page of large states ends early, and the token goes on from there.
func TestList_APageIsBoundedInBytes(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	const ids, size = 24, 900 << 10
	for i := range ids {
		c := change{fmt.Sprintf("id%02d", i), 1, 101}
		s := stateOf(c)
		s.Totals[0] = codecs.Value{Kind: codecs.String, Str: strings.Repeat("x", size)}
		record := w.record(c)
		record.Value = s.AppendBinary(nil, w.schema)
		w.transact(kgo.TryCommit, record, w.position(w.on(c.id), 1, 0))
	}
	r := w.view(t.TempDir()).ready()
	for _, path := range []string{"/v1/ids?limit=1000", "/v1/flags/big/ids?limit=1000"} {
		seen, pages := 0, 0
		for token := ""; ; pages++ {
			code, body, _ := r.get(path + "&page_token=" + token)
			var page struct {
				States []struct{ ID string }
				Token  string `json:"next_page_token"`
			}
			if err := json.Unmarshal([]byte(body), &page); err != nil || code != http.StatusOK || len(page.States) == 0 {
				t.Fatalf("%s: got %d with %d states (%v)", path, code, len(page.States), err)
			}
			if len(body) > pageBytesMax+2*size {
				t.Errorf("%s: got a page of %d bytes, want at most %d and one state", path, len(body), pageBytesMax)
			}
			for _, s := range page.States {
				if want := fmt.Sprintf("id%02d", seen); s.ID != want {
					t.Errorf("%s: got %s, want %s", path, s.ID, want)
				}
				seen++
			}
			if token = page.Token; token == "" {
				break
			}
		}
		if seen != ids || pages == 0 {
			t.Errorf("%s: got %d states on %d pages, want %d on several", path, seen, pages+1, ids)
		}
	}
}
