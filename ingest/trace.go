package ingest

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// startSpan begins the span of writing, where the caller has one. Its provider is the caller's.
func startSpan(ctx context.Context, topic string, events int) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, noSpan
	}
	return parent.TracerProvider().Tracer("github.com/tidemark/tidemark/ingest").Start(ctx, "send "+topic,
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
			attribute.String("messaging.system", "kafka"), attribute.String("messaging.operation.type", "send"),
			attribute.String("messaging.destination.name", topic), attribute.Int("messaging.batch.message_count", events)))
}

var noSpan = trace.SpanFromContext(context.Background())

// traceHeaders are the headers of the records of a request whose trace is sampled. Others have none, so that what is not
// traced costs nothing further on.
func traceHeaders(ctx context.Context) []kgo.RecordHeader {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	var headers headerCarrier
	propagation.TraceContext{}.Inject(ctx, &headers)
	return headers
}

// headerCarrier writes record headers.
type headerCarrier []kgo.RecordHeader

func (h *headerCarrier) Get(string) string { return "" }
func (h *headerCarrier) Keys() []string    { return nil }

// Set implements propagation.TextMapCarrier.
func (h *headerCarrier) Set(key, value string) {
	*h = append(*h, kgo.RecordHeader{Key: key, Value: []byte(value)})
}
