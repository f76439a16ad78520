package processor

import (
	"fmt"

	"github.com/IBM/sarama"
	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
)

// consumer is the callback of one partition: decode, place, apply, put.
type consumer struct {
	p       *Processor
	applier *rules.Applier
	loop    string
	rec     rules.Record
	headers []codecs.Header // of the record in hand, as it first arrived

	outcome, refusal string // of the record in hand, for its span
}

func (p *Processor) newHandler(int32) eos.Handler {
	c := &consumer{p: p, applier: p.cfg.Rules.NewApplier(), loop: p.names.Loop()}
	return c.handle
}

// handle takes one record of the input or of the loop. What cannot be counted goes to the dead letters;
// an error is one of the machine, never of the event.
func (c *consumer) handle(w *eos.Work, msg *sarama.ConsumerMessage) error {
	if c.p.tracer != nil && len(msg.Headers) > 0 {
		return c.traced(w, msg)
	}
	return c.count(w, msg)
}

func (c *consumer) count(w *eos.Work, msg *sarama.ConsumerMessage) error {
	rekeyed, refusal := c.take(msg)
	if refusal != nil {
		return c.refuse(w, refusal)
	}
	id, refusal := c.applier.Read(&c.rec)
	if refusal != nil {
		return c.refuse(w, refusal)
	}
	w.EventTime(c.applier.TimeMs())
	if home := eos.Place([]byte(id), c.p.partitions); home != w.Partition() {
		if rekeyed { // not ours: an ID would have a state on two partitions
			c.arrived(msg)
			return c.refuse(w, &rules.Refusal{Reason: "loop", Detail: fmt.Sprintf("the ID lives on partition %d", home)})
		}
		return c.rekey(w, id, home)
	}
	value, err := w.Get(id)
	if err != nil {
		return err
	}
	st, ok := value.(*rules.State)
	if !ok {
		st = c.p.cfg.Rules.NewState()
	}
	out, refusal := c.applier.Apply(st)
	if refusal != nil {
		return c.refuse(w, refusal)
	}
	w.Put(id, st)
	c.outcome, c.refusal = applied, ""
	c.p.metrics.applied.Inc()
	if out.Late {
		c.p.metrics.late.Inc()
	}
	return c.announce(w, out.Changes)
}

// take fills c.rec with the record as it first arrived: a loop record carries its origin with it.
func (c *consumer) take(msg *sarama.ConsumerMessage) (rekeyed bool, r *rules.Refusal) {
	c.arrived(msg)
	if msg.Topic != c.loop {
		return false, nil
	}
	o, err := codecs.DecodeRekeyed(msg.Key, msg.Value, c.headers)
	if err != nil {
		return true, &rules.Refusal{Reason: "loop", Detail: err.Error()}
	}
	c.rec = rules.Record{
		Topic: o.Topic, Partition: o.Partition, Offset: o.Offset,
		TimestampMs: o.TimestampMs, Key: o.Key, Value: o.Value,
	}
	c.headers = o.Headers
	return true, nil
}

// arrived fills c.rec with the record as it lies there.
func (c *consumer) arrived(msg *sarama.ConsumerMessage) {
	c.rec = rules.Record{
		Topic: msg.Topic, Partition: msg.Partition, Offset: msg.Offset,
		TimestampMs: msg.Timestamp.UnixMilli(), Key: msg.Key, Value: msg.Value,
	}
	c.headers = headersOf(msg)
}

func headersOf(msg *sarama.ConsumerMessage) []codecs.Header {
	if len(msg.Headers) == 0 {
		return nil
	}
	out := make([]codecs.Header, len(msg.Headers))
	for i, h := range msg.Headers {
		out[i] = codecs.Header{Key: string(h.Key), Value: h.Value}
	}
	return out
}

// refuse sends the record in hand to the dead letters with its reason.
func (c *consumer) refuse(w *eos.Work, r *rules.Refusal) error {
	d := codecs.DeadLetter{
		Reason: r.Reason, Detail: r.Detail, Topic: c.rec.Topic, Partition: c.rec.Partition, Offset: c.rec.Offset,
		TimestampMs: c.rec.TimestampMs, Key: c.rec.Key, Value: c.rec.Value, Headers: c.headers,
	}
	key, value, headers := d.Encode(eos.RecordBytesMax)
	w.Emit(eos.Output{Topic: c.p.names.DeadLetters(), Partition: w.Partition(), Key: key, Value: value, Headers: toSarama(headers)})
	c.outcome, c.refusal = refused, r.Reason
	c.p.metrics.refusedBy(r.Reason)
	return nil
}

// rekey sends the record in hand to the partition on which its ID lives.
func (c *consumer) rekey(w *eos.Work, id string, home int32) error {
	o := codecs.Rekeyed{
		ID: id, Topic: c.rec.Topic, Partition: c.rec.Partition, Offset: c.rec.Offset,
		TimestampMs: c.rec.TimestampMs, Key: c.rec.Key, Value: c.rec.Value, Headers: c.headers,
	}
	key, value, headers := o.Encode()
	if n := codecs.RecordBytes(key, value, headers); n > eos.RecordBytesMax {
		return c.refuse(w, &rules.Refusal{Reason: "too_large", Detail: fmt.Sprintf("the event lives on partition %d and is too large to be sent there: up to %d bytes with key and headers", home, n)})
	}
	w.Emit(eos.Output{Topic: c.loop, Partition: home, Key: key, Value: value, Headers: toSarama(headers)})
	c.outcome, c.refusal = rekeyed, ""
	c.p.metrics.rekeyed.Inc()
	return nil
}

// announce writes the changes of flags to the flags topic.
func (c *consumer) announce(w *eos.Work, changes []codecs.FlagChange) error {
	for i := range changes {
		key, value := changes[i].Encode()
		w.Emit(eos.Output{Topic: c.p.names.Flags(), Partition: w.Partition(), Key: key, Value: value})
	}
	return nil
}

func toSarama(headers []codecs.Header) []sarama.RecordHeader {
	out := make([]sarama.RecordHeader, len(headers))
	for i, h := range headers {
		out[i] = sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value}
	}
	return out
}

// stateCodec is how eos keeps states of IDs.
type stateCodec struct{ rules *rules.RuleSet }

func (c stateCodec) Decode(key string, base []byte, read func(key []byte) ([]byte, error)) (any, error) {
	return c.rules.DecodeState(key, base, read)
}

func (c stateCodec) MemoryBytes(value any) int64 { return value.(*rules.State).MemoryBytes() }

func (c stateCodec) Encode(key string, value any, write func(key, value []byte)) error {
	value.(*rules.State).Encode(key, write)
	return nil
}
