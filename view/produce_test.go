package view

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// scripted is a Producer that answers as it is told, the last result again and again, and notes what it was given.
type scripted struct {
	results []Produced
	err     error
	full    bool  // nothing is admitted
	room    int64 // what is admitted; 0 is everything

	inflight, most atomic.Int64
	given          atomic.Pointer[[][]byte]
	partial        atomic.Bool
}

func (s *scripted) Admit(bytes int64) error {
	now := s.inflight.Add(bytes)
	if s.full || s.room > 0 && now > s.room {
		s.inflight.Add(-bytes)
		return &TooMany{"too much is on its way"}
	}
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	return nil
}

func (s *scripted) Release(bytes int64) { s.inflight.Add(-bytes) }

func (s *scripted) Produce(_ context.Context, events [][]byte, partial bool) ([]Produced, error) {
	s.given.Store(&events)
	s.partial.Store(partial)
	if s.err != nil {
		return nil, s.err
	}
	out := slices.Clone(s.results[:min(len(events), len(s.results))])
	for len(out) < len(events) {
		out = append(out, s.results[len(s.results)-1])
	}
	return out, nil
}

// postEvents sends a body to /v1/events.
func (r *running) postEvents(media, query, body string) (int, string, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url+"/v1/events"+query, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", media)
	return r.do(req)
}

