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

	obeying = "obeying" // in the log
)

// orders has a child stop or kill itself at a step, which no signal from outside could hit. They lie in a file, "stop at cut",
// which is read at the start and at each SIGUSR1; without a file there is no order.
type orders struct {
	path  string
	log   *slog.Logger
	armed atomic.Pointer[string]
}

func (o *orders) listen() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
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
	order := o.armed.Load()
	if order == nil {
		return
	}
	what, where, _ := strings.Cut(*order, " at ")
	if where != step || !o.armed.CompareAndSwap(order, nil) {
		return
	}
	o.log.Info(obeying, "order", *order)
	sig := syscall.SIGSTOP
	if what == orderKill {
		sig = syscall.SIGKILL
	}
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		o.log.Error("obeying", "cause", err)
	}
}
