package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"

	process "github.com/tidemark/tidemark/internal/child" // child is a type here
)

// childArgument as the only argument makes the program a child: it reads its task from standard input, reports on
// standard output, and ends when its input ends, so that no child outlives the benchmark.
const childArgument = "bench-child"

// task is what a child is to do.
type task struct {
	Role    string   `json:"role"`
	Brokers []string `json:"brokers"`
	Topic   string   `json:"topic"`
	Job     string   `json:"job"` // group name, and stem of the topics
	Rules   string   `json:"rules,omitempty"`
	Dir     string   `json:"dir"`
	JSON    bool     `json:"json,omitempty"`    // stock: encoding/json for events and states
	Gather  bool     `json:"gather,omitempty"`  // stock: a storage that gathers writes
	Decode  bool     `json:"decode,omitempty"`  // raw: decode what is read
	Latency bool     `json:"latency,omitempty"` // settings for latency in place of those for throughput
	Profile string   `json:"profile,omitempty"` // where a CPU profile goes
}

// report is one line that a child writes.
type report struct {
	Name    string            `json:"name"`
	AtNs    int64             `json:"at_ns"` // wall clock
	Addrs   []string          `json:"addrs,omitempty"`
	PeakRSS int64             `json:"peak_rss,omitempty"`
	Count   int64             `json:"count,omitempty"`   // records read
	LastNs  int64             `json:"last_ns,omitempty"` // when the last of them was
	Samples map[int32][]visit `json:"samples,omitempty"`
	GetNs   int64             `json:"get_ns,omitempty"` // of a request to the view, the median
	Steps   steps             `json:"steps,omitzero"`   // of the commits
	Err     string            `json:"err,omitempty"`
}

// visit is a moment at which a view showed everything below an offset of a partition.
type visit struct {
	AtNs int64 `json:"t"`
	Next int64 `json:"n"`
}

const (
	reportReady = "ready" // consuming begins, or the service can be used
	reportEnd   = "end"
)

// role is the work of a child: it calls ready once, and returns after ctx has ended.
type role func(ctx context.Context, t *task, ready func(report)) (report, error)

var roles = map[string]role{}

// runChild is main for a child; its result is the exit code.
func runChild(in io.Reader, out io.Writer) int {
	// An interrupt from the terminal reaches the whole group; the parent's closing of our input is what ends us.
	signal.Ignore(os.Interrupt)
	var mu sync.Mutex
	say := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		r.AtNs = time.Now().UnixNano()
		line, err := json.Marshal(r)
		if err == nil {
			_, err = out.Write(append(line, '\n'))
		}
		if err != nil {
			os.Exit(1) // the parent is gone
		}
	}
	lines := bufio.NewReader(in)
	var t task
	first, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(first, &t)
	}
	if err != nil {
		say(report{Name: reportEnd, Err: fmt.Sprintf("read the task: %v", err)})
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		_, _ = io.Copy(io.Discard, lines)
	}()
	end, err := work(ctx, &t, func(r report) {
		r.Name = reportReady
		say(r)
	})
	end.Name = reportEnd
	end.PeakRSS = peakRSS()
	if err != nil {
		end.Err = err.Error()
	}
	say(end)
	return 0
}

func work(ctx context.Context, t *task, ready func(report)) (report, error) {
	do, ok := roles[t.Role]
	if !ok {
		return report{}, fmt.Errorf("no role %q", t.Role)
	}
	if t.Profile != "" {
		f, err := os.Create(t.Profile)
		if err != nil {
			return report{}, err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return report{}, err
		}
		defer pprof.StopCPUProfile()
	}
	return do(ctx, t, ready)
}

// peakRSS is this process's own peak. The maximum that wait4 reports is no use: it begins with what the parent held at
// the time of exec.
func peakRSS() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(status, []byte("VmHWM:"))
	if !ok {
		return 0
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// child is a running child, as the parent sees it.
type child struct {
	task    task
	cmd     *exec.Cmd
	in      io.WriteCloser
	started time.Time
	reports chan report
	stderr  *process.Tail
}

// outcome is what a child leaves behind.
type outcome struct {
	report
	started time.Time
	cpu     time.Duration // user and system
}

// startChild runs this program again with t as its task.
func startChild(t task) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{task: t, cmd: exec.Command(exe, childArgument), reports: make(chan report, 4), stderr: &process.Tail{}}
	c.cmd.Stderr = c.stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.started = time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.reports)
		dec := json.NewDecoder(out)
		for {
			var r report
			if dec.Decode(&r) != nil {
				return
			}
			c.reports <- r
		}
	}()
	line, err := json.Marshal(t)
	if err == nil {
		_, err = c.in.Write(append(line, '\n'))
	}
	if err != nil {
		return nil, errors.Join(err, c.kill())
	}
	return c, nil
}

// ready waits until the child says so.
func (c *child) ready(ctx context.Context, patience time.Duration) (report, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r, ok := <-c.reports:
		if !ok || r.Name != reportReady {
			return r, c.fault(r)
		}
		return r, nil
	case <-timer.C:
		return report{}, c.fault(report{Err: "not ready after " + patience.String()})
	case <-ctx.Done():
		return report{}, ctx.Err()
	}
}

// stop ends the child's input and waits for its end; one that does not end is killed.
func (c *child) stop() (outcome, error) {
	_ = c.in.Close()
	timer := time.AfterFunc(time.Minute, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	return c.wait()
}

// wait waits for the child's end.
func (c *child) wait() (outcome, error) {
	var last report
	for r := range c.reports {
		last = r
	}
	err := c.cmd.Wait()
	o := outcome{report: last, started: c.started, cpu: c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()}
	if err != nil || last.Name != reportEnd || last.Err != "" {
		return o, errors.Join(c.fault(last), err)
	}
	return o, nil
}

func (c *child) kill() error {
	_ = c.cmd.Process.Kill()
	_, err := c.stop()
	return err
}

func (c *child) fault(r report) error {
	return fmt.Errorf("%s %s: %s\n%s", c.task.Role, c.task.Job, r.Err, c.stderr.Text())
}