func TestProduce_EveryTransportGivesTheSameAnswer(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	script := &scripted{results: []Produced{
		{Token: "0@7.1.x"}, {Code: connect.CodeInvalidArgument, Reason: "json", Message: "no \"object\""}, {Code: connect.CodeUnknown, Message: "späß"},
	}}
	w.producer = script
	r := w.view(t.TempDir())
	body := "{\"a\":1}\nnothing\n{}"
	status, want, _ := r.postEvents("application/x-ndjson", "?partial=true", body)
	if status != 200 || !script.partial.Load() {
		t.Fatalf("got %d %s, partial %t", status, want, script.partial.Load())
	}
	events := bytes.Split([]byte(body), []byte("\n"))
	for name, c := range r.clients() {
		res, err := c.Produce(t.Context(), &pb.ProduceRequest{Events: events, Partial: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := textOf(t, res); !reflect.DeepEqual(ageless(t, got), ageless(t, want)) {
			t.Errorf("%s: got %s\nREST: %s", name, got, want)
		}
		if given := *script.given.Load(); !slices.EqualFunc(given, events, bytes.Equal) {
			t.Errorf("%s: the producer was given %q", name, given)
		}
	}
	if got := script.inflight.Load(); got != 0 {
		t.Errorf("%d bytes are still admitted", got)
	}
	// It is no read: Connect's GET must not write.
	resp, err := http.Get(r.url + "/tidemark.v1.View/Produce?encoding=json&connect=v1&message=" + `{"events":["e30="]}`)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %v (%v), want 405", resp, err)
	}
	_ = resp.Body.Close()
}

// TestProduce_AnErrorSaysWhatBecameOfEachEvent asks for every code, over every transport.
func TestProduce_AnErrorSaysWhatBecameOfEachEvent(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	script := &scripted{}
	w.producer = script
	r := w.view(t.TempDir())
	acked, aborted := Produced{Token: "0@1"}, Produced{Code: connect.CodeAborted}
	refused := Produced{Code: connect.CodeInvalidArgument, Reason: "id", Message: "the event has none"}
	tooLarge := Produced{Code: connect.CodeInvalidArgument, Reason: "too_large", Message: "for the topic"} // said by the broker
	notWritten, unknown := Produced{Code: connect.CodeUnavailable, Message: "no leader"}, Produced{Code: connect.CodeUnknown, Message: "no answer"}
	events := [][]byte{[]byte("{}"), []byte("{}")}
	for _, test := range []struct {
		results []Produced
		err     error
		full    bool
		status  int
		code    connect.Code
		message string
	}{
		{results: []Produced{aborted, refused}, status: 400, code: connect.CodeInvalidArgument, message: "1 of 2 events would be refused by the job, and none was written; the first is at line 2: id: the event has none"},
		{results: []Produced{notWritten, notWritten}, status: 503, code: connect.CodeUnavailable, message: "2 of 2 events were not written; the first is at line 1: no leader"},
		// Part was written: nobody may be asked to send all of it again, nor be told that none was.
		{results: []Produced{notWritten, acked}, status: 504, code: connect.CodeUnknown, message: "1 of 2 events were not written, and the others were; send no more than those again; the first is at line 1: no leader"},
		{results: []Produced{acked, tooLarge}, status: 504, code: connect.CodeUnknown, message: "1 of 2 events were not written, and the others were; send no more than those again; the first is at line 2: too_large: for the topic"},
		{results: []Produced{tooLarge, unknown}, status: 504, code: connect.CodeUnknown, message: "1 of 2 events may or may not have been written; the first is at line 2: no answer"},
		{results: []Produced{tooLarge, notWritten}, status: 400, code: connect.CodeInvalidArgument, message: "and none was written"},
		{results: []Produced{notWritten, unknown}, status: 504, code: connect.CodeUnknown, message: "1 of 2 events may or may not have been written; the first is at line 2: no answer"},
		{err: &Unavailable{"the input is not there"}, status: 503, code: connect.CodeUnavailable, message: "the input is not there"},
		{err: &TooMany{"too much"}, status: 429, code: connect.CodeResourceExhausted, message: "too much"},
		{full: true, status: 429, code: connect.CodeResourceExhausted, message: "too much"},
	} {
		script.results, script.err, script.full = test.results, test.err, test.full
		status, body, header := r.postEvents("application/x-ndjson", "", "{}\n{}\n")
		var rest struct {
			Code, Message string
			Details       []struct {
				Type  string
				Debug json.RawMessage
			}
		}
		if err := json.Unmarshal([]byte(body), &rest); err != nil || status != test.status || rest.Code != test.code.String() || !strings.Contains(rest.Message, test.message) {
			t.Errorf("got %d %s, want %d %s: %s", status, body, test.status, test.code, test.message)
			continue
		}
		retry := status == 503 || status == 429
		if (header.Get("Retry-After") != "") != retry {
			t.Errorf("%d: got Retry-After %q", status, header.Get("Retry-After"))
		}
		for name, c := range r.clients() {
			_, err := c.Produce(t.Context(), &pb.ProduceRequest{Events: events})
			var got *connect.Error
			if !errors.As(err, &got) || got.Code() != test.code || !strings.Contains(got.Message(), test.message) || len(got.Details()) != len(rest.Details) {
				t.Errorf("%s: got %v, want %s", name, err, body)
				continue
			}
			if (got.Meta().Get("Retry-After") != "") != retry {
				t.Errorf("%s: %s: got Retry-After %q", name, test.code, got.Meta().Get("Retry-After"))
			}
			for i, d := range got.Details() {
				m, err := d.Value()
				if err != nil || !reflect.DeepEqual(ageless(t, textOf(t, m)), ageless(t, string(rest.Details[i].Debug))) {
					t.Errorf("%s: got detail %v (%v), want %s", name, m, err, rest.Details[i].Debug)
				}
			}
		}
		if got := script.inflight.Load(); got != 0 {
			t.Fatalf("%d bytes are still admitted", got)
		}
	}
}

// TestProduce_ALargeDetailIsLeftToREST: gRPC has no place for it; who asks for each event's result gets it there too.
func TestProduce_ALargeDetailIsLeftToREST(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.producer = &scripted{results: []Produced{{Code: connect.CodeUnavailable, Message: strings.Repeat("x", 100)}}}
	r := w.view(t.TempDir())
	const n = 1000
	_, body, _ := r.postEvents("application/x-ndjson", "", strings.Repeat("{}\n", n))
	if got := strings.Count(body, `"line":`); got != n {
		t.Errorf("REST: got %d results, want %d", got, n)
	}
	req := &pb.ProduceRequest{Events: slices.Repeat([][]byte{[]byte("{}")}, n)}
	partial := proto.Clone(req).(*pb.ProduceRequest)
	partial.Partial = true
	for name, c := range r.clients() {
		_, err := c.Produce(t.Context(), req)
		var got *connect.Error
		if !errors.As(err, &got) || got.Code() != connect.CodeUnavailable || len(got.Details()) != 0 {
			t.Errorf("%s: got %v with %d details, want none", name, err, len(got.Details()))
		}
		if res, err := c.Produce(t.Context(), partial); err != nil || len(res.Results) != n {
			t.Errorf("%s: partial: got %d results (%v)", name, len(res.GetResults()), err)
		}
	}
}

func TestProduce_AViewWithoutAProducerTakesNoEvents(t *testing.T) {
	r := mustTable(t, embedded(t), 1).view(t.TempDir())
	code, body, header := r.postEvents("application/json", "", "{}")
	if allow, ok := header["Allow"]; code != 405 || !strings.Contains(body, "--ingest") || !ok || allow[0] != "" {
		t.Errorf("REST: got %d %s with Allow %q", code, body, header["Allow"])
	}
	for name, c := range r.clients() {
		if _, err := c.Produce(t.Context(), &pb.ProduceRequest{Events: [][]byte{[]byte("{}")}}); connect.CodeOf(err) != connect.CodeUnimplemented {
			t.Errorf("%s: got %v, want unimplemented", name, err)
		}
	}
}

// TestProduce_BodiesAreTakenIntoAccountAsTheyCome: a body on its way, whoever reads it, has its bytes admitted.
func TestProduce_BodiesAreTakenIntoAccountAsTheyCome(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	script := &scripted{results: []Produced{{Token: "0@1"}}}
	w.producer = script
	r := w.view(t.TempDir())
	event := []byte(`{"text":"` + strings.Repeat("x", 500_000) + `"}`)
	clients := r.clients()
	clients["Connect with gzip"] = tidemarkv1connect.NewViewClient(http.DefaultClient, r.url, connect.WithSendGzip())
	clients["gRPC with gzip"] = tidemarkv1connect.NewViewClient(h2c(t), r.url, connect.WithGRPC(), connect.WithSendGzip())
	for name, produce := range produceBy(r, clients) {
		script.most.Store(0)
		script.room = 0
		if err := produce(t.Context(), event); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := script.most.Load(); got < int64(len(event)) { // compressed, it is what it may inflate to
			t.Errorf("%s: %d bytes were admitted, want at least %d", name, got, len(event))
		}
		script.room = int64(len(event)) / 2
		if err := produce(t.Context(), event); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%s: without room: got %v, want %s", name, err, connect.CodeResourceExhausted)
		}
		if got := script.inflight.Load(); got != 0 {
			t.Fatalf("%s: %d bytes are still admitted", name, got)
		}
	}
}

