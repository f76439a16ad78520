package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func benchEvents(n, ids int) [][]byte {
	events := make([][]byte, n)
	types := []string{"failed_password", "accepted_password", "disconnect"}
	for i := range events {
		events[i] = fmt.Appendf(nil, `{"id":"10.0.%d.%d","type":"%s","time":"2017-03-27T%02d:%02d:%02dZ","value":%d,"user":"root","port":%d}`,
			i*7919%ids/250, i*7919%ids%250, types[i%3], i/3600%24, i/60%60, i%60, i%3+1, i%60000)
	}
	return events
}

func benchApply(b *testing.B, rs *RuleSet, ids int) {
	events := benchEvents(20_000, ids)
	a, states := rs.NewApplier(), map[string]*State{}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		id, refusal := a.Read(&Record{Topic: "in", TimestampMs: 1 << 45, Value: events[i%len(events)]})
		if refusal != nil {
			b.Fatal(refusal)
		}
		st := states[id]
		if st == nil {
			st = rs.NewState()
			states[string([]byte(id))] = st
		}
		if _, refusal := a.Apply(st); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

func BenchmarkApply_SSHAuth(b *testing.B) {
	benchApply(b, mustLoadFile(b, filepath.Join("..", "testdata", "ssh_auth", "job.yaml")), 10_000)
}

const threeTotals = `
name: three
input: {topic: in, id: event.id, time: event.time}
totals:
  sum: {sum: event.value}
  failures_10m: {count: true, when: event.type == "failed_password", window: 10m}
  highest: {max: event.value}
flags:
  brute_force: {when: totals.failures_10m >= 30}
`

func BenchmarkApply_ThreeTotals(b *testing.B) { benchApply(b, mustLoad(b, threeTotals), 10_000) }

// BenchmarkApply_Alone leaves decoding out: the same event again and again, in a window that it fills.
func BenchmarkApply_Alone(b *testing.B) {
	src, err := os.ReadFile(filepath.Join("..", "testdata", "ssh_auth", "job.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	for _, job := range []struct{ name, src string }{{"ssh", string(src)}, {"three", threeTotals}} {
		b.Run(job.name, func(b *testing.B) {
			rs := mustLoad(b, job.src)
			a, st := rs.NewApplier(), rs.NewState()
			if _, refusal := a.Read(&Record{Topic: "in", TimestampMs: 1 << 45, Value: benchEvents(1, 1)[0]}); refusal != nil {
				b.Fatal(refusal)
			}
			b.ReportAllocs()
			for b.Loop() {
				a.env.timeMs += 10_000
				if _, refusal := a.Apply(st); refusal != nil {
					b.Fatal(refusal)
				}
			}
		})
	}
}

func BenchmarkEncode_SSHAuth(b *testing.B) {
	rs := mustLoadFile(b, filepath.Join("..", "testdata", "ssh_auth", "job.yaml"))
	a, st := rs.NewApplier(), rs.NewState()
	for _, event := range benchEvents(30, 1) {
		if _, refusal := a.Read(&Record{Topic: "in", TimestampMs: 1 << 45, Value: event}); refusal != nil {
			b.Fatal(refusal)
		}
		if _, refusal := a.Apply(st); refusal != nil {
			b.Fatal(refusal)
		}
	}
	table := records{}
	st.Encode("10.0.0.0", table.write)
	size := float64(len(table["10.0.0.0"]))
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			st.Encode("10.0.0.0", func(_, _ []byte) {})
		}
		b.ReportMetric(size, "bytes")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := rs.DecodeState("10.0.0.0", table["10.0.0.0"], table.read); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkApply_LargeWindow has 50,000 entries in each of three windows of one ID.
func BenchmarkApply_LargeWindow(b *testing.B) {
	for _, late := range []int64{0, 1000, 1_800_000} {
		b.Run(fmt.Sprintf("late=%dms", late), func(b *testing.B) {
			rs := mustLoad(b, fmt.Sprintf(windowJob, ""))
			a, st := rs.NewApplier(), rs.NewState()
			ms := fillWindow(b, a, st, 50_000)
			if _, refusal := a.Read(&Record{Topic: "in", TimestampMs: 1 << 40, Value: []byte(`{"id":"a","t":1,"v":50}`)}); refusal != nil {
				b.Fatal(refusal)
			}
			b.ReportAllocs()
			for b.Loop() {
				ms += 72
				a.env.timeMs = ms - late
				if late > 0 && ms/72%2 == 0 {
					a.env.timeMs = ms
				}
				if _, refusal := a.Apply(st); refusal != nil {
					b.Fatal(refusal)
				}
			}
		})
	}
}

func BenchmarkEncode_LargeWindow(b *testing.B) {
	rs := mustLoad(b, fmt.Sprintf(windowJob, ""))
	a, st, table := rs.NewApplier(), rs.NewState(), records{}
	ms := fillWindow(b, a, st, 50_000)
	st.Encode("a", table.write)
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := rs.DecodeState("a", table["a"], table.read); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("commit", func(b *testing.B) {
		written := 0
		for b.Loop() {
			ms += 72
			a.env.timeMs = ms
			if _, refusal := a.Apply(st); refusal != nil {
				b.Fatal(refusal)
			}
			st.Encode("a", func(key, value []byte) { written += len(key) + len(value) })
		}
		b.ReportMetric(float64(written)/float64(b.N), "bytes/commit")
	})
}
