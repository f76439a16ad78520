package view

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a view; what belongs to partitions is read when it is scraped.
type metrics struct {
	records, rebuilds, misplaced, catchUps prometheus.Counter
	watchers                               prometheus.Gauge
	resets                                 *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tidemark", Subsystem: "view", Name: name, Help: help})
	}
	return &metrics{
		records:   counter("records_total", "Records of the table that were applied."),
		rebuilds:  counter("rebuilds_total", "Local states that were damaged and built again."),
		misplaced: counter("misplaced_total", "Records found in a partition where their ID does not belong."),
		catchUps:  counter("watch_catch_ups_total", "Readings of the table for watchers that resumed."),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "tidemark", Subsystem: "view", Name: "watchers", Help: "Watchers, those that are being caught up included.",
		}),
		resets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tidemark", Subsystem: "view", Name: "watch_resets_total", Help: "Watches that were ended with a reset.",
		}, []string{"reason"}),
	}
}

func (m *metrics) register(r prometheus.Registerer, v *View) error {
	cached := func(name, help string, value func(hits, all int64) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "tidemark", Subsystem: "view", Name: name, Help: help},
			func() float64 { return float64(value(v.cache.asked())) })
	}
	for _, c := range []prometheus.Collector{
		m.records, m.rebuilds, m.misplaced, m.catchUps, m.watchers, m.resets,
		gauges{v},
		cached("cache_hits_total", "States that reads over REST found in memory.", func(hits, _ int64) int64 { return hits }),
		cached("cache_misses_total", "States that reads over REST did not find in memory.", func(hits, all int64) int64 { return all - hits }),
	} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

type gauges struct{ v *View }

var (
	ageSeconds      = prometheus.NewDesc("tidemark_view_age_seconds", "How long ago the view covered the end of the input; absent while that is not known.", []string{"partition"}, nil)
	tableAgeSeconds = prometheus.NewDesc("tidemark_view_table_age_seconds", "How long ago the view was level with the table; absent while that is not known.", []string{"partition"}, nil)
	lagRecords      = prometheus.NewDesc("tidemark_view_lag_records", "Input records that the view does not cover yet, as last seen.", []string{"partition"}, nil)
	completeRatio   = prometheus.NewDesc("tidemark_view_complete_ratio", "Share of the table partition that is loaded, 1 when it is complete.", []string{"partition"}, nil)
)

// Describe implements prometheus.Collector.
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ageSeconds, tableAgeSeconds, lagRecords, completeRatio} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, p := range g.v.all() {
		part := strconv.Itoa(int(p.number))
		send := func(d *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, part)
		}
		age, tableAge, known, tableKnown := p.freshness(now)
		if known {
			send(ageSeconds, age.Seconds())
		}
		if tableKnown {
			send(tableAgeSeconds, tableAge.Seconds())
		}
		st := p.status(now)
		send(lagRecords, float64(st.LagRecords))
		send(completeRatio, st.loaded())
	}
}
