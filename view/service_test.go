package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// h2c is a client that speaks HTTP/2 without TLS.
func h2c(t testing.TB) *http.Client {
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// clients of every protocol.
func (r *running) clients() map[string]tidemarkv1connect.ViewClient {
	one, two := &http.Client{Transport: &http.Transport{}}, h2c(r.t)
	r.t.Cleanup(one.CloseIdleConnections)
	return map[string]tidemarkv1connect.ViewClient{
		"Connect":           tidemarkv1connect.NewViewClient(one, r.url),
		"Connect with JSON": tidemarkv1connect.NewViewClient(one, r.url, connect.WithProtoJSON()),
		"Connect with GET":  tidemarkv1connect.NewViewClient(one, r.url, connect.WithHTTPGet()),
		"gRPC-Web":          tidemarkv1connect.NewViewClient(one, r.url, connect.WithGRPCWeb()),
		"gRPC":              tidemarkv1connect.NewViewClient(two, r.url, connect.WithGRPC()),
	}
}

// post sends a body over HTTP.
func (r *running) post(path, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatalf("POST %s: %v", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	status, answer, _ := r.do(req)
	return status, answer
}

// ageless is the JSON without what the clock changes.
func ageless(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	withoutAges(v)
	return v
}

func withoutAges(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"age", "table_age", "lag_seconds"} {
			delete(v, name)
		}
		for _, in := range v {
			withoutAges(in)
		}
	case []any:
		for _, in := range v {
			withoutAges(in)
		}
	}
}

