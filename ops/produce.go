package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
)

// ProduceConfig says what Produce writes and how.
type ProduceConfig struct {
	Kafka *eos.Kafka
	Rules *rules.RuleSet
	// Key is the member of an event that keys it, for a job whose ID is the record's key.
	Key codecs.Path
	// Force writes lines too that the job would refuse, without a key where they have no ID.
	Force bool
	// EventTime gives records the event's time as their timestamp, instead of the present.
	EventTime bool
	// Refused hears of each line that was not written; Acked of each that was, from another goroutine. Both may be nil.
	Refused func(RefusedLine)
	Acked   func(line int64, partition int32, offset int64)
	Tell    Progress // in bytes of the inputs as they lie there
}

// ProduceInput is one stream of NDJSON, gzip or not. Size is 0 where it is not known.
type ProduceInput struct {
	Name string
	R    io.Reader
	Size int64
}

// RefusedLine is a line that was not written. Line counts from 1 in its input.
type RefusedLine struct {
	Input          string
	Line           int64
	Reason, Detail string
}

func (r RefusedLine) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", r.Input, r.Line, r.Reason, r.Detail)
}

// ProduceReport is what Produce did. Acked counts what is in Kafka, acks=all.
type ProduceReport struct {
	Lines, Acked, Refused, Forced int64
	First                         *RefusedLine
	// Last is the offset after the last record written, by partition.
	Last map[int32]int64
}

const (
	produceBytesMax  = 64 << 20
	produceRecordMax = 1 << 16
	// deliveryTimeout is how long a record may go unacknowledged before Produce gives up.
	deliveryTimeout = 2 * time.Minute
)

// producing is one Produce under way.
type producing struct {
	cfg    *ProduceConfig
	cl     *kgo.Client
	reader *rules.Reader
	topic  string
	line   int64 // over all inputs, from 0

	mu     sync.Mutex // guards what follows
	report ProduceReport
	failed error
}

// Produce writes events into the job's input topic, each keyed by its ID, so that they are on the partition on which the
// ID lives. Memory is bounded. Lines that the job would refuse are named and left out, and the others go on. It returns
// once everything is acknowledged; its error says that some are not, and the report what is.
func Produce(ctx context.Context, cfg ProduceConfig, inputs []ProduceInput) (*ProduceReport, error) {
	p := &producing{cfg: &cfg, topic: cfg.Rules.Job().Input.Topic, reader: cfg.Rules.NewReader(cfg.Key)}
	p.report.Last = map[int32]int64{}
	if err := p.connect(ctx); err != nil {
		return &p.report, err
	}
	defer p.cl.Close()
	err := p.all(ctx, inputs)
	if flushed := p.cl.Flush(ctx); err == nil {
		err = flushed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		err = p.failed
	}
	return &p.report, err
}

func (p *producing) connect(ctx context.Context) error {
	limit, err := p.messageBytesMax(ctx)
	if err != nil {
		return err
	}
	p.cl, err = kgo.NewClient(p.cfg.Kafka.Franz(
		kgo.DefaultProduceTopic(p.topic),
		kgo.ProducerBatchMaxBytes(limit),
		kgo.MaxBufferedRecords(produceRecordMax),
		kgo.MaxBufferedBytes(max(produceBytesMax, int(limit)*2)),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
	)...)
	return err
}

