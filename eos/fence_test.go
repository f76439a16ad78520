package eos

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/IBM/sarama"
	"github.com/tidemark/tidemark/internal/kafkatest"
)

// logText is a log that can be read while it is written.
type logText struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logText) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A member that dies in the middle of a commit leaves a transaction open on the offsets of its partitions.
func TestUnit_TakesOverInOneJoinWhatAnOpenTransactionHides(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for name, late := range map[string]bool{"fenced before the plan": false, "control: fenced by recovery": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, brokers, 2)
			var log logText
			cfg := w.config("a", t.TempDir())
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			cfg.weak.lateFence = late
			u, stop := w.run(cfg)
			w.produce(10, 20)
			w.caughtUp(u)
			z := w.freezeChild("before EndTxn", 2, "") // and nothing but fencing ends its transaction
			if err := z.cmd.Process.Kill(); err != nil {
				t.Fatalf("kill: %v", err)
			}
			w.produce(10, 20)
			w.caughtUp(u)
			if err := stop(); err != nil {
				t.Fatalf("stop: %v", err)
			}
			w.check()
			if again := strings.Contains(log.String(), sarama.ErrUnstableOffsetCommit.Error()); again != late {
				t.Errorf("joined again because of unstable offsets: %v, want %v\n%s", again, late, log.String())
			}
		})
	}
}
