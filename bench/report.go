package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
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

// medianOf takes the median of one figure of each run.
func medianOf(runs []figures, of func(*figures) float64) float64 {
	values := make([]float64, len(runs))
	for i := range runs {
		values[i] = of(&runs[i])
	}
	return median(values)
}

// ratio is the median of the quotients of the runs of the same round.
func ratio(runs, base []figures, of func(*figures) float64) float64 {
	var quotients []float64
	for i := range min(len(runs), len(base)) {
		if d := of(&base[i]); d > 0 {
			quotients = append(quotients, of(&runs[i])/d)
		}
	}
	return median(quotients)
}

func perSecond(f *figures) float64 { return f.perSecond }
func fromStart(f *figures) float64 { return f.fromStart }
func cpuMicros(f *figures) float64 { return f.cpuMicros }
func peakBytes(f *figures) float64 { return float64(f.peakRSS) }
func changelog(f *figures) float64 { return f.changelog }

// printContest prints medians, and ratios to stock Goka with the same codecs.
func (b *bench) printContest(ids int, all map[string][]figures) {
	b.logf("\n%s events, %s IDs, %d partitions: medians of %d rounds; ratios are to %q, within the round; machine load %s\n",
		thousands(b.events), thousands(ids), partitions, b.rounds, baseline, loadText())
	b.logf("%-27s %10s %6s %11s %12s %6s %9s %12s  %s", "", "events/s", "ratio", "from start", "us CPU/event", "ratio", "peak MiB",
		"changelog B", "totals")
	for _, c := range contenders {
		runs := all[c.name]
		if len(runs) == 0 {
			continue
		}
		b.logf("%-27s %10s %6.2f %11s %12.2f %6.2f %9.0f %12.1f  %s", c.name,
			thousands(int(medianOf(runs, perSecond))), ratio(runs, all[baseline], perSecond),
			thousands(int(medianOf(runs, fromStart))),
			medianOf(runs, cpuMicros), ratio(runs, all[baseline], cpuMicros),
			medianOf(runs, peakBytes)/(1<<20), medianOf(runs, changelog), verdicts(runs))
	}
	b.logf("")
}

func verdicts(runs []figures) string {
	for _, f := range runs {
		if !f.ok {
			return f.verdict
		}
	}
	return fmt.Sprintf("OK in %d of %d", len(runs), len(runs))
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// thousands writes a number with separators.
func thousands(n int) string {
	text := strconv.Itoa(n)
	var out []string
	for len(text) > 3 {
		out = append(out, text[len(text)-3:])
		text = text[:len(text)-3]
	}
	out = append(out, text)
	slices.Reverse(out)
	return strings.Join(out, ",")
}

// printMachine says on what the figures were taken.
func (b *bench) printMachine(broker string) {
	b.logf("machine  %s, %d cores, %s, %s/%s", cpuName(), runtime.NumCPU(), memoryText(), runtime.GOOS, runtime.GOARCH)
	b.logf("broker   %s", broker)
	var mods []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "github.com/lovoo/goka", "github.com/IBM/sarama", "github.com/twmb/franz-go", "github.com/syndtr/goleveldb":
				mods = append(mods, m.Path[strings.LastIndexByte(m.Path, '/')+1:]+" "+m.Version)
			}
		}
	}
	b.logf("versions %s, %s\n", runtime.Version(), strings.Join(mods, ", "))
}

func cpuName() string { return procField("/proc/cpuinfo", "model name", "unknown processor") }

func memoryText() string {
	kib, err := strconv.Atoi(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal", ""), " kB"))
	if err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20))
}

// loadText is the load average of the last minute: above the number of cores plus one, somebody else was at work.
func loadText() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// procField finds "name : value" in a file of the kernel's.
func procField(file, name, otherwise string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return otherwise
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}
