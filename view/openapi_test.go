package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/santhosh-tekuri/jsonschema/v6"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// openapi is the document, and the schemas in it.
type openapi struct {
	t        testing.TB
	document map[string]any
	compiler *jsonschema.Compiler
}

func mustOpenAPI(t testing.TB) *openapi {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(pb.OpenAPI))
	if err != nil {
		t.Fatal(err)
	}
	o := &openapi{t, doc.(map[string]any), jsonschema.NewCompiler()}
	o.compiler.DefaultDraft(jsonschema.Draft2020)
	o.compiler.AssertContent() // of the data of events
	if err := o.compiler.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return o
}

// at gives a part of the document; nil where there is none.
func (o *openapi) at(keys ...string) any {
	var part any = o.document
	for _, key := range keys {
		m, ok := part.(map[string]any)
		if !ok {
			return nil
		}
		part = m[key]
	}
	return part
}

// describes tells why an answer is none that the document has.
func (o *openapi) describes(path, method string, status int, contentType, body string) error {
	keys := []string{"paths", path, strings.ToLower(method), "responses", fmt.Sprint(status)}
	if o.at(keys...) == nil {
		return fmt.Errorf("no answer with status %d", status)
	}
	if body == "" {
		return nil
	}
	keys = append(keys, "content", contentType, "schema")
	if o.at(keys...) == nil {
		return fmt.Errorf("no content type %s with status %d", contentType, status)
	}
	for i, key := range keys {
		keys[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(key)
	}
	schema, err := o.compiler.Compile("openapi.json#/" + strings.Join(keys, "/"))
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// describesEvent tells why an event of a watch is none that the document has: its schema is of each.
func (o *openapi) describesEvent(e sseEvent) error {
	event := map[string]string{"event": e.event, "data": e.data}
	if e.id != "" {
		event["id"] = e.id
	}
	text, err := json.Marshal(event)
	if err != nil {
		return err
	}
	return o.describes("/v1/watch", "GET", 200, "text/event-stream", string(text))
}

// describesWatch requires that a watch which has just begun, and one of a place that is gone, are told what the document has.
func (o *openapi) describesWatch(w *table, r *running, watch *stream) {
	w.commit(change{"a", 2, 2}, change{"b", 0, 0}, change{"c", 1, 101})
	for _, event := range []string{"heartbeat", "change", "change", "change", "reset"} {
		if event == "reset" {
			watch.resp.Body.Close()
			r.await("room for another watch", func() bool { return r.hub.watching.Load() == 0 })
			foreign := r.hub.origin
			foreign.tableID[0]++
			watch = r.stream("/v1/watch", "Last-Event-ID", foreign.text(place{spots: make([]spot, w.partitions)}, -1, spot{}))
		}
		e := watch.next()
		if err := o.describesEvent(e); e.event != event || err != nil {
			o.t.Errorf("got %+v, want a %s as the document has it (%v)", e, event, err)
		}
	}
	for _, e := range []sseEvent{{"now", "change", `{"id":"a","state":null}`}, {"", "heartbeat", `{"age":null,"table_age":null}`}} {
		if o.describesEvent(e) == nil {
			o.t.Errorf("the document describes %+v too", e) // the control
		}
	}
}

// hasNoOther requires that whatever the document has was given. A fault of the view, 500, cannot be asked for, and others are
// what the guard before a view says, whose own tests do.
func (o *openapi) hasNoOther(seen map[string]bool) {
	for path, operations := range o.at("paths").(map[string]any) {
		for _, operation := range operations.(map[string]any) {
			for status := range operation.(map[string]any)["responses"].(map[string]any) {
				if answer := path + " " + status; !seen[answer] && !slices.Contains([]string{"401", "403", "429", "500"}, status) {
					o.t.Errorf("the document has %s, and nothing gave it", answer)
				}
			}
		}
	}
}

// describesAnswer asks, and looks whether the document has the answer.
func (o *openapi) describesAnswer(r *running, seen map[string]bool, path, method, uri, body string, want int, headers ...string) (text, etag string) {
	o.t.Helper()
	req, err := http.NewRequest(method, r.url+uri, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	status, text, header := r.do(req)
	for status == 200 && want == 503 { // an age of zero, of a view that was level at this very moment, is not above max_age=0s
		status, text, header = r.do(req)
	}
	if status != want {
		o.t.Errorf("%s %s: got %d %s, want %d", method, uri, status, text, want)
	}
	if err := o.describes(path, method, status, header.Get("Content-Type"), text); err != nil {
		o.t.Errorf("%s %s: the document has no such answer: %s\n%v", method, uri, text, err)
	}
	seen[fmt.Sprint(path, " ", status)] = true
	return text, header.Get("ETag")
}

// describesProduce asks for every answer to an event, of a view that takes events and of one that does not.
func (o *openapi) describesProduce(w *table, r *running, seen map[string]bool, producer *scripted) {
	o.t.Helper()
	ask := func(r *running, want int, contentType string) {
		o.t.Helper()
		o.describesAnswer(r, seen, "/v1/events", "POST", "/v1/events", `{"id":"a"}`, want, "Content-Type", contentType)
	}
	for status, result := range map[int]Produced{
		200: {Token: "0@1"}, 400: {Code: connect.CodeInvalidArgument, Reason: "json"}, 429: {},
		503: {Code: connect.CodeUnavailable}, 504: {Code: connect.CodeUnknown},
	} {
		producer.results, producer.full = []Produced{result}, status == 429
		ask(r, status, "application/json")
		if status == 200 {
			ask(r, status, "application/x-ndjson")
		}
	}
	w.producer = nil
	ask(w.view(o.t.TempDir()), 405, "application/json")
}

func TestOpenAPI_DescribesEveryAnswer(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	producer := &scripted{}
	w.producer = producer
	r := w.viewWith(t.TempDir(), WatchConfig{PerClientMax: 1})
	doc := mustOpenAPI(t)
	foreign := w.inputID
	foreign[0] ^= 1
	id := "/v1/ids/{id}"
	seen := map[string]bool{}
	ask := func(path, method, uri, body string, want int, headers ...string) (string, string) {
		t.Helper()
		return doc.describesAnswer(r, seen, path, method, uri, body, want, headers...)
	}
	ask("/v1/status", "GET", "/v1/status", "", 200)
	ask("/readyz", "GET", "/readyz", "", 503)
	ask("/v1/ids", "GET", "/v1/ids", "", 503)
	ask("/v1/flags/{flag}/ids", "GET", "/v1/flags/big/ids", "", 503)
	ask("/v1/ids:batchGet", "POST", "/v1/ids:batchGet", `{"ids":["a"]}`, 503)
	ask("/v1/watch", "GET", "/v1/watch", "", 503)
	w.begin()
	r.ready()
	ask(id, "GET", "/v1/ids/a", "", 404)
	w.commit(change{"a", 1, 101}, change{"b", 1, 2})
	p := w.on("a")
	r.covers(p, w.seq[p])
	for p := range w.partitions {
		r.levelSince(p, time.Now())
	}
	text, etag := ask(id, "GET", "/v1/ids/a", "", 200)
	ask(id, "GET", "/v1/ids/a", "", 304, "If-None-Match", etag)
	for path, uri := range map[string]string{id: "/v1/ids/a?", "/v1/ids": "/v1/ids?limit=1&", "/v1/flags/{flag}/ids": "/v1/flags/big/ids?"} {
		ask(path, "GET", uri, "", 200)
		ask(path, "GET", uri+"at_least=x", "", 400)
		ask(path, "GET", uri+"at_least="+Token(1, foreign, p, 0), "", 410)
		ask(path, "GET", uri+"max_age=0s", "", 503)
		ask(path, "GET", fmt.Sprintf("%sat_least=%d@9&wait=1ms", uri, p), "", 504)
	}
	post := "/v1/ids:batchGet"
	ask(post, "POST", post, `{"ids":["a","nobody"]}`, 200)
	ask(post, "POST", post, `{"ids":[]}`, 400)
	ask(post, "POST", post, `{"ids":["a"],"at_least":"`+Token(1, foreign, p, 0)+`"}`, 410)
	ask(post, "POST", post, fmt.Sprintf(`{"ids":["a"],"at_least":"%d@9","wait":"0s"}`, p), 504)
	ask("/v1/status", "GET", "/v1/status", "", 200)
	ask("/v1/status", "GET", "/v1/status?x=1", "", 400)
	doc.describesProduce(w, r, seen, producer)
	ask("/readyz", "GET", "/readyz", "", 200)
	ask("/healthz", "GET", "/healthz", "", 200)
	ask("/v1/watch", "GET", "/v1/watch?id=a&flag=big", "", 400)
	watch := r.stream("/v1/watch")
	ask("/v1/watch", "GET", "/v1/watch", "", 429)
	doc.describesWatch(w, r, watch)
	seen["/v1/watch 200"] = true
	doc.hasNoOther(seen)
	doc.refusesLess(id, text)
}

// refusesLess is the control: what lacks a field is no answer.
func (o *openapi) refusesLess(path, text string) {
	var answer map[string]any
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		o.t.Fatal(err)
	}
	delete(answer["state"].(map[string]any), "version")
	less, err := json.Marshal(answer)
	if err != nil || o.describes(path, "GET", 200, "application/json", string(less)) == nil {
		o.t.Errorf("the document describes %s too (%v)", less, err)
	}
}
