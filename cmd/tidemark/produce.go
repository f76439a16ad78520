package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/ops"
)

// produceCmd writes events into the input topic.
type produceCmd struct {
	Files        []string `arg:"" optional:"" name:"file" help:"Files of NDJSON, also .gz; - is standard input, and so is nothing."`
	CreateTopics bool     `help:"Create the job's topics that do not exist."`
	Partitions   int32    `default:"6" placeholder:"N" help:"With --create-topics: partitions of the input topic."`
	Replication  int16    `placeholder:"N" help:"With --create-topics: replicas. Default: 3, or the number of brokers if there are fewer."`
	Key          string   `placeholder:"MEMBER" help:"For a job whose ID is the record's key: the member of an event that is to be the key, such as user.id."`
	Force        bool     `help:"Write lines too that the job would refuse; they will be among its dead letters."`
	EventTime    bool     `help:"Give records the event's time as their timestamp, instead of now."`
}

func (*produceCmd) Help() string {
	return `Writes each line as one event, keyed by its ID as the job file defines it, acks=all. Lines that the job would refuse are
named with the reason and left out, the others are written, and the exit code is then 1. It ends once all are acknowledged.

  tidemark produce --job job.yaml --brokers k1:9092 --create-topics events.ndjson.gz
  zcat events.gz | tidemark produce --job job.yaml --brokers k1:9092`
}

// refusedShown is how many refused lines are named.
const refusedShown = 20

// Run writes the files.
func (c *produceCmd) Run(a *app) (err error) {
	inputs, closeAll, err := c.inputs(a)
	if err != nil {
		return err
	}
	defer closeAll()
	conn, err := a.connect(mayStart)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	if err := c.keyed(conn.rules.Job().Input.ID); err != nil {
		return err
	}
	if c.CreateTopics {
		report, err := ops.Topics(a.ctx, conn.kafka, conn.plan(c.Partitions, c.Replication), true)
		if err != nil && (report == nil || len(report.Created) == 0) {
			return err
		}
		for _, name := range report.Created {
			fmt.Fprintf(a.err, "created %s\n", name)
		}
	}
	show := a.progress(true)
	defer show.end()
	refused := 0
	cfg := ops.ProduceConfig{
		Kafka: conn.kafka, Rules: conn.rules, Force: c.Force, EventTime: c.EventTime,
		Tell: func(done, total int64) { show.tell("writing to "+conn.job.Input, done, total) },
		Refused: func(r ops.RefusedLine) { // calls do not overlap
			if refused++; refused <= refusedShown {
				fmt.Fprintf(show, "refused %s\n", visible(fmt.Sprint(r)))
			} else if refused == refusedShown+1 {
				fmt.Fprintln(show, "refused more; they are only counted")
			}
		},
	}
	if c.Key != "" {
		cfg.Key = codecs.Path(strings.Split(c.Key, "."))
	}
	start := time.Now()
	report, err := ops.Produce(a.ctx, cfg, inputs)
	show.end()
	if report != nil && (err == nil || report.Lines > 0) {
		c.print(a, conn.job.Input, report, time.Since(start))
	}
	if err == nil && report.Refused > 0 {
		return said(exitUser)
	}
	return err
}

// keyed refuses a command line that leaves no event with its ID, or one whose key would not be looked at.
func (c *produceCmd) keyed(id string) error {
	switch {
	case id == "" && c.Key == "" && !c.Force:
		return usagef("the job's ID is the record's key, and a line has none: say --key MEMBER, such as --key user.id, or --force to write without keys")
	case id != "" && c.Key != "":
		return usagef("--key is for a job whose ID is the record's key; in this one it is %s", id)
	}
	return nil
}

func (c *produceCmd) print(a *app, topic string, r *ops.ProduceReport, took time.Duration) {
	fmt.Fprintf(a.out, "%s written to %s in %s", counted(r.Acked, "event"), topic, took.Round(time.Millisecond))
	if r.Forced > 0 {
		fmt.Fprintf(a.out, ", %s of them by force", grouped(r.Forced))
	}
	if r.Refused > 0 {
		fmt.Fprintf(a.out, "; %s refused", counted(r.Refused, "line"))
	}
	if lost := r.Lines - r.Acked - r.Refused; lost > 0 {
		fmt.Fprintf(a.out, "; %s not acknowledged", counted(lost, "line"))
	}
	fmt.Fprintln(a.out)
}

// inputs opens all files before anything is written.
func (c *produceCmd) inputs(a *app) (inputs []ops.ProduceInput, closeAll func(), err error) {
	var open []io.Closer
	closeAll = func() {
		for _, f := range open {
			f.Close()
		}
	}
	files := c.Files
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, name := range files {
		if name == "-" {
			if isTerminal(a.in) {
				fmt.Fprintln(a.err, "reading events from the terminal, one JSON object a line; Ctrl-D ends")
			}
			inputs = append(inputs, ops.ProduceInput{Name: "standard input", R: a.in})
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			closeAll()
			return nil, nil, usagef("%w", err)
		}
		open = append(open, f)
		info, err := f.Stat()
		if err != nil || info.IsDir() {
			closeAll()
			return nil, nil, usagef("%s is no file", name)
		}
		inputs = append(inputs, ops.ProduceInput{Name: name, R: f, Size: info.Size()})
	}
	return inputs, closeAll, nil
}
