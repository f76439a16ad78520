package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// clients of every protocol.
func (w *writing) clients() map[string]tidemarkv1connect.ViewClient {
	two := &http.Transport{Protocols: &http.Protocols{}}
	two.Protocols.SetUnencryptedHTTP2(true)
	one := &http.Transport{}
	w.t.Cleanup(two.CloseIdleConnections)
	w.t.Cleanup(one.CloseIdleConnections)
	plain := &http.Client{Transport: one}
	return map[string]tidemarkv1connect.ViewClient{
		"Connect":           tidemarkv1connect.NewViewClient(plain, w.url),
		"Connect with JSON": tidemarkv1connect.NewViewClient(plain, w.url, connect.WithProtoJSON()),
		"Connect with gzip": tidemarkv1connect.NewViewClient(plain, w.url, connect.WithSendGzip()),
		"gRPC-Web":          tidemarkv1connect.NewViewClient(plain, w.url, connect.WithGRPCWeb()),
		"gRPC":              tidemarkv1connect.NewViewClient(&http.Client{Transport: two}, w.url, connect.WithGRPC()),
	}
}

func event(id string, value int) string {
	return fmt.Sprintf(`{"id":%q,"time":"2026-01-02T03:04:05Z","value":%d}`, id, value)
}

// TestIngest_ATokenReadsWhatItsEventDid writes over every transport, on a real Kafka, and reads at once after the token.
func TestIngest_ATokenReadsWhatItsEventDid(t *testing.T) {
	w := mustJob(t, kafkatest.Shared(t), jobFile).produces(nil).counts()
	want := 0
	step := func(how, token string) {
		t.Helper()
		want++
		if got, err := w.sum("a", url.QueryEscape(token)); err != nil || got != fmt.Sprint(want) {
			t.Fatalf("%s: after %q got a sum of %s (%v), want %d", how, token, got, err, want)
		}
	}
	for range 20 {
		a := w.post(one, "", strings.NewReader(event("a", 1)+"\n"))
		if a.status != 200 || len(a.Results) != 1 || a.Results[0].Error != nil {
			t.Fatalf("one event: got %d %s", a.status, a.body)
		}
		step("REST", a.Results[0].Token)
	}
	a := w.post(many, "", strings.NewReader(event("b", 1)+"\r\n\n  \n"+event("a", 1)))
	if a.status != 200 || len(a.Results) != 2 {
		t.Fatalf("two lines: got %d %s", a.status, a.body)
	}
	step("NDJSON", a.Results[1].Token)
	for name, c := range w.clients() {
		res, err := c.Produce(t.Context(), &pb.ProduceRequest{Events: [][]byte{[]byte(event("b", 1)), []byte(event("a", 1))}})
		if err != nil || len(res.Results) != 2 || res.Results[1].Error != nil {
			t.Fatalf("%s: got %v (%v)", name, res, err)
		}
		step(name, res.Results[1].Token)
	}
	// A token is of the partition on which its ID lives, so that another ID's is refused.
	for n := 0; ; n++ {
		id := fmt.Sprint("other", n)
		if eos.Place([]byte(id), 3) == eos.Place([]byte("a"), 3) {
			continue
		}
		a := w.post(one, "", strings.NewReader(event(id, 1)))
		if _, err := w.sum("a", a.Results[0].Token); err == nil || !strings.Contains(err.Error(), "another partitioner") {
			t.Errorf("the token of %s for a: got %v", id, err)
		}
		break
	}
}

// badEvents are lines that the job refuses, by the reason.
var badEvents = map[string]string{
	`{"id":"a"`:                       "json",
	`[]`:                              "json",
	`{"id":"a"} {}`:                   "json",
	`{"id":"a","id":"b"}`:             "duplicate_key",
	`{"id":"a","value":1e99}`:         "number",
	`{"id":"` + "\xff" + `"}`:         "utf8",
	strings.Repeat(`{"a":`, 200):      "depth",
	`{"value":1}`:                     "id",
	`{"id":7,"time":1}`:               "id",
	`{"id":"a"}`:                      "time",
	`{"id":"a","time":"yesterday"}`:   "time",
	`{"id":"a","time":4102444800000}`: "max_ahead",
}

