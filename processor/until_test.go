package processor

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

const untilJob = `
name: NAME
input: {topic: NAME-events}
totals:
  n: {count: true}
`

// Whoever waits for UntilCaughtUp must be able to tell its end from an interruption.
func TestRun_EndedBeforeItIsCaughtUpSaysSo(t *testing.T) {
	for _, until := range []bool{true, false} {
		j := mustJob(t, mustFake(t), untilJob, 1)
		cfg := j.config()
		cfg.UntilCaughtUp = until
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Run(ctx); errors.Is(err, ErrNotCaughtUp) != until || !until && err != nil {
			t.Errorf("until caught up %v: got %v", until, err)
		}
	}
}

// hears calls when with the first record of that message.
type hears struct {
	slog.Handler
	message string
	when    func()
}

func (h *hears) Enabled(context.Context, slog.Level) bool { return true }

func (h *hears) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.when()
	}
	return nil
}

func TestRun_InterruptedAtWorkSaysSo(t *testing.T) {
	j := mustJob(t, mustFake(t), untilJob, 1)
	j.mustWrite(j.mustClient(), &kgo.Record{Key: []byte("a"), Value: []byte("{}")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg := j.config()
	cfg.Logger = slog.New(&hears{slog.DiscardHandler, "partitions assigned", cancel})
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(ctx); !errors.Is(err, ErrNotCaughtUp) {
		t.Errorf("got %v, want ErrNotCaughtUp", err)
	}
	if got := j.mustRun()["tidemark_events_applied_total"]; got != 1 {
		t.Errorf("the next run applied %v events, want 1", got)
	}
}
