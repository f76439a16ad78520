package ingest

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
)

// recorded keeps every span that ends.
func recorded(t *testing.T) (*tracetest.InMemoryExporter, *sdk.TracerProvider) {
	t.Helper()
	kept := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(kept))
	t.Cleanup(func() { _ = provider.Shutdown(t.Context()) })
	return kept, provider
}

// ask sends a request that belongs to a trace.
func (w *writing) ask(method, path, body, traceparent string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", many)
	if traceparent != "" {
		req.Header.Set("Traceparent", traceparent)
		req.Header.Set("Tracestate", "vendor=x")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// in are the spans of a trace, or of all where it is "", by name.
func in(kept *tracetest.InMemoryExporter, traceID string) map[string][]tracetest.SpanStub {
	out := map[string][]tracetest.SpanStub{}
	for _, s := range kept.GetSpans() {
		if traceID == "" || s.SpanContext.TraceID().String() == traceID {
			out[s.Name] = append(out[s.Name], s)
		}
	}
	return out
}

func attributesOf(s *tracetest.SpanStub) map[string]string {
	out := map[string]string{}
	for _, a := range s.Attributes {
		out[string(a.Key)] = a.Value.String()
	}
	return out
}

const (
	traceID     = "0af7651916cd43dd8448eb211c80319c"
	sampledBy   = "00-" + traceID + "-b7ad6b7169203331-01"
	unsampledBy = "00-11111111111111111111111111111111-b7ad6b7169203331-00"
)

// TestTrace_FromTheRequestToTheCommit follows one trace from POST /v1/events through Kafka and the processor to a read.
func TestTrace_FromTheRequestToTheCommit(t *testing.T) {
	kept, provider := recorded(t)
	j := mustJob(t, kafkatest.Shared(t), jobFile)
	j.spans = provider
	w := j.produces(nil).counts()
	if status, body := w.ask("POST", "/v1/events", event("secret-id", 1), unsampledBy); status != 200 {
		t.Fatalf("got %d %s", status, body)
	}
	a := &answer{}
	if a.status, a.body = w.ask("POST", "/v1/events", event("secret-id", 1)+"\n"+event("secret-id", 2), sampledBy); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	token := a.body[strings.LastIndex(a.body, `"token":"`)+9:]
	token = token[:strings.Index(token, `"`)]
	if status, body := w.ask("GET", "/v1/ids/secret-id?wait=20s&at_least="+token, "", sampledBy); status != 200 || !strings.Contains(body, `"sum":"4"`) {
		t.Fatalf("got %d %s", status, body)
	}
	process, send := "process "+j.input, "send "+j.input
	linked := map[trace.SpanID]bool{}
	w.await("the spans of commits and of the read", func() bool {
		for _, c := range in(kept, "")["commit"] {
			for _, l := range c.Links {
				linked[l.SpanContext.SpanID()] = true
			}
		}
		return len(linked) == 2 && len(in(kept, traceID)["GET /v1/ids/{id}"]) > 0
	})
	spans := in(kept, traceID)
	if len(spans["POST /v1/events"]) != 1 || len(spans[send]) != 1 || len(spans[process]) != 2 || len(spans["GET /v1/ids/{id}"]) != 1 {
		t.Fatalf("got spans %v", spans)
	}
	post, sent := spans["POST /v1/events"][0], spans[send][0]
	if post.Parent.SpanID().String() != "b7ad6b7169203331" || !post.Parent.IsRemote() || post.SpanKind != trace.SpanKindServer {
		t.Errorf("the request's span has parent %v", post.Parent)
	}
	if sent.Parent.SpanID() != post.SpanContext.SpanID() || sent.SpanKind != trace.SpanKindProducer {
		t.Errorf("the span of writing has parent %v, want %v", sent.Parent, post.SpanContext)
	}
	for _, s := range spans[process] {
		got := attributesOf(&s)
		if s.Parent.SpanID() != sent.SpanContext.SpanID() || !s.Parent.IsRemote() || s.SpanKind != trace.SpanKindConsumer || s.SpanContext.TraceState().Get("vendor") != "x" {
			t.Errorf("the event's span has parent %v, want %v", s.Parent, sent.SpanContext)
		}
		if got["tidemark.outcome"] != "applied" || got["messaging.destination.name"] != j.input || got["messaging.destination.partition.id"] != token[:1] || got["messaging.kafka.offset"] == "" {
			t.Errorf("the event's span has %v", got)
		}
		if !linked[s.SpanContext.SpanID()] {
			t.Errorf("no commit is linked to %v", s.SpanContext)
		}
	}
	for _, s := range kept.GetSpans() {
		if text := fmt.Sprint(s.Name, s.Attributes, s.Events, s.Status); strings.Contains(text, "secret") {
			t.Errorf("a span tells an ID: %s", text)
		}
		if s.SpanContext.TraceID().String() == unsampledBy[3:35] {
			t.Errorf("a span of a trace that is not sampled: %s", s.Name)
		}
	}
	for _, r := range j.written() {
		has := slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "traceparent" })
		if want := strings.Contains(string(r.Value), `"value":2`) || len(r.Headers) > 0; has != want {
			t.Errorf("%s has headers %v", r.Value, r.Headers)
		}
	}
}

