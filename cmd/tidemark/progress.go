package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// isTerminal tells whether a person looks at w.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress shows how far something is: a bar on a terminal, a line now and then elsewhere. What is written through it, such
// as the log, stands above the bar.
type progress struct {
	w     io.Writer
	tty   bool
	bytes bool // what is counted are bytes, not events

	mu    sync.Mutex // guards what follows
	bar   *progressbar.ProgressBar
	what  string
	since time.Time
	total int64
}

// progressEvery is how often a line tells how far it is where there is no terminal.
const progressEvery = 5 * time.Second

func (a *app) progress(bytes bool) *progress {
	return &progress{w: a.err, tty: isTerminal(a.err) && os.Getenv("TERM") != "dumb", bytes: bytes}
}

// tell shows that done of total are done of what; total is 0 where nobody knows.
func (p *progress) tell(what string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tty {
		p.line(what, done, total)
		return
	}
	if p.bar == nil || p.what != what {
		p.clear()
		p.what, p.total = what, total
		p.bar = p.newBar(what, total)
	}
	if total != p.total && total > 0 {
		p.total = total
		p.bar.ChangeMax64(total)
	}
	switch {
	case total > 0:
		done = min(done, total)
	case !p.bytes && done > 0:
		p.bar.Describe(what + ": " + counted(done, "event"))
	}
	_ = p.bar.Set64(done) // it can fail only by being beyond the end
}

func (p *progress) newBar(what string, total int64) *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(what), progressbar.OptionThrottle(50 * time.Millisecond),
		progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "█", SaucerPadding: "░", BarStart: "", BarEnd: ""}),
	}
	switch {
	case p.bytes:
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowBytes(true))
	case total > 0:
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"))
	}
	if total <= 0 {
		total = -1
		// Without an interval nothing but tell draws: the bar's own goroutine would go on after end.
		options = append(options, progressbar.OptionSpinnerType(14), progressbar.OptionSetSpinnerChangeInterval(0))
	}
	return progressbar.NewOptions64(total, options...)
}

// line writes a line if the last one is long ago. Caller holds mu.
func (p *progress) line(what string, done, total int64) {
	now := time.Now()
	if p.since.IsZero() || p.what != what {
		p.what, p.since = what, now
		return
	}
	if now.Sub(p.since) < progressEvery {
		return
	}
	p.since = now
	if total > 0 {
		fmt.Fprintf(p.w, "%s: %s of %s (%d %%)\n", what, grouped(done), grouped(total), done*100/max(total, 1))
	} else {
		fmt.Fprintf(p.w, "%s: %s\n", what, grouped(done))
	}
}

// Write writes through to the terminal, above the bar.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
		defer func() { _ = p.bar.RenderBlank() }()
	}
	return p.w.Write(b)
}

// end takes the bar away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Exit()
		_ = p.bar.Clear()
		p.bar = nil
	}
}

// grouped writes a number in groups of three digits.
func grouped(n int64) string {
	digits := fmt.Sprint(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(digits) - 3; i > start; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// counted writes a number and what is counted.
func counted(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return grouped(n) + " " + what
}
