package processor

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidemark/tidemark/eos"
)

// metrics are counted with labels bound beforehand; positions are read when they are scraped.
type metrics struct {
	applied, late, rekeyed   prometheus.Counter
	commits, records, bytes  prometheus.Counter
	commitSeconds            *prometheus.HistogramVec
	refused                  *prometheus.CounterVec
	mu                       sync.Mutex // guards reasons
	reasons                  map[string]prometheus.Counter
	cut, send, end, flushing prometheus.Observer
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tidemark", Name: name, Help: help})
	}
	m := &metrics{
		applied: counter("events_applied_total", "Events counted into a state; committed or about to be."),
		late:    counter("events_late_total", "Events that came too late for at least one window."),
		rekeyed: counter("events_rekeyed_total", "Events sent on to the partition on which their ID lives."),
		commits: counter("commits_total", "Transactions committed."),
		records: counter("table_records_total", "Records written to the table."),
		bytes:   counter("table_bytes_total", "Bytes of keys and values written to the table, before compression."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "tidemark", Name: "events_refused_total", Help: "Events sent to the dead letters, by reason.",
		}, []string{"reason"}),
		commitSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "tidemark", Name: "commit_seconds", Help: "Time of a commit, by step: cut, send (records and offsets), end (EndTxn), flush (LevelDB).",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}, []string{"step"}),
		reasons: map[string]prometheus.Counter{},
	}
	m.cut, m.send = m.commitSeconds.WithLabelValues("cut"), m.commitSeconds.WithLabelValues("send")
	m.end, m.flushing = m.commitSeconds.WithLabelValues("end"), m.commitSeconds.WithLabelValues("flush")
	return m
}

func (m *metrics) register(r prometheus.Registerer, p *Processor) error {
	for _, c := range []prometheus.Collector{m.applied, m.late, m.rekeyed, m.commits, m.records, m.bytes, m.refused, m.commitSeconds, positions{p}} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) refusedBy(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.reasons[reason]
	if c == nil {
		c = m.refused.WithLabelValues(reason)
		m.reasons[reason] = c
	}
	c.Inc()
}

func (m *metrics) committed(st eos.CommitStats) {
	m.commits.Inc()
	m.records.Add(float64(st.Records))
	m.bytes.Add(float64(st.Bytes))
	m.cut.Observe(st.Cut.Seconds())
	m.send.Observe(st.Send.Seconds())
	m.end.Observe(st.End.Seconds())
	m.flushing.Observe(st.Flush.Seconds())
}

// positions collects lag and recovery progress of the partitions owned at the time of a scrape.
type positions struct{ p *Processor }

var (
	lagRecords = prometheus.NewDesc("tidemark_lag_records", "Records between the committed position and the last one that can be delivered, as last seen.", []string{"topic", "partition"}, nil)
	lagSeconds = prometheus.NewDesc("tidemark_lag_seconds", "Age of the last commit while records are waiting; 0 when level.", []string{"partition"}, nil)
	recovered  = prometheus.NewDesc("tidemark_recovery_ratio", "Share of the table partition that is recovered, 1 when running.", []string{"partition"}, nil)
)

// Describe implements prometheus.Collector.
func (positions) Describe(ch chan<- *prometheus.Desc) {
	ch <- lagRecords
	ch <- lagSeconds
	ch <- recovered
}

// Collect implements prometheus.Collector.
func (c positions) Collect(ch chan<- prometheus.Metric) {
	for _, st := range c.p.Status() {
		part := strconv.Itoa(int(st.Partition))
		if st.State != "running" { // where the source goes on is not known yet, so neither is the lag
			ratio := 0.0
			if st.RecoverEnd > 0 {
				ratio = min(float64(st.Recovered)/float64(st.RecoverEnd), 1)
			}
			ch <- prometheus.MustNewConstMetric(recovered, prometheus.GaugeValue, ratio, part)
			continue
		}
		behind := int64(0)
		for topic, hw := range st.HighWater {
			lag := int64(0)
			if src := st.Position.Source(topic); src != nil {
				lag = max(hw-src.Next, 0)
			}
			behind += lag
			ch <- prometheus.MustNewConstMetric(lagRecords, prometheus.GaugeValue, float64(lag), topic, part)
		}
		age := 0.0
		if behind > 0 && st.Position.CommittedMs > 0 {
			age = time.Since(time.UnixMilli(st.Position.CommittedMs)).Seconds()
		}
		ch <- prometheus.MustNewConstMetric(lagSeconds, prometheus.GaugeValue, age, part)
		ch <- prometheus.MustNewConstMetric(recovered, prometheus.GaugeValue, 1, part)
	}
}
