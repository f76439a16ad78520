package processor

import (
	"context"
	"time"

	"github.com/IBM/sarama"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidemark/tidemark/eos"
)

// tracer makes spans of the events that come with a sampled trace in their headers, and of the commits that cover them.
// Nothing of an event is told but its place and its outcome: no ID, no value.
type tracer struct {
	trace.Tracer
	name string
	job  attribute.KeyValue
}

// tracedMax bounds the spans of one partition between two commits: producers may mark every event.
const tracedMax = 128

func newTracer(spans trace.TracerProvider, job, topic string) *tracer {
	if spans == nil {
		return nil
	}
	return &tracer{spans.Tracer("github.com/tidemark/tidemark/processor"), "process " + topic, attribute.String("tidemark.job", job)}
}

// sampled finds the context of a record's trace; false where there is none that is sampled. It is cheap then.
func sampled(msg *sarama.ConsumerMessage) (context.Context, bool) {
	for _, h := range msg.Headers {
		if string(h.Key) != "traceparent" {
			continue
		}
		const length, flags = 55, 54 // 00-TRACE-SPAN-FLAGS; the last bit says whether it is sampled
		if len(h.Value) < length || !odd(h.Value[flags]) {
			return nil, false
		}
		ctx := propagation.TraceContext{}.Extract(context.Background(), recordHeaders(msg.Headers))
		return ctx, trace.SpanContextFromContext(ctx).IsSampled()
	}
	return nil, false
}

// odd tells whether a hexadecimal digit is.
func odd(digit byte) bool {
	if digit >= 'a' {
		return (digit-'a')%2 == 1
	}
	return digit%2 == 1
}

// recordHeaders lets a propagator read a record.
type recordHeaders []*sarama.RecordHeader

// Get implements propagation.TextMapCarrier.
func (r recordHeaders) Get(key string) string {
	for _, h := range r {
		if string(h.Key) == key {
			return string(h.Value)
		}
	}
	return ""
}

func (recordHeaders) Set(string, string) {}

func (recordHeaders) Keys() []string { return nil }

// traced counts a record in a span of its own, if its producer asked for one.
func (c *consumer) traced(w *eos.Work, msg *sarama.ConsumerMessage) error {
	ctx, ok := sampled(msg)
	if !ok || w.Notes() >= tracedMax {
		return c.count(w, msg)
	}
	t := c.p.tracer
	_, span := t.Start(ctx, t.name, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		t.job, attribute.String("messaging.system", "kafka"), attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.destination.name", msg.Topic), attribute.Int("messaging.destination.partition.id", int(msg.Partition)),
		attribute.Int64("messaging.kafka.offset", msg.Offset)))
	defer span.End()
	err := c.count(w, msg)
	if err != nil {
		span.SetStatus(codes.Error, "the processor failed")
		return err
	}
	span.SetAttributes(attribute.String("tidemark.outcome", c.outcome))
	if c.refusal != "" {
		span.SetAttributes(attribute.String("tidemark.refusal", c.refusal))
	}
	if span.IsRecording() { // else the sampler has decided otherwise
		w.Note(span.SpanContext())
	}
	return nil
}

// Outcomes of an event.
const (
	applied = "applied"
	refused = "refused" // to the dead letters
	rekeyed = "re-keyed"
)

// committed makes a span of a commit that covers traced events, with a link to each.
func (t *tracer) committed(st *eos.CommitStats) {
	if t == nil || len(st.Notes) == 0 {
		return
	}
	links := make([]trace.Link, 0, len(st.Notes))
	for _, note := range st.Notes {
		links = append(links, trace.Link{SpanContext: note.(trace.SpanContext)})
	}
	end := time.Now()
	start := end.Add(-st.Cut - st.Send - st.End - st.Flush)
	_, span := t.Start(context.Background(), "commit", trace.WithNewRoot(), trace.WithTimestamp(start), trace.WithLinks(links...), trace.WithAttributes(
		t.job, attribute.Int("tidemark.partitions", st.Partitions), attribute.Int64("tidemark.events", st.Events), attribute.Int("tidemark.records", st.Records)))
	at := start
	for _, step := range []struct {
		name string
		took time.Duration
	}{{"cut", st.Cut}, {"sent", st.Send}, {"committed", st.End}, {"flushed", st.Flush}} {
		at = at.Add(step.took)
		span.AddEvent(step.name, trace.WithTimestamp(at))
	}
	span.End(trace.WithTimestamp(end))
}
