package ingest

import (
	"bytes"
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/rules"
	"github.com/tidemark/tidemark/view"
)

// call is one request under way.
type call struct {
	ingest  *Ingest
	writer  *writer
	records []kgo.Record
	at      []int // where the records' results stand
	bytes   int64 // that the records are counted with, until the last is settled
	past    past  // what the writer had done before
	headers []kgo.RecordHeader

	mu      sync.Mutex // guards what follows
	open    int        // records that are not settled
	over    bool       // the caller has its answer
	settled []settled  // by record
	all     chan struct{}

	results []view.Produced // of the caller's goroutine alone
}

// settled is what became of a record.
type settled struct {
	known     bool
	partition int32
	offset    int64
	err       error
}

func newCall(i *Ingest, w *writer, events int) *call {
	return &call{
		ingest: i, writer: w, all: make(chan struct{}), results: make([]view.Produced, events),
		records: make([]kgo.Record, 0, events), at: make([]int, 0, events),
	}
}

// recordBytes is what a record takes beside its key and value, here and in the client.
const recordBytes = 512

func cost(r *kgo.Record) int64 { return int64(len(r.Key)+len(r.Value)) + recordBytes }

// check makes records of the events that the job would take, and results of those that it would not, which it counts. A record
// has a copy: an event may lie in a body that is much larger than what it is counted with.
func (c *call) check(events [][]byte) (refused int) {
	reader := c.ingest.readers.Get().(*rules.Reader)
	defer c.ingest.readers.Put(reader)
	now := time.Now()
	for n, value := range events {
		id, refusal := reader.Read(&rules.Record{Topic: c.ingest.topic, TimestampMs: now.UnixMilli(), Value: value})
		if refusal == nil {
			refusal = c.writer.fits(id, value, c.headers)
		}
		if refusal != nil {
			c.results[n] = view.Produced{Code: connect.CodeInvalidArgument, Reason: refusal.Reason, Message: refusal.Detail}
			refused++
			continue
		}
		if !c.ingest.cfg.weak.borrow {
			value = bytes.Clone(value)
		}
		c.records = append(c.records, kgo.Record{Key: []byte(id), Value: value, Headers: c.headers, Timestamp: now})
		c.at = append(c.at, n)
		c.bytes += cost(&c.records[len(c.records)-1])
	}
	return refused
}

// write hands all records to the client, in order. It does not wait.
func (c *call) write() {
	c.open, c.settled = len(c.records), make([]settled, len(c.records))
	if c.open == 0 {
		c.end()
		return
	}
	c.past = c.writer.past()
	for n := range c.records {
		c.writer.client.Produce(context.Background(), &c.records[n], func(r *kgo.Record, err error) { c.settle(n, r, err) })
	}
}

// settle notes what became of a record.
func (c *call) settle(n int, r *kgo.Record, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		c.ingest.metrics.late.Inc()
	} else {
		c.settled[n] = settled{true, r.Partition, r.Offset, err}
	}
	if c.open--; c.open == 0 {
		c.end()
	}
}

// end gives the room back, when the last record is settled, though the caller may have been answered long ago: one record that is
// not holds all of them.
func (c *call) end() {
	c.ingest.Release(c.bytes)
	close(c.all)
}

// wait gives the results when every record is settled, or cannot be in time.
func (c *call) wait() []view.Produced {
	deadline := time.NewTimer(c.ingest.cfg.Timeout)
	defer deadline.Stop()
	select {
	case <-c.all:
	case <-deadline.C:
	}
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	for n, at := range c.at {
		c.results[at] = c.result(&c.settled[n])
		c.ingest.metrics.produced(c.results[at].Code)
	}
	return c.results
}

func (c *call) result(s *settled) view.Produced {
	switch {
	case !s.known:
		return view.Produced{Code: connect.CodeUnknown, Message: "Kafka has not acknowledged it in " + c.ingest.cfg.Timeout.String() + "; it may have been written, or be written yet"}
	case s.err != nil:
		return c.writer.verdict(s.err, c.past)
	case s.offset < 0:
		return view.Produced{Code: connect.CodeUnknown, Message: "it was written, but Kafka did not say where"}
	}
	return view.Produced{Token: view.Token(c.ingest.cfg.Names.Generation, c.writer.topicID, s.partition, s.offset)}
}