func textOf(t testing.TB, m proto.Message) string {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestService_EveryTransportGivesTheSameAnswer(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	for i, id := range []string{"a", "a/b", "..", "späß", "nul\x00"} {
		w.commit(change{id, uint64(i + 1), int64(99 + i)})
	}
	r := w.view(t.TempDir()).ready()
	for p := range w.partitions {
		r.levelSince(p, time.Now())
	}
	_, one, _ := r.getRaw("/v1/ids/" + percent("nul\x00"))
	code, batch := r.post("/v1/ids:batchGet", `{"ids":["späß","none","a","späß"],"max_age":"60s"}`)
	_, list, _ := r.get("/v1/ids?limit=2&prefix=a")
	_, flag, _ := r.get("/v1/flags/big/ids?limit=2")
	_, status, _ := r.get("/v1/status")
	if code != 200 || !strings.Contains(batch, `{"id":"none","state":null}`) {
		t.Errorf("batch: got %d %s", code, batch)
	}
	two := int32(2)
	for name, c := range r.clients() {
		for want, call := range map[string]func(context.Context) (proto.Message, error){
			one: func(ctx context.Context) (proto.Message, error) {
				return c.Get(ctx, &pb.GetRequest{Id: "nul\x00"})
			},
			batch: func(ctx context.Context) (proto.Message, error) {
				return c.BatchGet(ctx, &pb.BatchGetRequest{Ids: []string{"späß", "none", "a", "späß"}, MaxAge: durationpb.New(time.Minute)})
			},
			list: func(ctx context.Context) (proto.Message, error) {
				return c.List(ctx, &pb.ListRequest{Prefix: "a", Limit: &two})
			},
			flag: func(ctx context.Context) (proto.Message, error) {
				return c.ListByFlag(ctx, &pb.ListByFlagRequest{Flag: "big", Limit: &two})
			},
			status: func(ctx context.Context) (proto.Message, error) {
				return c.Status(ctx, &pb.StatusRequest{})
			},
		} {
			m, err := call(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := textOf(t, m); !reflect.DeepEqual(ageless(t, got), ageless(t, want)) {
				t.Errorf("%s: got %s\nREST: %s", name, got, want)
			}
		}
	}
}

// unasked is what a read cannot ask for: too many watchers, events of which it is not known whether they are written, a method that is
// not there, a caller who has gone, a fault of our own; and what only the guard before a view says.
var unasked = []connect.Code{
	connect.CodeResourceExhausted, connect.CodeUnknown, connect.CodeUnimplemented, connect.CodeCanceled, connect.CodeInternal,
	connect.CodeUnauthenticated, connect.CodePermissionDenied,
}

// uriOf is a Get over REST, whose durations are zero if there are any.
func uriOf(req *pb.GetRequest) string {
	q := url.Values{}
	if req.AtLeast != "" {
		q.Set("at_least", req.AtLeast)
	}
	if req.Wait != nil {
		q.Set("wait", "0s")
	}
	if req.MaxAge != nil {
		q.Set("max_age", "0s")
	}
	return "/v1/ids/" + req.Id + "?" + q.Encode()
}

// TestService_ErrorsHaveOneShape asks for every code that a read can get, over every transport.
func TestService_ErrorsHaveOneShape(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	w.commit(change{"a", 1, 101})
	r := w.view(t.TempDir()).ready()
	foreign := w.inputID
	foreign[0] ^= 1
	late := "0@7"
	seen := map[connect.Code]bool{}
	for _, test := range []struct {
		req    *pb.GetRequest
		status int
		code   connect.Code
	}{
		{&pb.GetRequest{Id: strings.Repeat("x", 1025)}, 400, connect.CodeInvalidArgument},
		{&pb.GetRequest{Id: "b"}, 404, connect.CodeNotFound},
		{&pb.GetRequest{Id: "a", AtLeast: Token(1, foreign, 0, 0)}, 410, connect.CodeFailedPrecondition},
		{&pb.GetRequest{Id: "a", MaxAge: durationpb.New(0)}, 503, connect.CodeUnavailable},
		{&pb.GetRequest{Id: "a", AtLeast: late, Wait: durationpb.New(0)}, 504, connect.CodeDeadlineExceeded},
	} {
		seen[test.code] = true
		uri := uriOf(test.req)
		status, body, header := r.get(uri)
		for status == 200 { // an age of zero, of a view that was level at this very moment, is not above max_age=0s
			status, body, header = r.get(uri)
		}
		var rest struct {
			Code, Message string
			Details       []struct{ Type, Value string }
		}
		if err := json.Unmarshal([]byte(body), &rest); err != nil || status != test.status || rest.Code != test.code.String() {
			t.Errorf("%v: got %d %s, want %d %s", test.req, status, body, test.status, test.code)
		}
		if retry := header.Get("Retry-After") != ""; retry != (status == 503) {
			t.Errorf("%d: got Retry-After %q", status, header.Get("Retry-After"))
		}
		for name, c := range r.clients() {
			_, err := c.Get(t.Context(), test.req)
			for err == nil {
				_, err = c.Get(t.Context(), test.req)
			}
			var got *connect.Error
			if !errors.As(err, &got) || got.Code() != test.code || len(got.Details()) != len(rest.Details) || test.code != connect.CodeUnavailable && got.Message() != rest.Message {
				t.Errorf("%s: got %v, want %s", name, err, body)
				continue
			}
			if retry := got.Meta().Get("Retry-After") != ""; retry != (status == 503) {
				t.Errorf("%s: got Retry-After %q", name, got.Meta().Get("Retry-After"))
			}
			for i, d := range got.Details() {
				if m, err := d.Value(); err != nil || m.(*pb.Freshness).Position != 1 || "type.googleapis.com/"+rest.Details[i].Type != "type.googleapis.com/"+d.Type() {
					t.Errorf("%s: got detail %v (%v), want %v", name, m, err, rest.Details[i])
				}
			}
		}
	}
	for _, code := range unasked {
		seen[code] = true
	}
	if want := slices.Sorted(maps.Keys(outcomes)); !slices.Equal(slices.Sorted(maps.Keys(seen)), want) {
		t.Errorf("got the codes %v, the table has %v", slices.Sorted(maps.Keys(seen)), want)
	}
	if status, body := r.post("/tidemark.v1.View/Get", `{"id":"a","max_aeg":"1s"}`); status != 400 || !strings.Contains(body, "max_aeg") {
		t.Errorf("a misspelt field: got %d %s, want 400", status, body)
	}
}

// TestService_ErrorsSayAsOfWhen: with the code, the detail tells what went wrong: a view that is too old from one that is not
// ready, and an event that lies elsewhere from another wrong parameter.
func TestService_ErrorsSayAsOfWhen(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	r := w.view(t.TempDir())
	detail := func(q string) string {
		code, body, _ := r.get("/v1/ids/a?" + q)
		var e struct {
			Details []struct {
				Debug struct{ Partition int32 }
			}
		}
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Fatal(err)
		}
		if len(e.Details) == 0 {
			return fmt.Sprint(code)
		}
		return fmt.Sprintf("%d as of partition %d", code, e.Details[0].Debug.Partition)
	}
	if got := detail("max_age=1h"); got != "503" {
		t.Errorf("not ready: got %s, want 503", got)
	}
	w.begin()
	w.commit(change{"a", 1, 101})
	r.ready()
	own, other := w.on("a"), 1-w.on("a")
	for q, want := range map[string]string{
		"max_age=0s":                                fmt.Sprintf("503 as of partition %d", own),
		fmt.Sprintf("at_least=%d@0", other):         fmt.Sprintf("400 as of partition %d", other),
		fmt.Sprintf("at_least=%d@0&wait=31s", own):  "400",
		fmt.Sprintf("at_least=%d@99&wait=1ms", own): fmt.Sprintf("504 as of partition %d", own),
	} {
		if got := detail(q); got != want {
			t.Errorf("%s: got %s, want %s", q, got, want)
		}
	}
}

func TestService_ABatchIsOfOneCommitAPartition(t *testing.T) {
	w := mustTable(t, embedded(t), 3)
	w.begin()
	partner := w.partner()
	commit := func(version uint64) {
		w.commit(change{"pair", version, 1}, change{partner, version, 1}, change{fmt.Sprint("other", version), 1, 1})
	}
	commit(1)
	r := w.view(t.TempDir()).ready()
	stop, looked := make(chan struct{}), sync.WaitGroup{}
	for range 2 {
		looked.Go(func() {
			for last := uint64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				states, asOf, err := r.BatchGet(context.Background(), []string{"pair", "nobody", "other1", partner, "pair"}, Read{})
				if err != nil || states[0] == nil || states[1] != nil || states[3] == nil || len(asOf) == 0 {
					t.Errorf("got %v as of %v (%v)", states, asOf, err)
					return
				}
				if v := states[0].Version; states[3].Version != v || states[4].Version != v || v < last {
					t.Errorf("got versions %d, %d, %d after %d: not one commit", v, states[3].Version, states[4].Version, last)
					return
				}
				last = states[0].Version
			}
		})
	}
	for v := range uint64(60) {
		commit(v + 2)
	}
	p := w.on("pair")
	r.covers(p, w.seq[p])
	close(stop)
	looked.Wait()
	for body, want := range map[string]string{
		`{"ids":[]}`:                     "1 to 1000 IDs, got 0",
		`{"ids":[""]}`:                   "1 to 1024 bytes",
		`{"ids":"a"}`:                    "no BatchGetRequest",
		`{"id":["a"]}`:                   "no BatchGetRequest",
		``:                               "no BatchGetRequest",
		`{"ids":["a"]`:                   "no BatchGetRequest",
		`{"ids":["a"],"max_age":"soon"}`: "no BatchGetRequest",
		`{"ids":["a"],"max_age":"-1s"}`:  "max_age is a duration",
		`{"ids":["a"` + strings.Repeat(`,"a"`, 1000) + `]}`: "got 1001",
		`{"ids":["` + strings.Repeat(`a`, 3<<20) + `"]}`:    "too large",
	} {
		if code, got := r.post("/v1/ids:batchGet", body); code != 400 || !strings.Contains(got, want) {
			t.Errorf("%.40s: got %d %s, want 400 %s", body, code, got, want)
		}
	}
}

