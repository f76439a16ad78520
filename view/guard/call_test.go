package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// A stream comes through as it is written, and its handler can still move the deadlines of the server's connection and hears
// when the caller has gone. So it is over HTTP/1.1 and HTTP/2.
func TestCall_StreamsPassAndDeadlinesCanBeMoved(t *testing.T) {
	t.Parallel()
	next := make(chan int)
	u := mustServe(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		for _, move := range []func(time.Time) error{control.SetReadDeadline, control.SetWriteDeadline} {
			if err := move(time.Now().Add(time.Hour)); err != nil {
				t.Errorf("deadlines cannot be moved: %v", err)
			}
		}
		for {
			select {
			case n := <-next:
				fmt.Fprintln(w, n)
				if err := control.Flush(); err != nil {
					t.Errorf("flush: %v", err)
				}
			case <-r.Context().Done():
				return
			}
		}
	}))
	for name, client := range map[string]*http.Client{"HTTP/1.1": plainClient(t), "HTTP/2": h2c(t)} {
		go func() { next <- 0 }() // the answer begins with what is written first
		resp, err := client.Get(u.url + "/v1/watch")
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for n := range 3 {
			if n > 0 {
				next <- n
			}
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintln(n) {
				t.Fatalf("%s: got %q %v while the stream is open, want %d", name, line, err, n)
			}
		}
		resp.Body.Close()
		until(t, "the handler hears that the caller has gone", func() bool { return u.figure("tidemark_guard_streams_in_flight") == 0 })
	}
}

// answers is a service that gives one error for each procedure.
type answers struct {
	tidemarkv1connect.UnimplementedViewHandler
}

func (answers) Get(_ context.Context, r *pb.GetRequest) (*pb.GetResponse, error) {
	if r.Id == "" {
		return &pb.GetResponse{}, nil
	}
	return nil, connect.NewError(connect.CodeNotFound, errors.New("none"))
}

// In every protocol the metrics say what the caller was told: gRPC has it in trailers, gRPC-Web in the body.
func TestMetrics_CountCodesInEveryProtocol(t *testing.T) {
	t.Parallel()
	_, service := tidemarkv1connect.NewViewHandler(answers{})
	one := h2c(t)
	for name, option := range map[string]connect.ClientOption{
		"Connect": connect.WithProtoJSON(), "Connect with GET": connect.WithHTTPGet(), "gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(),
	} {
		path, tokens := people(t)
		u := mustServe(t, Config{Principals: path}, service)
		c := tidemarkv1connect.NewViewClient(one, u.url, option)
		for _, ask := range []struct {
			who, id string
			want    connect.Code
		}{{"read", "", 0}, {"read", "a", connect.CodeNotFound}, {"watch", "", connect.CodePermissionDenied}, {"", "", connect.CodeUnauthenticated}} {
			ctx, call := connect.NewClientContext(t.Context())
			if ask.who != "" {
				call.RequestHeader().Set("Authorization", "Bearer "+tokens[ask.who])
			}
			_, err := c.Get(ctx, &pb.GetRequest{Id: ask.id})
			if err != nil && connect.CodeOf(err) != ask.want || err == nil && ask.want != 0 {
				t.Errorf("%s: got %v, want %v", name, err, ask.want)
			}
			labels := []string{"route", tidemarkv1connect.ViewGetProcedure, "code", codeName(ask.want)}
			until(t, name+" is counted", func() bool { return u.figure("tidemark_guard_requests_total", labels...) >= 1 })
			if got := u.figure("tidemark_guard_requests_total", labels...); got != 1 {
				t.Errorf("%s: %v requests with code %v were counted, want 1", name, got, ask.want)
			}
		}
		if got := u.figure("tidemark_guard_request_seconds", "route", tidemarkv1connect.ViewGetProcedure); got != 4 {
			t.Errorf("%s: the latency of %v requests is known, want 4", name, got)
		}
	}
}

func TestMetrics_CountStatusesOfREST(t *testing.T) {
	t.Parallel()
	u := mustGuard(t, Config{OpenMetrics: true})
	for status, code := range map[int]string{200: "ok", 304: "ok", 400: "invalid_argument", 404: "not_found", 410: "failed_precondition", 429: "resource_exhausted", 503: "unavailable", 504: "deadline_exceeded", 500: "internal", 418: "unknown"} {
		before := u.figure("tidemark_guard_requests_total", "route", "/v1/ids", "code", code)
		u.callWith(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), "10.0.0.1:1", "/v1/ids")
		if got := u.figure("tidemark_guard_requests_total", "route", "/v1/ids", "code", code); got != before+1 {
			t.Errorf("status %d is not counted as %s", status, code)
		}
	}
	if w := u.call("10.0.0.1:1", "/metrics"); w.Code != http.StatusOK {
		t.Errorf("/metrics that is open: got %d", w.Code)
	}
}

// A handler that panics, as those do that want the connection cut, holds no place afterwards.
func TestCall_APanicGivesThePlacesBack(t *testing.T) {
	t.Parallel()
	u := mustGuard(t, Config{Limits: Limits{RequestsMax: 1, ClientRequestsMax: 1}})
	for range 3 {
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("got panic %v", p)
				}
			}()
			u.callWith(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "10.0.0.1:1", "/v1/ids/a")
		}()
	}
	if w := u.call("10.0.0.1:1", "/v1/ids/a"); w.Code != http.StatusOK {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// BenchmarkGuard is what a guard adds to a request with a static token.
func BenchmarkGuard(b *testing.B) {
	path, tokens := people(b)
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	quiet := mustQuiet(b, Config{Principals: path})
	for name, h := range map[string]http.Handler{"off": next, "token": quiet.Handler(next), "nobody is asked": mustQuiet(b, Config{Alone: true}).Handler(next)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest("GET", "/v1/ids/85.245.107.41", nil)
			r.RemoteAddr = "10.0.0.1:4711"
			r.Header.Set("Authorization", "Bearer "+tokens["read"])
			w := &nowhere{header: http.Header{}}
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}

// mustQuiet is a guard that logs no requests.
func mustQuiet(t testing.TB, cfg Config) *Guard {
	t.Helper()
	cfg.Limits.ClientRate = 1e9
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}
