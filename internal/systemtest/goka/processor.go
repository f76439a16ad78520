package goka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lovoo/goka"

	"github.com/tidemark/tidemark/eos"
)

// input is an edge that the unit reads.
type input struct {
	topic    Stream
	codec    goka.Codec
	callback goka.ProcessCallback
}

func (i input) String() string    { return string(i.topic) }
func (i input) Topic() string     { return string(i.topic) }
func (i input) Codec() goka.Codec { return i.codec }

// Input is the topic that the unit reads.
func Input(topic Stream, codec goka.Codec, callback goka.ProcessCallback) Edge {
	return input{topic, codec, callback}
}

// table is the edge of the group table.
type table struct{ Edge }

// Persist gives the codec of the unit's values.
func Persist(codec goka.Codec) Edge { return table{goka.Persist(codec)} }

// missing is an edge that a unit does not have.
type missing struct {
	Edge
	what string
}

// Inputs of more than one topic are not there.
func Inputs(topics goka.Streams, codec goka.Codec, callback goka.ProcessCallback) Edge {
	return missing{goka.Inputs(topics, codec, callback), "several inputs"}
}

// Join is not there.
func Join(topic Table, codec goka.Codec) Edge {
	return missing{goka.Join(topic, codec), "joined tables"}
}

// GroupGraph is what DefineGroup was told.
type GroupGraph struct {
	group Group
	edges []Edge
}

// DefineGroup keeps the edges for NewProcessor.
func DefineGroup(group Group, edges ...Edge) *GroupGraph { return &GroupGraph{group, edges} }

// Processor is Goka's, driven by a unit.
type Processor struct {
	*goka.Processor
	unit *eos.Unit
	dir  string
}

var instances atomic.Int64

// NewProcessor makes a unit of the graph's one input, and has its options come after those of the test, so that they win.
func NewProcessor(brokers []string, graph *GroupGraph, options ...goka.ProcessorOption) (*Processor, error) {
	var in input
	var edges []Edge
	var state goka.Codec
	for _, edge := range graph.edges {
		switch e := edge.(type) {
		case missing:
			return nil, fmt.Errorf("a unit has no %s", e.what)
		case input:
			in = e
		case table:
			state = e.Codec()
		default:
			edges = append(edges, e)
		}
	}
	dir, err := os.MkdirTemp("", "tidemark-systemtest-*")
	if err != nil {
		return nil, err
	}
	names := eos.Names{Job: string(graph.group)}
	unit, err := eos.New(eos.Config{
		Kafka: &eos.Kafka{Brokers: brokers}, Names: names, Input: in.Topic(), Digest: "systemtest", Dir: dir,
		Instance: "i" + strconv.FormatInt(instances.Add(1), 10),
		Codec:    valueCodec{state}, NewHandler: newHandler(graph.group, in),
	})
	if err != nil {
		return nil, err
	}
	if state == nil {
		state = unit.TableCodec()
	}
	edges = append(edges, goka.Input(in.topic, unit.BatchCodec(), unit.Callback), goka.Loop(unit.BatchCodec(), unit.Callback), goka.Persist(state))
	var proc *goka.Processor
	err = patiently(func() error {
		if _, err := unit.PrepareTopics(context.Background(), &eos.TopicPlan{Names: names, Input: in.Topic()}); err != nil {
			return err
		}
		proc, err = goka.NewProcessor(brokers, goka.DefineGroup(graph.group, edges...), append(options, unit.Options()...)...)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, unit.Close())
	}
	return &Processor{proc, unit, dir}, nil
}

const (
	patience   = 30 * time.Second
	retryAfter = 100 * time.Millisecond
)

// patiently does again what may pass, as package processor does: not every broker knows a new topic at once.
func patiently(do func() error) error {
	for end := time.Now().Add(patience); ; time.Sleep(retryAfter) {
		err := do()
		var stop *eos.FailStop
		if err == nil || errors.As(err, &stop) || time.Now().After(end) {
			return err
		}
	}
}

// Run is Goka's, between the unit's beginning and end.
func (p *Processor) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, p.unit.Err(), p.unit.Close(), os.RemoveAll(p.dir)) }()
	return p.Processor.Run(ctx)
}