// produceBy writes one event over each transport.
func produceBy(r *running, clients map[string]tidemarkv1connect.ViewClient) map[string]func(context.Context, []byte) error {
	out := map[string]func(context.Context, []byte) error{"REST": func(_ context.Context, event []byte) error {
		code, body, _ := r.postEvents("application/json", "", string(event))
		switch code {
		case 200:
			return nil
		case 429:
			return connect.NewError(connect.CodeResourceExhausted, errors.New(body))
		}
		return fmt.Errorf("got %d %s", code, body)
	}}
	for name, c := range clients {
		out[name] = func(ctx context.Context, event []byte) error {
			_, err := c.Produce(ctx, &pb.ProduceRequest{Events: [][]byte{event}})
			return err
		}
	}
	return out
}

// FuzzLines holds the lines of a body against what splitting says of them.
func FuzzLines(f *testing.F) {
	for _, body := range []string{"", "\n", "\r\n", "{}", "{}\n", "{}\r\n\r\n {} \n\t\n", "\n\n\x00\n", "a\rb\n", "\r", "\u00a0\n{}", strings.Repeat("x\n", produceEventsMax+5)} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		list, numbers := lines(body)
		if len(list) != len(numbers) || len(list) > produceEventsMax+1 {
			t.Fatalf("got %d lines and %d numbers", len(list), len(numbers))
		}
		all := strings.Split(string(body), "\n")
		blank := func(from, to int) {
			for _, line := range all[from:to] {
				if strings.Trim(line, " \t\r") != "" {
					t.Fatalf("%q was passed over", line)
				}
			}
		}
		last := 0
		for n, line := range list {
			at := int(numbers[n])
			if at <= last || string(line) != strings.TrimSuffix(all[at-1], "\r") || len(bytes.Trim(line, " \t\r")) == 0 {
				t.Fatalf("line %d: got %q, want %q", at, line, all[at-1])
			}
			blank(last, at-1)
			last = at
		}
		if len(list) <= produceEventsMax {
			blank(last, len(all))
		}
	})
}
