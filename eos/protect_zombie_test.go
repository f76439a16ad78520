package eos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// A frozen child tells by its exit code what became of the commit in the middle of which it was frozen.
const (
	exitCommitted = 42
	exitRefused   = 43
)

var frozenUnit atomic.Pointer[Unit]

// freezeAt stops the process's clock at the nth time that it comes by step, until somebody thaws it.
func freezeAt(cfg *Config, step string, at int64) {
	// Neither the broker nor the session's end may end for us what the freeze interrupts.
	cfg.TransactionTimeout, cfg.lastCommits = time.Minute, time.Minute
	cfg.weak.noGeneration = strings.Contains(os.Getenv(crashFreeze), "noGeneration")
	var seen, thawed atomic.Int64
	cfg.Trace = func(now string) {
		switch {
		case thawed.Load() != 0 && now == "flushed":
			os.Exit(exitCommitted)
		case now == step && seen.Add(1) == at:
			freezeHere()
			thawed.Store(1)
			go func() {
				for frozenUnit.Load().Trouble() == nil {
					time.Sleep(time.Millisecond)
				}
				fmt.Fprintln(os.Stderr, frozenUnit.Load().Trouble())
				os.Exit(exitRefused)
			}()
		}
	}
}

// freezeHere stops the process until somebody thaws it.
func freezeHere() {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, syscall.SIGCONT)
	defer signal.Stop(resumed)
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		panic(err)
	}
	<-resumed // the signal takes effect later than it is sent
}

// zombie is a frozen child.
type zombie struct {
	w   *world
	cmd *exec.Cmd
	out *strings.Builder
}

func (w *world) freezeChild(step string, at int, weak string) *zombie {
	w.t.Helper()
	return w.freezeChildBy(step, at, crashFreeze+"=yes "+weak)
}

// freezeChildBy starts a child with one more variable, which has it freeze itself, and answers once it has.
func (w *world) freezeChildBy(step string, at int, variable string) *zombie {
	w.t.Helper()
	if runtime.GOOS != "linux" {
		w.t.Skip("only Linux tells here that a process is frozen")
	}
	cmd, out := w.childCommand("zombie", w.t.TempDir(), step, at)
	cmd.Env = append(cmd.Env, variable)
	if err := cmd.Start(); err != nil {
		w.t.Fatalf("start child: %v", err)
	}
	z := &zombie{w: w, cmd: cmd, out: out}
	w.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	w.feedUntil(func() { eventually(w.t, time.Minute, "freeze", z.frozen) })
	return z
}

// frozen asks Linux; the state follows the name in parentheses.
func (z *zombie) frozen() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", z.cmd.Process.Pid))
	_, state, ok := strings.Cut(string(stat), ") ")
	return err == nil && ok && strings.HasPrefix(state, "T")
}

// goOn thaws it.
func (z *zombie) goOn() {
	z.w.t.Helper()
	if err := z.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		z.w.t.Fatalf("thaw: %v", err)
	}
}

// thaw lets it go on and answers how it ended.
func (z *zombie) thaw() int {
	z.w.t.Helper()
	z.goOn()
	stuck := time.AfterFunc(time.Minute, func() { _ = z.cmd.Process.Kill() })
	defer stuck.Stop()
	err := z.cmd.Wait()
	code := z.cmd.ProcessState.ExitCode()
	if code != exitCommitted && code != exitRefused {
		z.w.t.Fatalf("the zombie ended with %v: %s", err, z.out.String())
	}
	return code
}

// fencedOff is what brokers say of a producer epoch that is over.
const fencedOff = "INVALID_PRODUCER_EPOCH|PRODUCER_FENCED"

// A process is frozen with a commit ready to be sent, loses its partitions, and thaws after another one
// has processed the same records and more. Two protections refuse it, each of which is enough.
func TestProtect_AZombieCannotCommit(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for _, c := range []struct {
		name, step, zombie string
		heir               weakness
		want               int
		says               string
	}{
		{"by the generation alone", "before TxnOffsetCommit", "", weakness{noFence: true}, exitRefused, "UNKNOWN_MEMBER_ID|ILLEGAL_GENERATION"},
		{"by fencing alone", "before TxnOffsetCommit", "noGeneration", weakness{}, exitRefused, fencedOff},
		{"control: by nothing", "before TxnOffsetCommit", "noGeneration", weakness{noFence: true}, exitCommitted, "^$"},
		// The next test has the control of this one: nobody asks for a generation any more.
		{"by fencing alone, with but its end to send", "before EndTxn", "", weakness{}, exitRefused, fencedOff},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, brokers, 2)
			w.produce(100, 20)
			z := w.freezeChild(c.step, 3, c.zombie)
			cfg := w.config("heir", t.TempDir())
			shortWaits(&cfg)
			cfg.weak = c.heir
			heir, stop := w.run(cfg)
			w.caughtUp(heir)
			w.produce(100, 20)
			w.caughtUp(heir)
			if got := z.thaw(); got != c.want {
				t.Errorf("the zombie's commit: %d, want %d (%d is committed, %d refused): %s", got, c.want, exitCommitted, exitRefused, z.out)
			}
			if said := z.out.String(); !regexp.MustCompile(c.says).MatchString(said) {
				t.Errorf("the zombie says %q, want %s", said, c.says)
			}
			if faults := w.faults(); (len(faults) > 0) != (c.want == exitCommitted) {
				t.Errorf("faults in what is committed: %d, want some: %t: %.300q", len(faults), c.want == exitCommitted, faults)
			}
			if err := stop(); err != nil && c.want == exitRefused {
				t.Errorf("stop: %v", err)
			}
		})
	}
}

// The zombie has sent all but EndTxn, and its transaction is still open, so that it may end well. Its
// successor waits for that. One that believes the offsets as they are counts again what that transaction holds.
func TestProtect_OffsetsThatAnOpenTransactionMayChangeAreWaitedFor(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for _, control := range []bool{false, true} {
		t.Run(fmt.Sprintf("control %t", control), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, brokers, 2)
			w.produce(100, 20)
			z := w.freezeChild("before EndTxn", 3, "")
			cfg := w.config("heir", t.TempDir())
			shortWaits(&cfg)
			cfg.weak = weakness{noFence: true, noStable: control}
			recovered, thawed := make(chan struct{}), make(chan struct{})
			var once atomic.Bool
			cfg.Trace = func(step string) {
				if step == "recovered" && once.CompareAndSwap(false, true) {
					close(recovered)
					<-thawed
				}
			}
			heir, stop := w.run(cfg)
			eventually(t, time.Minute, "meet the open transaction", func() bool {
				select {
				case <-recovered:
					return true
				default:
					return heir.Trouble() != nil
				}
			})
			if trouble := heir.Trouble(); !control && !errors.Is(trouble, sarama.ErrUnstableOffsetCommit) {
				t.Errorf("the heir is troubled by %v, want the open transaction", trouble)
			} else if control && trouble != nil {
				t.Errorf("the heir is troubled by %v; want none, because it believes the offsets", trouble)
			}
			if got := z.thaw(); got != exitCommitted {
				t.Errorf("the transaction that nobody fenced ended with %d, want %d", got, exitCommitted)
			}
			close(thawed)
			w.caughtUp(heir)
			if err := stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if faults := w.faults(); (len(faults) > 0) != control {
				t.Errorf("faults in what is committed: %d, want some: %t: %.300q", len(faults), control, faults)
			}
		})
	}
}
