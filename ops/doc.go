// Package ops is what operators do to a job: read its table, write into its input, prove its state, look after its
// topics. Each verb has a file and returns a report. Nothing here prints, reads flags, files or the environment, or
// knows what the terminal looks like.
package ops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// Problem is something that the caller can mend: what is wrong, and how.
type Problem struct {
	What, Mend string
	Err        error // the cause where callers may ask for it; it is not printed again
}

// Error gives both in one line.
func (p *Problem) Error() string { return p.What + ": " + p.Mend }

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Progress is told how far a verb is. total is 0 where nobody knows.
type Progress func(done, total int64)

func (p Progress) tell(done, total int64) {
	if p != nil {
		p(done, total)
	}
}

// Job is a job in a cluster, as the verbs that read it need it.
type Job struct {
	Kafka  *eos.Kafka
	Names  eos.Names
	Input  string
	Schema *codecs.Schema
	// TempDir is where a verb keeps what outgrows memory, while it works; empty is the system's.
	TempDir string
}

// Reach waits until a broker answers, at most patience. Its error names the brokers and the last cause.
func Reach(ctx context.Context, k *eos.Kafka, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl, err := kgo.NewClient(k.Franz()...)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer cl.Close()
	var last error
	for {
		attempt, end := context.WithTimeout(ctx, patience/2)
		err := cl.Ping(attempt)
		end()
		if err == nil {
			return nil
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		if final := refusedLogin(err); final != nil {
			return final
		}
		select {
		case <-ctx.Done():
			return &Unreachable{Brokers: k.Brokers, Err: last}
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Unreachable says that no broker answered.
type Unreachable struct {
	Brokers []string
	Err     error
}

// Error names the brokers and the cause.
func (u *Unreachable) Error() string {
	return fmt.Sprintf("no broker of %s answers: %v: is Kafka up there, and do --tls and --sasl-… fit it?", strings.Join(u.Brokers, ", "), u.Err)
}

// Unwrap gives the cause.
func (u *Unreachable) Unwrap() error { return u.Err }
