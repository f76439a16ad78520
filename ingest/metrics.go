package ingest

import (
	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of an Ingest, with the labels bound.
type metrics struct {
	events   *prometheus.CounterVec
	ended    map[connect.Code]prometheus.Counter // 0: acknowledged
	invalid  prometheus.Counter
	late     prometheus.Counter
	refused  prometheus.Counter
	inflight prometheus.GaugeFunc
}

func newMetrics(i *Ingest) *metrics {
	name := func(n, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "tidemark", Subsystem: "ingest", Name: n, Help: help}
	}
	m := &metrics{
		events:  prometheus.NewCounterVec(name("events_total", "Events by what became of them."), []string{"result"}),
		late:    prometheus.NewCounter(name("late_total", "Events that were settled after their caller had been told that it is not known.")),
		refused: prometheus.NewCounter(name("full_total", "Times that events were refused because too much is on its way.")),
		inflight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "tidemark", Subsystem: "ingest", Name: "inflight_bytes", Help: "Bytes of requests and events that are on their way.",
		}, func() float64 { return float64(i.inflight.Load()) }),
	}
	m.ended = map[connect.Code]prometheus.Counter{
		0: m.events.WithLabelValues("acknowledged"), connect.CodeUnavailable: m.events.WithLabelValues("not_written"),
		connect.CodeUnknown: m.events.WithLabelValues("unknown"), connect.CodeInvalidArgument: m.events.WithLabelValues("refused"),
	}
	m.invalid = m.ended[connect.CodeInvalidArgument]
	return m
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.events, m.late, m.refused, m.inflight} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// produced counts what became of an event that was handed to Kafka.
func (m *metrics) produced(code connect.Code) { m.ended[code].Inc() }
