package guard

import (
	"errors"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
)

// codesMax is one more than the last code; 0 is ok.
const codesMax = int(connect.CodeUnauthenticated) + 1

func codeName(code connect.Code) string {
	if code == 0 {
		return "ok"
	}
	return code.String()
}

// metrics of a guard. Everything with labels is looked up once, when it is made.
type metrics struct {
	requests  [][codesMax]prometheus.Counter // by the number of the route
	seconds   []prometheus.Observer          // of routes that have an end
	refused   [reasonsMax]prometheus.Counter
	leftOut   prometheus.Counter
	faults    prometheus.Counter
	reloads   map[string]*[2]prometheus.Counter // failed, ok
	inFlight  prometheus.Gauge
	streaming prometheus.Gauge

	all []prometheus.Collector
}

const reloadFailed, reloadOK = 0, 1

func newMetrics() *metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tidemark", Subsystem: "guard", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tidemark", Subsystem: "guard", Name: name, Help: help})
	}
	requests := counters("requests_total", "Requests that were answered, by route and code.", "route", "code")
	refused := counters("refused_total", "Requests that were refused, by reason.", "reason")
	reloads := counters("reloads_total", "Files that were read again because they had changed, by what they are and whether they could be used.", "file", "outcome")
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "tidemark", Subsystem: "guard", Name: "request_seconds", Help: "How long requests took, streams apart.",
		Buckets: prometheus.ExponentialBuckets(50e-6, 3, 13),
	}, []string{"route"})
	m := &metrics{
		requests: make([][codesMax]prometheus.Counter, len(routes)), seconds: make([]prometheus.Observer, len(routes)), reloads: map[string]*[2]prometheus.Counter{},
		leftOut:  prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tidemark", Subsystem: "guard", Name: "audit_left_out_total", Help: "Refused requests without a line of their own in the log."}),
		faults:   prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tidemark", Subsystem: "guard", Name: "server_faults_total", Help: "What went wrong in the HTTP server: panics, connections that could not be accepted."}),
		inFlight: gauge("requests_in_flight", "Requests under way, streams apart."), streaming: gauge("streams_in_flight", "Streams under way."),
	}
	for i := range routes {
		for code := range codesMax {
			m.requests[i][code] = requests.WithLabelValues(routes[i].Name, codeName(connect.Code(code)))
		}
		if !routes[i].Stream {
			m.seconds[i] = seconds.WithLabelValues(routes[i].Name)
		}
	}
	for why := range reasonsMax {
		m.refused[why] = refused.WithLabelValues(why.String())
	}
	for _, file := range []string{fileTLS, filePrincipals} {
		m.reloads[file] = &[2]prometheus.Counter{reloads.WithLabelValues(file, "failed"), reloads.WithLabelValues(file, "ok")}
	}
	m.all = []prometheus.Collector{requests, refused, reloads, seconds, m.leftOut, m.faults, m.inFlight, m.streaming}
	return m
}

func (m *metrics) register(r prometheus.Registerer, g *Guard) error {
	stale := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tidemark", Subsystem: "guard", Name: "stale_files", Help: "Kinds of files whose newest content cannot be used, so that an older one still holds.",
	}, g.staleFiles)
	expires := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tidemark", Subsystem: "guard", Name: "certificate_expires_timestamp_seconds", Help: "When the server's certificate expires; 0 without TLS.",
	}, g.certificateExpires)
	var errs []error
	for _, c := range append(m.all, stale, expires) {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}

// answered counts a request.
func (m *metrics) answered(route *Route, code connect.Code, took time.Duration) {
	m.requests[route.number][code].Inc()
	if !route.Stream {
		m.seconds[route.number].Observe(took.Seconds())
	}
}