func TestService_TellsWhatItIs(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	r := w.view(t.TempDir())
	check := connect.NewClient[wrapperspb.StringValue, wrapperspb.UInt32Value](h2c(t), r.url+"/grpc.health.v1.Health/Check", connect.WithGRPC())
	health := func(service string) (uint32, error) { // both messages have one field, the first, of that type
		resp, err := check.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String(service)))
		if err != nil {
			return 0, err
		}
		return resp.Msg.Value, nil
	}
	if got, err := health(""); err != nil || got != 2 {
		t.Errorf("before it is ready: got %d (%v), want 2, not serving", got, err)
	}
	w.begin()
	r.ready()
	for _, service := range []string{"", "tidemark.v1.View"} {
		if got, err := health(service); err != nil || got != 1 {
			t.Errorf("health of %q: got %d (%v), want 1, serving", service, got, err)
		}
	}
	if _, err := health("other"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("health of another service: got %v", err)
	}
	stream := grpcreflect.NewClient(h2c(t), r.url, connect.WithGRPC()).NewStream(t.Context())
	services, err := stream.ListServices()
	if err != nil || !slices.Contains(services, "tidemark.v1.View") {
		t.Errorf("reflection: got %v (%v)", services, err)
	}
	files, err := stream.FileContainingSymbol("tidemark.v1.View.BatchGet")
	if err != nil || len(files) == 0 {
		t.Errorf("reflection: got %d files (%v)", len(files), err)
	}
	if _, err := stream.Close(); err != nil {
		t.Error(err)
	}
	_, doc, header := r.get("/openapi.json")
	var openapi struct {
		OpenAPI string
		Paths   map[string]any
	}
	if err := json.Unmarshal([]byte(doc), &openapi); err != nil || !strings.HasPrefix(openapi.OpenAPI, "3.1") || openapi.Paths["/v1/ids/{id}"] == nil || header.Get("Content-Type") != "application/json" {
		t.Errorf("OpenAPI: got %.200s (%v)", doc, err)
	}
	code, html, header := r.get("/")
	if code != 200 || !strings.HasPrefix(html, "<!doctype html>") || !strings.Contains(header.Get("Content-Security-Policy"), "script-src 'sha256-") {
		t.Errorf("the page: got %d %.60s %v", code, html, header)
	}
	if code, body := r.post("/tidemark.v1.View/Produce", `{}`); code != 501 || !strings.Contains(body, "unimplemented") {
		t.Errorf("a method that is not there: got %d %s", code, body)
	}
}
