package main

import (
	"slices"
	"time"
)

// median of values; the mean of the middle two where their number is even.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	if len(v)%2 == 1 {
		return v[mid]
	}
	return (v[mid-1] + v[mid]) / 2
}

// of gives one figure of each run.
func of(runs []figures, figure func(*figures) float64) []float64 {
	out := make([]float64, len(runs))
	for i := range runs {
		out[i] = figure(&runs[i])
	}
	return out
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// print prints medians of the rounds.
func (b *bench) print(k kind, contenders []contender, all map[string][]figures) {
	b.logf("\n%s: medians of %d rounds of %s", k, b.rounds, b.slice)
	b.logf("%-36s %10s %10s %9s %9s %13s %13s", "", "IDs/s", "to Redis", "p50 us", "p99 us", "client us/ID", "server us/ID")
	for _, c := range contenders {
		runs := all[c.name]
		speed := of(runs, func(f *figures) float64 { return f.perSecond })
		ratios := []float64{}
		for i, f := range all["Redis"] {
			ratios = append(ratios, speed[i]/f.perSecond)
		}
		b.logf("%-36s %10.0f %10.2f %9.0f %9.0f %13.2f %13.2f", c.name, median(speed), median(ratios),
			median(of(runs, func(f *figures) float64 { return micros(f.p50) })), median(of(runs, func(f *figures) float64 { return micros(f.p99) })),
			median(of(runs, func(f *figures) float64 { return f.client })), median(of(runs, func(f *figures) float64 { return f.server })))
	}
}
