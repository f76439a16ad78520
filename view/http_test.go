package view

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func mustRequest(t testing.TB, path string) *http.Request {
	t.Helper()
	return httptest.NewRequest(http.MethodGet, path, nil)
}

func TestHTTP_OneID(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	odd := []string{"a/b", "..", ".", "nul\x00inside", "__offset", "späß", "a b?c#d%41", strings.Repeat("x", 1024)}
	for i, id := range odd {
		w.commit(change{id, uint64(i + 1), 3})
	}
	r := w.view(t.TempDir()).ready()
	for i, id := range odd {
		code, body, header := r.getRaw("/v1/ids/" + percent(id))
		var got struct {
			State struct {
				ID, Version string
				Totals      map[string]string
				Flags       map[string]any
			}
			AsOf struct {
				Partition      int32
				Position, Time string
			} `json:"as_of"`
			Age, TableAge *string
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
			t.Fatalf("%q: got %d %s (%v), want a state", id, code, body, err)
		}
		if got.State.ID != id || got.State.Version != fmt.Sprint(i+1) || got.State.Totals["sum"] != "3" || len(got.State.Flags) != 1 {
			t.Errorf("%q: got %s", id, body)
		}
		if got.AsOf.Partition != w.on(id) || got.AsOf.Position == "" || got.AsOf.Time != "1970-01-01T00:00:02Z" {
			t.Errorf("%q: got as_of %+v", id, got.AsOf)
		}
		etag := header.Get("ETag")
		if code, body, _ := r.getRaw("/v1/ids/"+percent(id), "If-None-Match", `"0-0", W/`+etag); code != 304 || body != "" {
			t.Errorf("%q with its ETag %s: got %d %q, want 304", id, etag, code, body)
		}
		if code, _, _ := r.getRaw("/v1/ids/"+percent(id), "If-None-Match", `"1-999"`); code != 200 {
			t.Errorf("%q with another ETag: got %d, want 200", id, code)
		}
	}
}

// percent encodes every byte, so that no client or server can take a part of it for structure.
func percent(id string) string {
	var b strings.Builder
	for i := range len(id) {
		fmt.Fprintf(&b, "%%%02X", id[i])
	}
	return b.String()
}

// getRaw asks the handler itself: clients clean paths.
func (r *running) getRaw(path string, headers ...string) (int, string, http.Header) {
	rec, req := newRecorder(), mustRequest(r.t, path)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	r.Handler().ServeHTTP(rec, req)
	return rec.Code, rec.Body.String(), rec.Header()
}

func TestHTTP_RefusesByName(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	w.commit(change{"a", 1, 101}, change{"b", 1, 101})
	r := w.view(t.TempDir()).ready()
	_, body, _ := r.get("/v1/ids?limit=1")
	var page struct {
		Token string `json:"next_page_token"`
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil || page.Token == "" {
		t.Fatalf("got %s (%v), want a token", body, err)
	}
	for path, want := range map[string]string{
		"/v1/ids/":                                    "400 1 to 1024 bytes",
		"/v1/ids/%ff":                                 "400 UTF-8",
		"/v1/ids/" + strings.Repeat("x", 1025):        "400 1 to 1024 bytes",
		"/v1/ids/a?max-age=1s":                        "400 unknown parameter",
		"/v1/ids/a?max_age=soon":                      "400 max_age is a duration",
		"/v1/ids/a?max_age=1s&max_age=2s":             "400 more than once",
		"/v1/ids?prefix=" + strings.Repeat("x", 1025): "400 1024 bytes",
		"/v1/ids?limit=0":                             "400 limit is a number",
		"/v1/ids?limit=1001":                          "400 limit is a number",
		"/v1/ids?page_token=abc":                      "400 page_token",
		"/v1/ids?prefix=x&page_token=" + page.Token:   "400 belongs to another list",
		"/v1/flags/big/ids?page_token=" + page.Token:  "400 belongs to another list",
		"/v1/flags/none/ids":                          `400 no flag \"none\"`,
		"/v1/ids/zzz":                                 "404 no event of ID",
		"/v2":                                         "404 no such path",
	} {
		code, body, header := r.get(path)
		if got := fmt.Sprint(code, " ", body); !strings.HasPrefix(got, want[:3]) || !strings.Contains(got, want[4:]) || !json.Valid([]byte(body)) {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
		if header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got content type %s", path, header.Get("Content-Type"))
		}
	}
	resp, err := http.Post(r.url+"/v1/ids/a", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: got %d, want 405 with Allow", resp.StatusCode)
	}
}

// TestHTTP_ErrorsAreUTF8 even where they quote a body that is not.
func TestHTTP_ErrorsAreUTF8(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.view(t.TempDir()).ready()
	for _, body := range []string{"\xc3\xdf\t", "{\"ids\":[\"\xff\"]}", "{\"\xc3\xdf\":1}", "\xff"} {
		for _, path := range []string{"/v1/ids:batchGet", "/tidemark.v1.View/BatchGet"} {
			req, err := http.NewRequest(http.MethodPost, r.url+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			if code, text, _ := r.do(req); code != 400 || !utf8.ValidString(text) || !json.Valid([]byte(text)) {
				t.Errorf("%s with %q: got %d %q, want a 400 in UTF-8", path, body, code, text)
			}
		}
	}
}

func TestHTTP_PagesAreStableUnderWrites(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	var want []string
	for i := range 30 {
		id := fmt.Sprintf("id%02d", i)
		want = append(want, id)
		w.commit(change{id, 1, 101})
	}
	r := w.view(t.TempDir()).ready()
	for _, path := range []string{"/v1/ids?limit=4&prefix=id", "/v1/flags/big/ids?limit=4"} {
		var got []string
		for token := ""; ; {
			_, body, _ := r.get(path + "&page_token=" + url.QueryEscape(token))
			var page struct {
				States []struct{ ID, Version string }
				Token  string `json:"next_page_token"`
				AsOf   []any  `json:"as_of"`
			}
			if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.AsOf) != 2 {
				t.Fatalf("got %s (%v)", body, err)
			}
			for _, s := range page.States {
				got = append(got, s.ID)
			}
			if token = page.Token; token == "" {
				break
			}
			// Between pages everything changes but which IDs there are, and one comes that lies behind.
			w.commit(change{want[0], uint64(len(got)), 103}, change{want[29], uint64(len(got)), 105})
			p := w.on(want[29])
			r.covers(p, w.seq[p])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v\nwant %v", path, got, want)
		}
	}
}