// TestIngest_WhatTheJobWouldRefuseIsNamedByLine compares with what the job itself says of the same lines.
func TestIngest_WhatTheJobWouldRefuseIsNamedByLine(t *testing.T) {
	j := mustJob(t, embedded(t), jobFile, "max.message.bytes=65536")
	w := j.produces(nil)
	large := event("a", 1)[:len(event("a", 1))-1] + `,"text":"` + strings.Repeat("x", 70_000) + `"}`
	reasons := map[string]string{large: "too_large"}
	for line, reason := range badEvents {
		reasons[line] = reason
	}
	var lines, want []string
	for line, reason := range reasons {
		lines, want = append(lines, event("good", 1), line), append(want, "", reason)
	}
	body := strings.Join(lines, "\n")
	a := w.post(many, "", strings.NewReader(body))
	if a.status != 400 || a.Code != "invalid_argument" || len(a.all()) != len(lines) || !strings.Contains(a.Message, fmt.Sprintf("%d of %d events", len(reasons), len(lines))) {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	check := func(how string, results []result, good string) {
		t.Helper()
		for n, r := range results {
			switch {
			case want[n] == "" && good == "" && (r.Error != nil || r.Token == ""):
				t.Errorf("%s: line %d: got %+v, want it written", how, n+1, r.Error)
			case want[n] == "" && good != "" && (r.Error == nil || r.Error.Code != good || r.Token != ""):
				t.Errorf("%s: line %d: got %+v, want %s", how, n+1, r, good)
			case want[n] != "" && (r.Error == nil || r.Error.Code != "invalid_argument" || r.Error.Reason != want[n] || r.Error.Line != n+1 || r.Token != ""):
				t.Errorf("%s: line %d: got %+v, want it refused with %s", how, n+1, r.Error, want[n])
			}
		}
	}
	check("all or nothing", a.all(), "aborted")
	if got := j.written(); len(got) != 0 {
		t.Fatalf("got %d records, want none", len(got))
	}
	a = w.post(many, "?partial=true", strings.NewReader(body))
	if a.status != 200 || len(a.Results) != len(lines) {
		t.Fatalf("partial: got %d %s", a.status, a.body)
	}
	check("partial", a.Results, "")
	for _, r := range j.written() {
		if string(r.Value) != event("good", 1) || string(r.Key) != "good" || eos.Place(r.Key, 3) != r.Partition {
			t.Errorf("got key %q on %d, %s", r.Key, r.Partition, r.Value)
		}
	}
	// What lies at a line is found by an event's number too.
	_, err := w.clients()["gRPC"].Produce(t.Context(), &pb.ProduceRequest{Events: [][]byte{[]byte(event("a", 1)), []byte("{")}})
	var failed *connect.Error
	if !errors.As(err, &failed) || failed.Code() != connect.CodeInvalidArgument || len(failed.Details()) != 1 {
		t.Fatalf("gRPC: got %v", err)
	}
	if m, err := failed.Details()[0].Value(); err != nil || m.(*pb.ProduceResponse).Results[1].Error.Line != 2 || m.(*pb.ProduceResponse).Results[0].Error.Code != "aborted" {
		t.Errorf("gRPC: got %v (%v)", m, err)
	}
}

// TestIngest_ACutOffUploadLeavesNothing ends connections within the body, in both ways that a body has a length.
func TestIngest_ACutOffUploadLeavesNothing(t *testing.T) {
	j := mustJob(t, embedded(t), jobFile)
	w := j.produces(nil)
	whole := event("a", 1) + "\n" + event("b", 2) + "\n"
	for name, raw := range map[string]string{
		"length":  fmt.Sprintf("POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", many, len(whole)+10, whole),
		"chunks":  fmt.Sprintf("POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", many, len(whole), whole),
		"partial": fmt.Sprintf("POST /v1/events?partial=true HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", many, len(whole), whole),
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, raw); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil { // cut off, and still listening to the answer
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 400 {
			t.Errorf("%s: got %v (%v), want 400", name, resp, err)
		}
		_ = conn.Close()
	}
	if got := j.written(); len(got) != 0 {
		t.Errorf("got %d records of requests that were cut off, want none", len(got))
	}
	if got := w.inflight.Load(); got != 0 {
		t.Errorf("%d bytes are still counted as on their way", got)
	}
	a := w.post(many, "", strings.NewReader(whole)) // the control: whole, it is written
	if a.status != 200 || len(j.written()) != 2 {
		t.Errorf("whole: got %d %s and %d records", a.status, a.body, len(j.written()))
	}
}

// TestIngest_ACallerWhoGoesDoesNotStopWhatHasBegun takes the caller away while the broker does not answer.
func TestIngest_ACallerWhoGoesDoesNotStopWhatHasBegun(t *testing.T) {
	j := mustJob(t, embedded(t), jobFile)
	wire := newCable()
	j.kafka.Dial = wire.dial
	w := j.produces(nil)
	wire.hold()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := w.try(ctx, many, "", strings.NewReader(event("a", 1)+"\n"+event("b", 1)))
		gone <- err
	}()
	w.await("writing", func() bool { return w.writer.Load().client.BufferedProduceRecords() == 2 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the caller gone", err)
	}
	wire.release()
	w.await("the events", func() bool { return len(j.written()) == 2 })
	w.await("the end of the call", func() bool { return w.inflight.Load() == 0 })
	// Who has gone before has nothing written.
	if _, err := w.Produce(ctx, [][]byte{[]byte(event("a", 1))}, false); !errors.Is(err, context.Canceled) || len(j.written()) != 2 {
		t.Errorf("gone before: got %v and %d records, want 2", err, len(j.written()))
	}
}

func TestIngest_RefusesRequestsByName(t *testing.T) {
	j := mustJob(t, embedded(t), jobFile)
	w := j.produces(nil)
	tenThousand := strings.Repeat(event("a", 1)+"\n", 10_000)
	for _, test := range []struct{ media, query, body, want string }{
		{one, "", "", "no event"},
		{one, "", " \n", "no event"},
		{many, "", "\n\r\n  \n", "no event"},
		{"", "", event("a", 1), "Content-Type"},
		{"text/plain", "", event("a", 1), "Content-Type"},
		{"application/x-www-form-urlencoded", "", event("a", 1), "Content-Type"},
		{one, "?partial=yes", event("a", 1), "partial is true or false"},
		{one, "?partial=", event("a", 1), "partial is true or false"},
		{one, "?dry=true", event("a", 1), "unknown parameter"},
		{one, "", event("a", 1) + "\n" + event("a", 1), "something follows"},
		{many, "", strings.Repeat("{}\n", 10_001), "at most 10000 events"},
		{many, "", strings.Repeat(" ", 1<<20+1), "too large"},
	} {
		if a := w.post(test.media, test.query, strings.NewReader(test.body)); a.status != 400 || !strings.Contains(a.Message, test.want) {
			t.Errorf("%s %s %.40q: got %d %.300s, want 400 %s", test.media, test.query, test.body, a.status, a.body, test.want)
		}
	}
	for name, c := range w.clients() {
		for want, events := range map[string][][]byte{
			"no event": nil, "at most 10000 events": slices.Repeat([][]byte{[]byte("{}")}, 10_001), "at most 1048576 bytes": {make([]byte, 1<<20+1)},
		} {
			if _, err := c.Produce(t.Context(), &pb.ProduceRequest{Events: events}); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
	}
	if got := j.written(); len(got) != 0 {
		t.Errorf("got %d records, want none", len(got))
	}
	a := w.post("application/x-ndjson; charset=utf-8", "?partial=false", strings.NewReader(tenThousand[:len(event("a", 1)+"\n")*10_000]))
	if a.status != 200 || len(a.Results) != 10_000 {
		t.Errorf("10,000 events: got %d %.300s", a.status, a.body)
	}
	w.stop()
	if a := w.post(one, "", strings.NewReader(event("a", 1))); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("after the end: got %d %s", a.status, a.body)
	}
}

func TestConfig_OfAJobWhoseIDIsTheKey(t *testing.T) {
	j := mustJob(t, embedded(t), `
name: NAME
input: {topic: NAME-events}
totals: {n: {count: true}}
`)
	if _, err := New(Config{Kafka: j.kafka, Names: j.names, Rules: j.rules}); err == nil {
		t.Error("without a member for the key: got no error")
	}
	w := j.produces(func(c *Config) { c.Key = []string{"user", "id"} })
	if a := w.post(many, "?partial=true", strings.NewReader(`{"user":{"id":"u1"}}`+"\n"+`{"user":"u1"}`)); a.status != 200 || a.Results[0].Token == "" || a.Results[1].Error.Reason != "id" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if got := j.written(); len(got) != 1 || string(got[0].Key) != "u1" {
		t.Errorf("got %d records, want one with key u1", len(got))
	}
}