// TestTrace_GoesThroughAViewThatMakesNoSpans: the record carries what the caller sent.
func TestTrace_GoesThroughAViewThatMakesNoSpans(t *testing.T) {
	j := mustJob(t, embedded(t), jobFile)
	w := j.produces(nil)
	for _, traceparent := range []string{"", unsampledBy, "nonsense", sampledBy} {
		if status, body := w.ask("POST", "/v1/events", event("a", 1), traceparent); status != 200 {
			t.Fatalf("got %d %s", status, body)
		}
	}
	all := j.written()
	for n, r := range all {
		if n < len(all)-1 && len(r.Headers) > 0 {
			t.Errorf("record %d has headers %v, want none", n, r.Headers)
		}
	}
	got := map[string]string{}
	for _, h := range all[3].Headers {
		got[h.Key] = string(h.Value)
	}
	if want := map[string]string{"traceparent": sampledBy, "tracestate": "vendor=x"}; !maps.Equal(got, want) {
		t.Errorf("got headers %v, want %v", got, want)
	}
}

// TestTrace_OfEventsThatAreRefusedOrRekeyed: other producers send traces too, and mark every event.
func TestTrace_OfEventsThatAreRefusedOrRekeyed(t *testing.T) {
	kept, provider := recorded(t)
	j := mustJob(t, embedded(t), jobFile)
	j.spans = provider
	cl, err := kgo.NewClient(j.kafka.Franz(kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	home := eos.Place([]byte("a"), 3)
	header := []kgo.RecordHeader{{Key: "other", Value: []byte("x")}, {Key: "traceparent", Value: []byte(sampledBy)}}
	records := []*kgo.Record{
		{Topic: j.input, Partition: home, Key: []byte("a"), Value: []byte("{"), Headers: header},
		{Topic: j.input, Partition: (home + 1) % 3, Key: []byte("other"), Value: []byte(event("a", 1)), Headers: header},
	}
	write := func(records ...*kgo.Record) {
		if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	w := j.produces(nil).counts()
	counted := func(want, token string) {
		w.await("a sum of "+want, func() bool {
			sum, err := w.sum("a", token)
			return err == nil && sum == want
		})
	}
	// One at a time: the bound is the partition's, and a crowd would take every span from these two.
	write(records...)
	counted("1", fmt.Sprintf("%d@0", home))
	var crowd []*kgo.Record
	for range 2000 {
		crowd = append(crowd, &kgo.Record{Topic: j.input, Partition: home, Key: []byte("a"), Value: []byte(event("a", 1)), Headers: header})
	}
	write(crowd...)
	counted("2001", fmt.Sprintf("%d@2000", home))
	spans := in(kept, traceID)["process "+j.input]
	outcomes := map[string]int{}
	for i := range spans {
		got := attributesOf(&spans[i])
		outcomes[got["messaging.destination.name"]+" "+got["tidemark.outcome"]+" "+got["tidemark.refusal"]]++
	}
	if outcomes[j.input+" refused json"] != 1 || outcomes[j.input+" re-keyed "] != 1 || outcomes[j.names.Loop()+" applied "] != 1 {
		t.Errorf("got %v", outcomes)
	}
	commits := in(kept, "")["commit"]
	if n := outcomes[j.input+" applied "]; n == 0 || n > 128*3*len(commits) {
		t.Errorf("got %d spans in %d commits, want some, and at most 128 for a partition and commit", n, len(commits))
	}
	for _, c := range commits {
		if c.EndTime.Before(c.StartTime) || c.StartTime.Before(time.Now().Add(-time.Minute)) {
			t.Errorf("a commit from %s to %s", c.StartTime, c.EndTime)
		}
	}
}
