package chaos

import (
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
)

// commitSteps and takeoverSteps are where the unit of work traces itself.
var (
	commitSteps = []string{
		"cut", "before TxnOffsetCommit", "after TxnOffsetCommit", "before Produce", "after Produce", "before EndTxn", "after EndTxn", "flushed",
	}
	takeoverSteps = []string{"offsets fetched", "recovered"}
)

const (
	orderStop = "stop"
	orderKill = "kill"
	orderFull = "full" // at atDisk, for as long as it stands
	orderSlow = "slow" // at atDisk, for as long as it stands

	obeying = "obeying" // in the log
)

// atDisk is where the disk is full or slow.
const atDisk = "disk"

// orders has a child stop or kill itself at a step, which no signal from outside could hit. They lie in a file, "stop at cut",
// which is read at the start and at each SIGUSR1; without a file there is no order.
type orders struct {
	path    string
	log     *slog.Logger
	resumed chan os.Signal // SIGCONT
	armed   atomic.Pointer[string]
	stopped atomic.Pointer[string] // the step of a commit at which it was stopped, until it is known what became of that
}

func (o *orders) listen() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	o.resumed = make(chan os.Signal, 1)
	signal.Notify(o.resumed, syscall.SIGCONT)
	o.read()
	go func() {
		for range signals {
			o.read()
		}
	}()
}

func (o *orders) read() {
	text, err := os.ReadFile(o.path)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			o.log.Error("read orders", "cause", err)
		}
		o.armed.Store(nil)
		return
	}
	order := string(text)
	o.armed.Store(&order)
}

// at is called at each step; an order is obeyed once.
func (o *orders) at(step string) {
	o.tell(step)
	what, ok := o.standing(step)
	if !ok || what != orderStop && what != orderKill {
		return
	}
	o.armed.Store(nil)
	o.log.Info(obeying, "order", what, "at", step)
	sig := syscall.SIGKILL
	if what == orderStop {
		sig = syscall.SIGSTOP
		o.stopped.Store(&step)
		select {
		case <-o.resumed: // of a stop before
		default:
		}
	}
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		o.log.Error("obeying", "cause", err)
		return
	}
	// The signal takes effect a little later than it is sent, on a busy machine much later: the step ends when somebody resumes us.
	<-o.resumed
}

// standing answers what is ordered to be done there.
func (o *orders) standing(where string) (what string, ok bool) {
	order := o.armed.Load()
	if order == nil {
		return "", false
	}
	what, at, _ := strings.Cut(*order, " at ")
	return what, at == where
}

// zombieSteps are where a process that is stopped has a request of its commit ready: what comes next if that is accepted. A step
// that comes after a refusal too stands under it.
var zombieSteps = []struct{ step, passedOver, accepted string }{
	{"before TxnOffsetCommit", "after TxnOffsetCommit", "before Produce"},
	{"before EndTxn", "", "after EndTxn"},
}

// What the log says of a commit in the middle of which the process was stopped.
const (
	zombieSent     = "zombie sent"
	zombieAccepted = "accepted"
	zombieRefused  = "refused"
)

// tell logs what became of a commit in the middle of which the process was stopped, once the step shows it.
func (o *orders) tell(step string) {
	stopped := o.stopped.Load()
	if stopped == nil {
		return
	}
	outcome := zombieRefused
	for _, z := range zombieSteps {
		switch {
		case *stopped == z.step && step == z.passedOver:
			return
		case *stopped == z.step && step == z.accepted:
			outcome = zombieAccepted
		}
	}
	o.stopped.Store(nil)
	o.log.Info(zombieSent, "step", *stopped, "outcome", outcome)
}
