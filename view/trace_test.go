package view

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

func TestTrace_ARequestHasASpanAndSoHasItsWait(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(kept))
	w := mustTable(t, embedded(t), 1)
	w.spans = provider
	w.begin()
	w.commit(change{"a", 1, 10})
	r := w.view(t.TempDir()).ready()
	got := make(chan int, 1)
	go func() {
		resp, err := http.Get(r.url + "/v1/ids/a?at_least=0@1&wait=30s")
		if err != nil {
			t.Error(err)
			got <- 0
			return
		}
		got <- resp.StatusCode
		_ = resp.Body.Close()
	}()
	r.asked()
	w.commit(change{"a", 2, 10})
	if code := <-got; code != 200 {
		t.Fatalf("got %d", code)
	}
	for _, c := range r.clients() {
		if _, err := c.Get(context.Background(), &pb.GetRequest{Id: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/v1/ids/a?at_least=0@9&wait=1ms", "/healthz", "/readyz", "/nothing/here", "/v1/flags/secret/ids"} {
		r.get(path)
	}
	spans := map[string][]tracetest.SpanStub{}
	r.await("the spans", func() bool {
		clear(spans)
		for _, s := range kept.GetSpans() {
			spans[s.Name] = append(spans[s.Name], s)
		}
		return len(spans["GET other"]) == 1 && len(spans["GET /v1/flags/{flag}/ids"]) == 1
	})
	one, waits := spans["GET /v1/ids/{id}"], spans["wait until visible"]
	if len(one) != 2 || len(waits) != 2 || len(spans["POST /tidemark.v1.View/Get"]) != len(r.clients())-1 || len(spans["GET /tidemark.v1.View/Get"]) != 1 {
		t.Fatalf("got %v", spans)
	}
	if waits[0].Parent.SpanID() != one[0].SpanContext.SpanID() || waits[0].Status.Code == codes.Error || waits[1].Status.Code != codes.Error || one[1].Status.Code != codes.Error {
		t.Errorf("got waits %v of %v", waits, one)
	}
	for _, name := range []string{"GET /healthz", "GET /readyz"} {
		if len(spans[name]) > 0 {
			t.Errorf("got a span %s", name)
		}
	}
}

func TestRouteOf_HasNothingOfTheCaller(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/ids/a%2Fb": "/v1/ids/{id}", "/v1/ids/": "/v1/ids/{id}", "/v1/ids": "/v1/ids", "/v1/flags/x/ids": "/v1/flags/{flag}/ids", "/v1/flags/x": "other",
		"/v1/events": "/v1/events", "/tidemark.v1.View/Get": "/tidemark.v1.View/Get", "/tidemark.v1.View/x": "other", "/grpc.x/y": "other", "//": "other",
	} {
		u, err := url.Parse(path)
		if err != nil {
			u = &url.URL{Path: path}
		}
		if got := routeOf(u); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
