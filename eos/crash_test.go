package eos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lovoo/goka"
)

// The child process of the crash tests runs one unit, and kills itself at the nth time that it comes by
// a step. It is this test binary with CRASH_JOB set.
const (
	crashJob      = "CRASH_JOB"
	crashBrokers  = "CRASH_BROKERS"
	crashInstance = "CRASH_INSTANCE"
	crashDir      = "CRASH_DIR"
	crashStep     = "CRASH_STEP"
	crashAt       = "CRASH_AT"
	crashFreeze   = "CRASH_FREEZE"  // not killed but frozen; see protect_zombie_test.go
	crashRequest  = "CRASH_REQUEST" // frozen at a request or at its reply; see request_test.go
	crashSession  = "CRASH_SESSION" // the session timeout; see slot_test.go
)

func TestMain(m *testing.M) {
	if os.Getenv(crashJob) != "" {
		runCrashChild()
		return
	}
	os.Exit(m.Run())
}

func runCrashChild() {
	names := Names{Job: os.Getenv(crashJob), Generation: 1}
	at, err := strconv.ParseInt(os.Getenv(crashAt), 10, 64)
	if err != nil {
		panic(err)
	}
	w := &world{kafka: &Kafka{Brokers: strings.Split(os.Getenv(crashBrokers), ",")}, names: names, input: names.Job + "-in"}
	cfg := w.config(os.Getenv(crashInstance), os.Getenv(crashDir))
	shortWaits(&cfg)
	if d, err := time.ParseDuration(os.Getenv(crashSession)); err == nil {
		cfg.SessionTimeout, cfg.Kafka.RebalanceTimeout = d, d
	}
	switch {
	case os.Getenv(crashFreeze) != "":
		freezeAt(&cfg, os.Getenv(crashStep), at)
	case os.Getenv(crashRequest) != "":
		freezeAtRequest(&cfg, os.Getenv(crashStep), os.Getenv(crashRequest) == "reply", at)
	default:
		killAt(&cfg, os.Getenv(crashStep), at)
	}
	u, err := New(cfg)
	if err != nil {
		panic(err)
	}
	frozenUnit.Store(u)
	graph := goka.DefineGroup(goka.Group(names.Group()),
		goka.Input(goka.Stream(w.input), u.BatchCodec(), u.Callback),
		goka.Loop(u.BatchCodec(), u.Callback), goka.Persist(u.TableCodec()))
	proc, err := goka.NewProcessor(w.kafka.Brokers, graph, u.Options()...)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stderr, proc.Run(context.Background()), u.Err())
	os.Exit(1)
}

func killAt(cfg *Config, step string, at int64) {
	var seen atomic.Int64
	cfg.Trace = func(now string) {
		if now == step && seen.Add(1) == at {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}
}

// childCommand is this test binary as a child.
func (w *world) childCommand(instance, dir, step string, at int) (*exec.Cmd, *strings.Builder) {
	cmd := exec.CommandContext(w.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashJob+"="+w.names.Job, crashBrokers+"="+strings.Join(w.kafka.Brokers, ","),
		crashInstance+"="+instance, crashDir+"="+dir, crashStep+"="+step, crashAt+"="+strconv.Itoa(at))
	var out strings.Builder
	cmd.Stderr = &out
	return cmd, &out
}

// crashChild runs a child until it has killed itself.
func (w *world) crashChild(instance, dir, step string, at int) {
	w.t.Helper()
	cmd, out := w.childCommand(instance, dir, step, at)
	if err := cmd.Start(); err != nil {
		w.t.Fatalf("start child: %v", err)
	}
	stuck := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !stuck.Stop() {
		w.t.Fatalf("the child never came by step %q %d times: %s", step, at, out.String())
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		w.t.Fatalf("child ended with %v, want killed at %q: %s", err, step, out.String())
	}
}

// crashSteps are all the places at which a commit or a takeover can be cut off.
var crashSteps = []string{
	"offsets fetched", "recovered", "cut", "before Produce", "after Produce", "before TxnOffsetCommit",
	"after TxnOffsetCommit", "before EndTxn", "after EndTxn", "flushed",
}

// shortWaits has the broker notice the dead soon.
func shortWaits(cfg *Config) {
	cfg.SessionTimeout, cfg.TransactionTimeout = time.Second, 2*time.Second
}

func TestUnit_KilledAtEachStepCountsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, brokers []string) {
		for _, step := range crashSteps {
			for _, at := range []int{1, 3} {
				if at > 1 && (step == "offsets fetched" || step == "recovered") {
					continue // once a session
				}
				t.Run(fmt.Sprintf("%s %d", step, at), func(t *testing.T) {
					t.Parallel()
					testKilledAt(t, brokers, step, at)
				})
			}
		}
	})
}

func testKilledAt(t *testing.T, brokers []string, step string, at int) {
	w := newWorld(t, brokers, 2)
	dir := t.TempDir()
	w.produce(500, 20)
	w.feedUntil(func() { w.crashChild("a", dir, step, at) })
	w.produce(100, 20)
	cfg := w.config("a", dir)
	shortWaits(&cfg)
	u, stop := w.run(cfg)
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()
}

// feedUntil produces, a few records at a time, while f runs: later commits need later records.
func (w *world) feedUntil(f func()) {
	w.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		select {
		case <-done:
			return
		default:
			w.produce(10, 20)
		}
	}
}
