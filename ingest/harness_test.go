package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/broker"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/processor"
	"github.com/tidemark/tidemark/rules"
	"github.com/tidemark/tidemark/view"
)

const jobFile = `
name: NAME
input: {topic: NAME-events, id: event.id, time: event.time}
totals:
  sum: {sum: event.value}
flags:
  big: {when: totals.sum >= 100}
`

// job is a job of the test's own, with an input topic.
type job struct {
	t     testing.TB
	kafka *eos.Kafka
	rules *rules.RuleSet
	names eos.Names
	input string
	spans trace.TracerProvider // of view and processor
}

func mustJob(t testing.TB, brokers []string, file string, configs ...string) *job {
	t.Helper()
	name := fmt.Sprintf("t%x", rand.Uint64())
	rs, err := rules.Load([]byte(strings.ReplaceAll(file, "NAME", name)))
	if err != nil {
		t.Fatalf("load the job file: %v", err)
	}
	j := &job{t, &eos.Kafka{Brokers: brokers, ClientID: "test"}, rs, eos.Names{Job: name, Generation: 1}, rs.Job().Input.Topic, nil}
	kafkatest.MustTopic(t, brokers, j.input, 3, configs...)
	return j
}

func embedded(t testing.TB) []string {
	t.Helper()
	return mustBroker(t).Addrs()
}

func mustBroker(t testing.TB) *broker.Broker {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatalf("embedded broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close the broker: %v", err)
		}
	})
	return b
}

// beside runs an actor until the test ends.
func beside(t testing.TB, name string, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// writing is an Ingest at work, behind a view's server.
type writing struct {
	*Ingest
	*job
	url  string
	view *view.View
	stop func()
}

// produces starts an Ingest, and a view that takes events by it. The view is not run: it needs nothing to take them.
func (j *job) produces(change func(*Config)) *writing {
	j.t.Helper()
	cfg := Config{Kafka: j.kafka, Names: j.names, Rules: j.rules, Timeout: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	i, err := New(cfg)
	if err != nil {
		j.t.Fatalf("new: %v", err)
	}
	v, err := view.New(view.Config{
		Kafka: j.kafka, Names: j.names, Input: j.input, Schema: j.rules.Schema(), Dir: j.t.TempDir(), ProbeInterval: 5 * time.Millisecond, Producer: i, Spans: j.spans,
	})
	if err != nil {
		j.t.Fatalf("new view: %v", err)
	}
	server := httptest.NewUnstartedServer(v.Handler())
	server.Config.Protocols = &http.Protocols{}
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	j.t.Cleanup(server.Close)
	w := &writing{Ingest: i, job: j, url: server.URL, view: v, stop: beside(j.t, "ingest", i.Run)}
	w.await("the input topic", func() bool { return i.writer.Load() != nil })
	return w
}

// counts starts a processor and runs the view.
func (w *writing) counts() *writing {
	w.t.Helper()
	p, err := processor.New(processor.Config{Rules: w.rules, Kafka: w.kafka, StateDir: w.t.TempDir(), Instance: "p0", Spans: w.spans})
	if err != nil {
		w.t.Fatalf("new processor: %v", err)
	}
	beside(w.t, "processor", p.Run)
	beside(w.t, "view", w.view.Run)
	w.await("a complete view", func() bool { return w.view.Ready() == nil })
	return w
}

func (w *writing) await(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s did not come", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// result is a ProduceResult, and answer a ProduceResponse or an error.
type result struct {
	Token string
	Error *struct {
		Code, Message, Reason string
		Line                  int
	}
}

type answer struct {
	status        int
	header        http.Header
	Results       []result
	Code, Message string
	Details       []struct {
		Type  string
		Debug struct{ Results []result }
	}
	body string
}

// all are the results, of an error too.
func (a *answer) all() []result {
	if len(a.Details) > 0 {
		return a.Details[0].Debug.Results
	}
	return a.Results
}

// post sends a body to /v1/events.
func (w *writing) post(media, query string, body io.Reader) *answer {
	w.t.Helper()
	a, err := w.try(w.t.Context(), media, query, body)
	if err != nil {
		w.t.Fatalf("POST: %v", err)
	}
	return a
}

func (w *writing) try(ctx context.Context, media, query string, body io.Reader) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/v1/events"+query, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", media)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: string(b)}
	return a, json.Unmarshal(b, a)
}

const (
	one  = "application/json"
	many = "application/x-ndjson"
)

// sum reads an ID's total over REST after the event of a token.
func (w *writing) sum(id, token string) (string, error) {
	resp, err := http.Get(w.url + "/v1/ids/" + id + "?wait=20s&at_least=" + token)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var got struct {
		State   struct{ Totals map[string]string }
		Message string
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(got.Message)
	}
	return got.State.Totals["sum"], nil
}

// written reads what lies in the input topic.
func (j *job) written() []*kgo.Record {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), time.Minute)
	defer cancel()
	kafka := *j.kafka
	kafka.Dial = nil // whatever stands between the Ingest and the brokers
	cl, err := kgo.NewClient(kafka.Franz()...)
	if err != nil {
		j.t.Fatalf("client: %v", err)
	}
	defer cl.Close()
	ends, err := eos.Ends(ctx, cl, j.input)
	if err != nil {
		j.t.Fatalf("ends of %s: %v", j.input, err)
	}
	starts := map[int32]int64{}
	for p, span := range ends {
		if starts[p] = span.Start; span.LSO == span.Start {
			delete(ends, p)
		}
	}
	r, err := eos.NewReader(&kafka, j.input, starts)
	if err != nil {
		j.t.Fatalf("reader: %v", err)
	}
	defer r.Close()
	var out []*kgo.Record
	for len(ends) > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			j.t.Fatalf("read %s: %v", j.input, err)
		}
		for _, b := range batches {
			out = append(out, b.Records...)
			if span, ok := ends[b.Partition]; ok && b.Next >= span.LSO {
				delete(ends, b.Partition)
			}
		}
	}
	return out
}
