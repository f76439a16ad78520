package processor

import (
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"go.opentelemetry.io/otel/trace"
)

const sampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func recordWith(traceparent string) *sarama.ConsumerMessage {
	msg := &sarama.ConsumerMessage{Headers: []*sarama.RecordHeader{{Key: []byte("content-type"), Value: []byte("application/json")}}}
	if traceparent != "" {
		msg.Headers = append(msg.Headers, &sarama.RecordHeader{Key: []byte("traceparent"), Value: []byte(traceparent)})
	}
	return msg
}

func TestSampled_IsOnlyWhatItsProducerAskedFor(t *testing.T) {
	for traceparent, want := range map[string]bool{
		"":            false,
		sampledParent: true,
		sampledParent[:len(sampledParent)-1] + "0":                false,
		sampledParent[:len(sampledParent)-1] + "2":                false,
		sampledParent[:len(sampledParent)-1] + "3":                true,
		sampledParent[:len(sampledParent)-1] + "b":                false, // flags that version 00 does not know
		sampledParent[:54]:                                        false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		strings.Repeat("1", 55):                                   false,
		strings.Repeat("-", 55):                                   false,
		strings.Repeat("\xff", 9):                                 false,
	} {
		ctx, got := sampled(recordWith(traceparent))
		if got != want {
			t.Errorf("%q: got %t, want %t", traceparent, got, want)
		}
		if got && trace.SpanContextFromContext(ctx).SpanID().String() != "b7ad6b7169203331" {
			t.Errorf("%q: got %v", traceparent, trace.SpanContextFromContext(ctx))
		}
	}
}

// BenchmarkSampled is what a record costs that is not traced while tracing is on; while it is off, a comparison with nil.
func BenchmarkSampled(b *testing.B) {
	for name, msg := range map[string]*sarama.ConsumerMessage{
		"no traceparent": recordWith(""), "not sampled": recordWith(sampledParent[:54] + "0"), "sampled": recordWith(sampledParent),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sampled(msg)
			}
		})
	}
}
