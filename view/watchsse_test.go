package view

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// stream is a watch over HTTP.
type stream struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Reader
}

type sseEvent struct{ id, event, data string }

func (r *running) stream(path string, headers ...string) *stream {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatalf("GET %s: %v", path, err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		r.t.Fatalf("GET %s: got %d, %s, want an event stream", path, resp.StatusCode, got)
	}
	return &stream{r.t, resp, bufio.NewReader(resp.Body)}
}

// next reads one event, as a browser does.
func (s *stream) next() (e sseEvent) {
	s.t.Helper()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("after %+v: %v", e, err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.event = value
		case "data":
			e.data = value
		case "":
			if e.event != "" {
				if !json.Valid([]byte(e.data)) {
					s.t.Errorf("got data %s, want JSON", e.data)
				}
				return e
			}
		}
	}
}

func TestSSE_TellsResumesAndResets(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	s := r.stream("/v1/watch?prefix=a")
	if e := s.next(); e.event != "heartbeat" || e.id == "" || !strings.Contains(e.data, `"table_age"`) {
		t.Errorf("got %+v first, want a heartbeat with a place", e)
	}
	w.commit(change{"a/ü\n", 1, 101}, change{"b", 1, 1})
	first := s.next()
	for _, part := range []string{`{"id":"a/ü\n","state":{"id":"a/ü\n","version":"1"`, `"flags":{"big":{`, `"as_of":{"partition":`} {
		if first.event != "change" || !strings.Contains(first.data, part) {
			t.Errorf("got %+v, want a change with %s", first, part)
		}
	}
	s.resp.Body.Close()
	w.commit(change{"a2", 0, 0})
	for _, resumed := range []*stream{
		r.stream("/v1/watch?prefix=a", "Last-Event-ID", first.id),
		r.stream("/v1/watch?prefix=a&from=" + first.id),
		r.stream("/v1/watch?prefix=a&from=ignored", "Last-Event-ID", first.id),
	} {
		e := resumed.next()
		for ; e.event == "heartbeat"; e = resumed.next() {
		}
		if e.event != "change" || !strings.HasPrefix(e.data, `{"id":"a2","state":null,`) {
			t.Errorf("resumed: got %+v, want the deletion", e)
		}
	}
	other := r.hub.origin
	other.tableID[0]++
	gone := r.stream("/v1/watch", "Last-Event-ID", other.text(place{spots: make([]spot, 2)}, -1, spot{}))
	if e := gone.next(); e.event != "reset" || e.id != "now" || !strings.Contains(e.data, `"reason":"gone: `) {
		t.Errorf("got %+v, want a reset after which a browser begins now", e)
	}
	if b, err := gone.in.ReadByte(); err == nil {
		t.Errorf("after the reset: got %q, want the end", b)
	}
	if e := r.stream("/v1/watch", "Last-Event-ID", "now").next(); e.event != "heartbeat" {
		t.Errorf("got %+v, want a heartbeat", e)
	}
}

func TestSSE_RefusesByName(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{PerClientMax: 1}).ready()
	r.stream("/v1/watch").next()
	for path, want := range map[string]string{
		"/v1/watch?id=":            "400 id is empty",
		"/v1/watch?flag=":          "400 flag is empty",
		"/v1/watch?flag=none":      `400 no flag \"none\"`,
		"/v1/watch?id=a&prefix=a":  "400 one of id, prefix and flag",
		"/v1/watch?ids=a":          "400 unknown parameter",
		"/v1/watch?id=a&id=b":      "400 more than once",
		"/v1/watch?id=a":           "429 resource_exhausted",
		"/v1/watch?prefix=%FF%FEa": "429 this client has 1 watchers",
	} {
		code, body, header := r.get(path)
		if got := fmt.Sprint(code, " ", body); !strings.HasPrefix(got, want[:3]) || !strings.Contains(got, want[4:]) {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
		if code == 429 && header.Get("Retry-After") == "" {
			t.Errorf("%s: got no Retry-After", path)
		}
	}
}

// TestSSE_SharesWhatIsTheSame: watchers of one partition, and those of all, are sent the same bytes, made once.
func TestSSE_SharesWhatIsTheSame(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	var watchers []*Watcher
	for _, req := range []WatchRequest{{ID: "a"}, {ID: "a"}, {}, {Prefix: "a"}} {
		watcher, _ := r.stalled(req)
		watchers = append(watchers, watcher)
	}
	w.commit(change{"a", 1, 1})
	made := 0
	encode := func(e *Event) []byte { made++; return appendSSE(e) }
	var sent []string
	for _, watcher := range watchers {
		events, err := watcher.Next(t.Context(), nil)
		if err != nil || len(events) != 1 || events[0].Kind != Changed {
			t.Fatalf("got %+v, %v, want one change", events, err)
		}
		sent = append(sent, string(events[0].Encoded(FormSSE, encode)))
	}
	if sent[0] != sent[1] || sent[2] != sent[3] || sent[0] == sent[2] || made != 2 {
		t.Errorf("four watchers were sent %q, made %d times, want two different ones made once each", sent, made)
	}
}

// TestSSE_HangsUpOnWhoTakesNothing: a connection that nobody reads does not hold a handler for ever.
func TestSSE_HangsUpOnWhoTakesNothing(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{WriteTimeout: 100 * time.Millisecond}).ready()
	returned := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		r.Handler().ServeHTTP(rw, req)
		close(returned)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r.await("the watcher", func() bool { return r.hub.watching.Load() == 1 })
	deadline := time.Now().Add(30 * time.Second)
	for v := uint64(1); time.Now().Before(deadline); v++ {
		var changes []change
		for i := range 300 {
			changes = append(changes, change{fmt.Sprintf("%d%s", i, strings.Repeat("x", 1000)), v, 1})
		}
		w.commit(changes...)
		select {
		case <-returned:
			return
		default:
		}
	}
	t.Error("the handler still waits for who takes nothing")
}

// Whatever the transport, a watch tells the same, and goes on from a place that another transport gave.
func TestWatch_IsTheSameOverEveryTransport(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	s := r.stream("/v1/watch")
	begin := s.next()
	w.commit(change{"a", 1, 101}, change{"späß", 2, 1})
	w.commit(change{"a", 3, 1})
	w.commit(change{"späß", 0, 0}) // deleted
	told := map[string]string{}
	for len(told) < 4 {
		if e := s.next(); e.event == "change" {
			told[e.id] = e.data
		}
	}
	for name, c := range r.clients() {
		stream, err := c.Watch(t.Context(), &pb.WatchRequest{From: begin.id})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for seen := 0; seen < len(told); {
			if !stream.Receive() {
				t.Fatalf("%s: ended after %d changes: %v", name, seen, stream.Err())
			}
			m := stream.Msg()
			if m.GetHeartbeat() != nil {
				continue
			}
			seen++
			want, ok := told[m.Place]
			if got := textOf(t, m.GetChange()); !ok || !reflect.DeepEqual(ageless(t, got), ageless(t, want)) {
				t.Errorf("%s: got %s at %s, server-sent events have %s", name, got, m.Place, want)
			}
		}
		if err := stream.Close(); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
		wrong, err := c.Watch(t.Context(), &pb.WatchRequest{From: "nowhere"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if wrong.Receive() || connect.CodeOf(wrong.Err()) != connect.CodeInvalidArgument {
			t.Errorf("%s: from=nowhere: got %v, %v, want %s", name, wrong.Msg(), wrong.Err(), connect.CodeInvalidArgument)
		}
		_ = wrong.Close()
	}
}
