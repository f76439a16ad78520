package histories

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/tidemark/tidemark/internal/child"
	"github.com/tidemark/tidemark/internal/sim/overlay"
)

// Runner runs histories.
type Runner struct {
	Parallel int // histories at a time; each may take a processor and up to 3 GiB, most take one
	binary   string
}

// Build compiles the histories with a runtime that can be seeded. What it makes lies in dir, which exists.
func Build(ctx context.Context, dir string) (*Runner, error) {
	file, err := overlay.Write(dir)
	if err != nil {
		return nil, err
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("ask go for the module's directory: %w", err)
	}
	r := &Runner{Parallel: min(runtime.NumCPU(), 4), binary: filepath.Join(dir, "histories.test")}
	// A history runs on one processor, and each of its goroutines until it waits: no race would show that is none in its trace.
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-race=false", "-vet=off", "-overlay", file, "-tags", "simruntime", "-o", r.binary, "./eos")
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the histories: %w\n%s", err, out)
	}
	return r, nil
}

// historyMax is far more than one takes; a longer one hangs.
const historyMax = 5 * time.Minute

// memoryDir is a file system in memory, where Linux has one.
const memoryDir = "/dev/shm"

// Run lives through one history in a process of its own: nothing that an earlier one left in this process's memory can then
// change its course. It fails where there is no report; what a history finds is no error.
func (r *Runner) Run(ctx context.Context, h History) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, historyMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.binary, "-test.run=^TestSimulation_History$", "-test.timeout=0")
	cmd.Env = append(append(os.Environ(), h.environ()...), "GOMAXPROCS=1", "GOGC=off")
	if info, err := os.Stat(memoryDir); err == nil && info.IsDir() {
		cmd.Env = append(cmd.Env, "TMPDIR="+memoryDir) // thousands of state directories are made and thrown away
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := child.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var report Report
	for line := range bytes.Lines(out.Bytes()) {
		if text, ok := bytes.CutPrefix(line, []byte(reportPrefix)); ok {
			return report, json.Unmarshal(text, &report)
		}
	}
	return report, fmt.Errorf("seed %d ended without a report: %v\n%.8000s", h.Seed, err, out.Bytes())
}

// From lives through the histories of h's seed and those that follow it, so many of them at a time, and tells of each as
// it ends, until more says no or ctx is over. Those that have begun by then are told of too, so that no seed is left out below
// the last one.
func (r *Runner) From(ctx context.Context, h History, more func(Report) bool) error {
	var mu sync.Mutex // guards the variables below
	var failed error
	stop := false
	begin := func() (History, bool) {
		mu.Lock()
		defer mu.Unlock()
		next := h
		h.Seed++
		return next, !stop && ctx.Err() == nil
	}
	end := func(report Report, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed, stop = err, true
		} else if !more(report) {
			stop = true
		}
	}
	var running sync.WaitGroup
	for range r.Parallel {
		running.Go(func() {
			for next, ok := begin(); ok; next, ok = begin() {
				end(r.Run(context.WithoutCancel(ctx), next))
			}
		})
	}
	running.Wait()
	return failed
}