// messageBytesMax is the topic's own limit of a batch.
func (p *producing) messageBytesMax(ctx context.Context) (int32, error) {
	cl, err := kgo.NewClient(p.cfg.Kafka.Franz()...)
	if err != nil {
		return 0, fmt.Errorf("client: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	found, err := adm.ListTopics(ctx, p.topic)
	if err != nil {
		return 0, fmt.Errorf("look up topic %s: %w", p.topic, err)
	}
	switch err := found[p.topic].Err; {
	case !found.Has(p.topic), errors.Is(err, kerr.UnknownTopicOrPartition):
		return 0, &Problem{
			What: fmt.Sprintf("the input topic %s does not exist", p.topic),
			Mend: "say --create-topics, or use `tidemark topics --create --partitions N`", Err: err,
		}
	case err != nil:
		return 0, fmt.Errorf("look up topic %s: %w", p.topic, err)
	}
	return eos.MessageBytesMax(ctx, adm, p.topic)
}

func (p *producing) all(ctx context.Context, inputs []ProduceInput) error {
	before, total := int64(0), int64(0)
	for i := range inputs {
		if total += inputs[i].Size; inputs[i].Size == 0 {
			total = 0
			break
		}
	}
	for i := range inputs {
		n, err := p.input(ctx, &inputs[i], before, total)
		if err != nil {
			return err
		}
		before += n
	}
	return nil
}

func (p *producing) input(ctx context.Context, in *ProduceInput, before, total int64) (int64, error) {
	l, err := newLines(in.R)
	if err != nil {
		return 0, &Problem{What: fmt.Sprintf("read %s: %v", in.Name, err), Mend: "give NDJSON, plain or packed with gzip", Err: err}
	}
	for {
		line, err := l.next()
		switch {
		case errors.Is(err, io.EOF):
			p.cfg.Tell.tell(before+l.source.n, total)
			return l.source.n, nil
		case errors.Is(err, errLineTooLong):
			p.refuse(RefusedLine{in.Name, l.number, "too_large", err.Error()})
			continue
		case err != nil:
			return 0, &Problem{What: fmt.Sprintf("read %s after line %d: %v", in.Name, l.number, err), Mend: "what is before it is written; mend the file and produce the rest", Err: err}
		case len(bytes.TrimSpace(line)) == 0:
			continue
		}
		if err := p.one(ctx, in.Name, l.number, line); err != nil {
			return 0, err
		}
		if l.number%256 == 0 {
			p.cfg.Tell.tell(before+l.source.n, total)
		}
	}
}

// one writes a line or refuses it. It waits while too much is unacknowledged.
func (p *producing) one(ctx context.Context, name string, number int64, line []byte) error {
	p.mu.Lock()
	p.report.Lines++
	failed := p.failed
	p.mu.Unlock()
	if failed != nil {
		return failed
	}
	now := time.Now()
	rec := rules.Record{Topic: p.topic, TimestampMs: now.UnixMilli(), Value: bytes.Clone(line)}
	id, refusal := p.reader.Read(&rec)
	if refusal == nil && p.cfg.EventTime {
		if now = time.UnixMilli(p.reader.TimeMs()); now.UnixMilli() < 0 {
			refusal = &rules.Refusal{Reason: rules.ReasonTime, Detail: "a record's timestamp cannot lie before 1970; leave --event-time out"}
		}
	}
	if refusal != nil {
		if !p.cfg.Force {
			p.refuse(RefusedLine{name, number, refusal.Reason, refusal.Detail})
			p.line++
			return nil
		}
		p.mu.Lock()
		p.report.Forced++
		p.mu.Unlock()
	}
	r := &kgo.Record{Value: rec.Value, Timestamp: now}
	if id != "" {
		r.Key = []byte(strings.Clone(id))
	}
	at := p.line
	p.line++
	p.cl.Produce(ctx, r, func(r *kgo.Record, err error) { p.done(name, number, at, r, err) })
	return nil
}

func (p *producing) done(name string, number, at int64, r *kgo.Record, err error) {
	if errors.Is(err, kerr.MessageTooLarge) {
		p.refuse(RefusedLine{name, number, "too_large", "the topic takes no record of that size (max.message.bytes)"})
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if p.failed == nil {
			p.failed = fmt.Errorf("%s:%d was not acknowledged: %w", name, number, err)
		}
		return
	}
	p.report.Acked++
	p.report.Last[r.Partition] = max(p.report.Last[r.Partition], r.Offset+1)
	if p.cfg.Acked != nil {
		p.cfg.Acked(at, r.Partition, r.Offset)
	}
}

func (p *producing) refuse(r RefusedLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.report.Refused++; p.report.First == nil {
		p.report.First = &r
	}
	if p.cfg.Refused != nil {
		p.cfg.Refused(r)
	}
}
