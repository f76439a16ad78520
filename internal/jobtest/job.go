// Package jobtest runs a whole job in this process, for tests and examples of what asks its views: the embedded broker, a
// processor, and any number of views, each with a server that can be ended and begun again at the same address.
package jobtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/broker"
	"github.com/tidemark/tidemark/processor"
	"github.com/tidemark/tidemark/rules"
	"github.com/tidemark/tidemark/view"
)

// Logins is a job that counts failed logins of users, and says whose last ones add up to 100 or more points.
const Logins = `name: logins
input: {topic: logins-events}
totals:
  points: {sum: event.points}
  last:   {last: event.kind}
flags:
  watched: {when: "totals.points >= 100", clear: "totals.points < 100"}
`

// Config of a Job; each field's zero value is its default.
type Config struct {
	File       string // the job file (default Logins)
	Partitions int32  // default 3
	Watch      view.WatchConfig
}

// Job is a job at work.
type Job struct {
	cfg    Config
	dir    string
	rules  *rules.RuleSet
	kafka  *eos.Kafka
	broker *broker.Broker
	cl     *kgo.Client
	views  []*View

	stop  context.CancelFunc
	ended chan error // of the processor
}

// Start starts a broker and a processor.
func Start(ctx context.Context, cfg Config) (j *Job, err error) {
	if cfg.File == "" {
		cfg.File = Logins
	}
	if cfg.Partitions == 0 {
		cfg.Partitions = 3
	}
	j = &Job{cfg: cfg, ended: make(chan error, 1), stop: func() {}}
	if j.dir, err = os.MkdirTemp("", "tidemark-jobtest-"); err != nil {
		return nil, err
	}
	if err := j.start(ctx); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

func (j *Job) start(ctx context.Context) (err error) {
	if j.rules, err = rules.Load([]byte(j.cfg.File)); err != nil {
		return err
	}
	if j.broker, err = broker.Start(ctx, broker.Config{Dir: filepath.Join(j.dir, "kafka")}); err != nil {
		return err
	}
	j.kafka = &eos.Kafka{Brokers: j.broker.Addrs()}
	if j.cl, err = kgo.NewClient(j.kafka.Franz()...); err != nil {
		return err
	}
	if _, err := kadm.NewClient(j.cl).CreateTopic(ctx, j.cfg.Partitions, 1, nil, j.rules.Job().Input.Topic); err != nil {
		return err
	}
	p, err := processor.New(processor.Config{Rules: j.rules, Kafka: j.kafka, StateDir: filepath.Join(j.dir, "state"), Instance: "test"})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	j.stop = stop
	go func() { j.ended <- p.Run(running) }()
	return nil
}

// MustStart is Start for a test, which ends the job.
func MustStart(t testing.TB, cfg Config) *Job {
	t.Helper()
	j, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start the job: %v", err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("end the job: %v", err)
		}
	})
	return j
}

// Close ends everything.
func (j *Job) Close() error {
	var errs []error
	for _, v := range j.views {
		errs = append(errs, v.Stop())
		v.server.Close()
	}
	j.stop()
	if j.cl != nil {
		errs = append(errs, <-j.ended)
		j.cl.Close()
	}
	if j.broker != nil {
		errs = append(errs, j.broker.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(j.dir))...)
}

// Place is where an event is in the input.
type Place struct {
	Partition int32
	Offset    int64
}

func (p Place) String() string { return fmt.Sprintf("%d@%d", p.Partition, p.Offset) }

// Write writes events of an ID into the input, as any producer would, and gives the place of the last.
func (j *Job) Write(ctx context.Context, id string, events ...string) (Place, error) {
	var records []*kgo.Record
	for _, e := range events {
		records = append(records, &kgo.Record{Topic: j.rules.Job().Input.Topic, Key: []byte(id), Value: []byte(e)})
	}
	if err := j.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return Place{}, err
	}
	last := records[len(records)-1]
	return Place{last.Partition, last.Offset}, nil
}

// Kafka is how to reach the broker, and Names and Schema what the job's topics and states are.
func (j *Job) Kafka() (*eos.Kafka, eos.Names, *codecs.Schema) {
	return j.kafka, eos.Names{Job: j.rules.Job().Name, Generation: 1}, j.rules.Schema()
}

// View is a view with its server. While it is stopped its address refuses whoever comes.
type View struct {
	job    *Job
	dir    string
	server *httptest.Server

	mu      sync.Mutex // guards the fields below
	running *view.View // nil: stopped
	handler http.Handler
	cancel  context.CancelFunc
	ended   chan error
}

// NewView starts a view.
func (j *Job) NewView(ctx context.Context) (*View, error) {
	v := &View{job: j, dir: filepath.Join(j.dir, fmt.Sprint("view-", len(j.views)))}
	v.server = httptest.NewUnstartedServer(v)
	v.server.Config.Protocols = &http.Protocols{}
	v.server.Config.Protocols.SetHTTP1(true)
	v.server.Config.Protocols.SetUnencryptedHTTP2(true)
	v.server.Start()
	j.views = append(j.views, v)
	if err := v.Start(); err != nil {
		return nil, err
	}
	return v, v.Ready(ctx)
}

// MustView is NewView for a test.
func (j *Job) MustView(t testing.TB) *View {
	t.Helper()
	v, err := j.NewView(t.Context())
	if err != nil {
		t.Fatalf("start a view: %v", err)
	}
	return v
}

// URL is where the view answers, whether it runs or not.
func (v *View) URL() string { return v.server.URL }

// ServeHTTP implements http.Handler.
func (v *View) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	stopped, handler := v.running == nil, v.handler
	v.mu.Unlock()
	if stopped {
		panic(http.ErrAbortHandler) // the connection breaks
	}
	handler.ServeHTTP(w, r)
}

// Start starts a view that was stopped, from its local state.
func (v *View) Start() error {
	_, names, schema := v.job.Kafka()
	running, err := view.New(view.Config{
		Kafka: v.job.kafka, Names: names, Input: v.job.rules.Job().Input.Topic, Schema: schema,
		Dir: v.dir, ProbeInterval: 10 * time.Millisecond, Watch: v.job.cfg.Watch,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.mu.Lock()
	defer v.mu.Unlock()
	v.running, v.handler, v.cancel, v.ended = running, running.Handler(), cancel, make(chan error, 1)
	go func() { v.ended <- running.Run(ctx) }()
	return nil
}

// Ready waits until the view answers, and knows its age.
func (v *View) Ready(ctx context.Context) error {
	v.mu.Lock()
	running := v.running
	v.mu.Unlock()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := running.Ready()
		for _, p := range running.Status().Partitions {
			if p.Age == view.NotKnown {
				err = errors.Join(err, errors.New("its age is not known"))
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the view is not ready: %w", err)
		case <-tick.C:
		}
	}
}

// Stop ends the view as a kill would its callers see: connections break, and new ones are refused.
func (v *View) Stop() error {
	v.mu.Lock()
	running, cancel := v.running, v.cancel
	v.running = nil
	v.mu.Unlock()
	if running == nil {
		return nil
	}
	v.server.CloseClientConnections()
	cancel()
	return <-v.ended
}
