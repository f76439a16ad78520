package eos

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// TestHanging_IsNamedWithItsMend: once offsets have been hidden for longer than any open transaction lasts, and not before.
func TestHanging_IsNamedWithItsMend(t *testing.T) {
	var said bytes.Buffer
	u := &Unit{cfg: Config{Names: Names{Job: "j"}}, log: slog.New(slog.NewTextHandler(&said, nil))}
	hidden, other := fmt.Errorf("fetch: %w", sarama.ErrUnstableOffsetCommit), errors.New("no connection")
	var failures attempts
	u.hanging(hidden, &failures)
	if u.hanging(hidden, &failures); said.Len() > 0 {
		t.Errorf("at once: %s", &said)
	}
	failures.hidden = time.Now().Add(-2 * hangingAfter)
	u.hanging(other, &failures)
	if u.hanging(hidden, &failures); said.Len() > 0 {
		t.Errorf("after another failure: %s", &said)
	}
	failures.hidden = time.Now().Add(-2 * hangingAfter)
	if u.hanging(hidden, &failures); !strings.Contains(said.String(), "find-hanging") || !strings.Contains(said.String(), "level=ERROR") {
		t.Errorf("got %q, want the mend", &said)
	}
}
