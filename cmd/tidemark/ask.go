package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemark/tidemark/ops"
)

// asking is what get, list and dump have in common: whom they ask.
type asking struct {
	View  string `placeholder:"URL" help:"Ask the view there, such as http://127.0.0.1:8080, instead of reading the table from Kafka. It needs no job file."`
	Token string `placeholder:"TOKEN" env:"TIDEMARK_TOKEN" help:"Say to the view who asks. Others can read a command line: prefer the environment. With https, --tls-ca and --tls-cert are those of the view."`
}

// reader is somebody who knows the states: Kafka's table, or a view.
type reader interface {
	get(ctx context.Context, ids []string) (*ops.GetReport, error)
	list(ctx context.Context, f ops.Filter, use func(id string) error) (*ops.ScanReport, error)
	dump(ctx context.Context, f ops.Filter, use func(line []byte) error) (*ops.ScanReport, error)
	input() string
	close() error
}

// open finds the one to ask.
func (q *asking) open(a *app) (reader, error) {
	if q.View != "" {
		return newViewReader(q.View, q.Token, a.globals)
	}
	conn, err := a.connect(mayStart)
	if err != nil {
		return nil, err
	}
	return &tableReader{connection: conn, show: a.progress(false)}, nil
}

// tableReader reads the table from Kafka.
type tableReader struct {
	*connection
	show *progress
}

func (t *tableReader) tell(done, total int64) {
	t.show.tell("reading "+t.job.Names.Table(), done, total)
}

func (t *tableReader) get(ctx context.Context, ids []string) (*ops.GetReport, error) {
	defer t.show.end()
	return t.job.Get(ctx, ids, t.tell)
}

func (t *tableReader) list(ctx context.Context, f ops.Filter, use func(id string) error) (*ops.ScanReport, error) {
	defer t.show.end()
	return t.job.List(ctx, f, t.tell, func(id string) error {
		t.show.end()
		return use(id)
	})
}

func (t *tableReader) dump(ctx context.Context, f ops.Filter, use func(line []byte) error) (*ops.ScanReport, error) {
	defer t.show.end()
	return t.job.Dump(ctx, f, t.tell, func(line []byte) error {
		t.show.end()
		return use(line)
	})
}

func (t *tableReader) input() string { return t.job.Input }
func (t *tableReader) close() error  { return t.connection.close() }

// asOf says on standard error as of which input positions an answer is.
func (a *app) asOf(input string, places []ops.Place) {
	text, latest := "as of "+input, int64(0)
	for _, p := range places {
		text += fmt.Sprintf(" %d@%d", p.Partition, p.Next)
		latest = max(latest, p.TimeMs)
	}
	if latest != 0 {
		text += ", last event " + time.UnixMilli(latest).UTC().Format(time.RFC3339)
	}
	fmt.Fprintln(a.err, text)
}
