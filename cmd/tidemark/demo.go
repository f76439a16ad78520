package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/broker"
	"github.com/tidemark/tidemark/ops"
	"github.com/tidemark/tidemark/processor"
	"github.com/tidemark/tidemark/view"
)

// demoCmd shows the whole thing at work.
type demoCmd struct {
	Name   string `arg:"" optional:"" default:"ssh-auth" help:"The data set: ssh-auth (the default), hurdat2-storms or nab-metrics."`
	Once   bool   `help:"End after the summary instead of serving the view."`
	Listen string `placeholder:"HOST:PORT" help:"Where the view answers. Default: ${listen}, or a free port where that is taken."`
}

func (*demoCmd) Help() string {
	return `One process with everything: a broker for trying, real events, the processor, and a view to ask. It ends with the IDs that
bear flags and why, and compares every ID with what independent programs computed. Its data lie in a temporary directory
and go with it.

  ssh-auth         an SSH log, an ID per address: who guesses passwords, and who got in?
  hurdat2-storms   175 years of cyclones, an ID per storm: landfalls, rapid intensification
  nab-metrics      321,206 values of 47 real metrics, an ID per series: spikes, gaps`
}

const demoPartitions = 4

// demo is one demonstration under way.
type demo struct {
	*app
	cmd    *demoCmd
	set    *demoSet
	conn   *connection
	dir    string
	show   *progress
	log    *slog.Logger
	proc   *processor.Processor
	view   *view.View
	l      net.Listener
	places written
	ends   map[int32]int64 // of what was written, by partition

	events            int64
	writing, counting time.Duration
	registry          *prometheus.Registry
	states            []*demoState
	equal, oracle     int
	different         string
}

// Run shows the demo.
func (c *demoCmd) Run(a *app) (err error) {
	set, err := demoSetOf(c.Name)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tidemark-demo-")
	if err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{app: a, cmd: c, set: set, dir: dir, show: a.progress(false), places: written{}}
	defer d.show.end()
	d.log = a.quietLogger(d.show)
	b, err := broker.Start(a.ctx, broker.Config{Dir: filepath.Join(dir, "broker"), Logger: d.log})
	if err != nil {
		return err
	}
	shut := a.endsWith(b)
	defer func() { err = errors.Join(err, shut()) }()
	if d.conn, err = set.connection(b.Addrs()); err != nil {
		return err
	}
	d.introduce()
	if err := d.write(); err != nil {
		return err
	}
	return d.run()
}

// connection is the set's job on a broker.
func (s *demoSet) connection(brokers []string) (*connection, error) {
	rs, err := s.rules()
	if err != nil {
		return nil, err
	}
	k := embeddedKafka(brokers)
	return &connection{rules: rs, kafka: k, close: func() error { return nil }, job: &ops.Job{
		Kafka: k, Names: eos.Names{Job: rs.Job().Name}, Input: rs.Job().Input.Topic, Schema: rs.Schema(),
	}}, nil
}

// write fills the input topic.
func (d *demo) write() error {
	if _, err := ops.Topics(d.ctx, d.conn.kafka, d.conn.plan(demoPartitions, 1), true); err != nil {
		return err
	}
	events, err := d.set.file("events.ndjson.gz")
	if err != nil {
		return err
	}
	total := int64(bytes.Count(events, []byte("\n")))
	var mu sync.Mutex
	done, start := int64(0), time.Now()
	d.show.tell("writing events ", 0, total)
	report, err := ops.Produce(d.ctx, ops.ProduceConfig{
		Kafka: d.conn.kafka, Rules: d.conn.rules,
		Acked: func(line int64, partition int32, offset int64) {
			mu.Lock()
			defer mu.Unlock()
			d.places.add(line, partition, offset)
			if done++; done%512 == 0 {
				d.show.tell("writing events ", done, total)
			}
		},
	}, []ops.ProduceInput{{Name: d.set.name, R: bytes.NewReader(events)}})
	if err != nil {
		return err
	}
	d.writing, d.events, d.ends = time.Since(start), report.Acked, report.Last
	if report.Refused > 0 {
		return fmt.Errorf("%s was refused", report.First)
	}
	return nil
}

// run counts the events, tells what came out, and serves.
func (d *demo) run() (err error) {
	d.registry = newRegistry()
	if d.proc, err = processor.New(processor.Config{
		Rules: d.conn.rules, Kafka: d.conn.kafka, StateDir: filepath.Join(d.dir, "state"), Instance: "demo",
		Metrics: d.registry, Logger: d.log,
	}); err != nil {
		return err
	}
	if d.view, err = view.New(viewConfig(d.conn, filepath.Join(d.dir, "view"), d.registry, d.log, view.WatchConfig{})); err != nil {
		return err
	}
	actors := []func(context.Context) error{d.proc.Run, d.view.Run, d.tell}
	if !d.cmd.Once {
		g, err := (&guardFlags{}).guard(d.registry, d.log, d.show)
		if err != nil {
			return err
		}
		if d.l, err = d.listen(); err != nil {
			return err
		}
		actors = append(actors, g.Run, g.server(d.l, viewHandler(d.view, d.registry)))
	}
	if err := together(d.ctx, actors...); err != nil {
		return err
	}
	switch {
	case d.states == nil:
		return errors.New("ended before everything was counted")
	case d.different != "":
		return said(exitFailStop)
	}
	return nil
}

// listen opens the usual address, or any where nobody asked for one and it is taken.
func (d *demo) listen() (net.Listener, error) {
	if d.cmd.Listen != "" {
		return listen("listen", d.cmd.Listen, false)
	}
	if l, err := net.Listen("tcp", listenDefault); err == nil {
		return l, nil
	}
	return listen("listen", "127.0.0.1:0", false)
}

// tell waits until the view has everything, and prints the summary. Then it waits for the end, or is it.
func (d *demo) tell(ctx context.Context) error {
	start := time.Now()
	for {
		have := int64(0)
		caughtUp := d.view.Ready() == nil
		for _, p := range d.view.Status().Partitions {
			have += p.Position
			caughtUp = caughtUp && p.Position >= d.ends[p.Partition]
		}
		d.show.tell("counting events", have, d.events)
		if caughtUp {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	d.counting = time.Since(start)
	d.show.end()
	if err := d.summary(ctx); err != nil {
		return err
	}
	if !d.cmd.Once {
		<-ctx.Done()
	}
	return nil
}

func (d *demo) summary(ctx context.Context) (err error) {
	if d.states, err = readStates(ctx, d.view, d); err != nil {
		return err
	}
	oracle, err := d.set.oracle()
	if err != nil {
		return err
	}
	d.oracle = len(oracle)
	d.equal, d.different = compare(d.states, oracle, d.places)
	lines, err := d.set.lines("events.ndjson.gz")
	if err != nil {
		return err
	}
	p := &summary{demo: d, paper: newPaper(d.out), lines: lines, meaning: d.meanings()}
	p.print()
	return p.err
}

// meanings are the conditions of the flags, as check prints them.
func (d *demo) meanings() map[string]string {
	var b bytes.Buffer
	_ = d.conn.rules.Describe(&b) // a buffer takes everything
	all := map[string]string{}
	for _, line := range strings.Split(b.String(), "\n") {
		for _, flag := range d.conn.job.Schema.Flags {
			if text, ok := strings.CutPrefix(line, "  "+flag+": "); ok {
				all[flag] = strings.TrimPrefix(text, "raised for good once ")
			}
		}
	}
	return all
}
