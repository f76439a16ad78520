package hostile

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestHostile_AViewStands is the short form of `make hostile`.
func TestHostile_AViewStands(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	binary := filepath.Join(t.TempDir(), "tidemark")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/tidemark/tidemark/cmd/tidemark").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	report, err := Run(t.Context(), Config{
		Binary: binary, For: 15 * time.Second, Calm: 2 * time.Second, P99Max: 5 * time.Second, MemoryMiBMax: 768, Log: t.Output(),
		Limits: Limits{Connections: 10, Rate: 8, Failures: 1, Watchers: 5},
	})
	if err != nil {
		t.Fatal(err)
	}
	report.Print(t.Output())
	for _, fault := range report.Faults() {
		t.Error(fault)
	}
}

func TestMemory_FlatIsToldFromGrowing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at   func(n int) float64
		flat bool
	}{
		"the same all the time":     {func(int) float64 { return 100 }, true},
		"more at the beginning":     {func(n int) float64 { return min(100, float64(10*n)) }, true},
		"up and down":               {func(n int) float64 { return 100 + float64(n%2)*30 }, true},
		"a little all the time":     {func(n int) float64 { return 100 + float64(n) }, false},
		"twice as much at the end":  {func(n int) float64 { return 100 * (1 + float64(n/40)) }, false},
		"less than is worth a word": {func(n int) float64 { return 10 + float64(n)/10 }, true},
	} {
		var m memory
		for n := range 60 {
			m.samples = append(m.samples, sample{resident: c.at(n)})
		}
		if m.flat() != c.flat {
			before, after := m.growth()
			t.Errorf("%s: %v to %v is flat: %v, want %v", name, before, after, m.flat(), c.flat)
		}
	}
}
