package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// bareMin is from how many bare reads on some of them must be older than their event, or the reads were no test.
const bareMin = 200

// Why a read was not answered. None of it is a miss; all of it is told.
const (
	unreachable = "unreachable" // down, frozen, or broken off
	notReady    = "not ready"   // 503
	notYet      = "not in time" // 504
)

// TokenReads are the reads that named what was just acknowledged. An ID in an answer is one read, however many of its events were named.
type TokenReads struct {
	Reads  int
	Misses int            // reads that were older than what they named
	Missed map[string]int // the same by transport
	By     map[string]int // reads by form and transport
	// Bare reads named nothing; BareOlder of them were older than the event that was acknowledged before.
	Bare, BareOlder int
	Refused         map[string]int // tokens that had to be, by what they were
	Unavailable     map[string]int // questions without an answer; they were asked again
	GivenUp         int            // events that no view answered for within a minute
	// Took is from the question that was answered to the answer, Until from the first question.
	Took, Until Quantiles
}

// Quantiles of durations.
type Quantiles struct{ P50, P99, Max time.Duration }

func quantiles(all []time.Duration) Quantiles {
	if len(all) == 0 {
		return Quantiles{}
	}
	all = slices.Sorted(slices.Values(all))
	return Quantiles{all[len(all)/2], all[len(all)*99/100], all[len(all)-1]}
}

func (q Quantiles) String() string {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.0f ms", ms(q.P50), ms(q.P99), ms(q.Max))
}

// tally counts what came of reads.
type tally struct {
	blame func(error)

	mu    sync.Mutex // guards the fields below
	reads TokenReads
	took  []time.Duration
	until []time.Duration
}

func newTally(blame func(error)) *tally {
	return &tally{blame: blame, reads: TokenReads{By: map[string]int{}, Missed: map[string]int{}, Refused: map[string]int{}, Unavailable: map[string]int{}}}
}

func (t *tally) wrong(c *client, q *question, what any) {
	t.blame(fmt.Errorf("token read: %s, %v: %v", c.view.task.Instance, q, what))
}

// answered judges an answer.
func (t *tally) answered(c *client, q *question, r *reply, first, asked time.Time, most func(string) uint64) {
	now := time.Now()
	older := q.older(r)
	for _, what := range q.claims(r, most) {
		t.wrong(c, q, what)
	}
	if q.atLeast != "" {
		for _, what := range older {
			t.wrong(c, q, "older than its token: "+what)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.atLeast == "" {
		t.reads.Bare++
		t.reads.BareOlder += len(older)
		return
	}
	n := q.ids()
	t.reads.Reads += n
	t.reads.Misses += len(older)
	t.reads.Missed[q.over] += len(older)
	t.reads.By[q.form+" over "+q.over] += n
	t.took = append(t.took, now.Sub(asked))
	t.until = append(t.until, now.Sub(first))
}

// unavailable takes a question that was not answered, and tells whether it may be asked again: any other error than these is
// wrong.
func (t *tally) unavailable(c *client, q *question, err error) bool {
	why := unreachable
	if code, said := saidNo(err); said {
		switch code {
		case connect.CodeUnavailable:
			why = notReady
		case connect.CodeDeadlineExceeded:
			why = notYet
		default:
			t.wrong(c, q, err)
			return false
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads.Unavailable[why]++
	return true
}

func (t *tally) givenUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reads.GivenUp++
}

// probed judges what a view said to a token that it must refuse. One that is away or not ready says nothing.
func (t *tally) probed(c *client, q *question, what string, want connect.Code, asked time.Time, err error) {
	code, said := saidNo(err)
	switch {
	case err == nil:
		t.wrong(c, q, "answers to a token "+what)
	case !said, code == connect.CodeUnavailable, time.Since(asked) >= answerSlack: // the caller's deadline, which views know
	case code != want:
		t.wrong(c, q, fmt.Errorf("a token %s, want %v: %w", what, want, err))
	default:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.reads.Refused[what]++
	}
}

// count is how many reads there were.
func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reads.Reads
}

// sum ends the tally.
func (t *tally) sum() *TokenReads {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.reads
	r.Took, r.Until = quantiles(t.took), quantiles(t.until)
	return &r
}

// holdTo blames what shows that there was no test.
func (r *TokenReads) holdTo(cfg *Config, blame func(error)) {
	if r.Reads < cfg.TokenReads {
		blame(fmt.Errorf("%d token reads, want %d", r.Reads, cfg.TokenReads))
	}
	if r.GivenUp > 0 {
		blame(fmt.Errorf("no view answered %d reads within %v each", r.GivenUp, readWithin))
	}
	if r.Bare >= bareMin && r.BareOlder == 0 {
		blame(fmt.Errorf("none of %d reads without a token was older than its event: the views were not behind, and tokens not tried", r.Bare))
	}
	for _, what := range []string{wrongPartition, earlierTopic, notWritten} {
		if r.Refused[what] == 0 {
			blame(fmt.Errorf("no token %s was tried", what))
		}
	}
}

func (r *TokenReads) print(w io.Writer) {
	fmt.Fprintf(w, "  token reads   %d, older than their token %d; %v\n", r.Reads, r.Misses, r.Took)
	for _, by := range slices.Sorted(maps.Keys(r.By)) {
		fmt.Fprintf(w, "    %-19s %d\n", by, r.By[by])
	}
	fmt.Fprintf(w, "    from the first question, asked again where need be: %v\n", r.Until)
	fmt.Fprintf(w, "    without a token %d of %d were older than their event\n", r.BareOlder, r.Bare)
	fmt.Fprintf(w, "    not answered, and asked again: %d %v; given up %d\n", sum(r.Unavailable), r.Unavailable, r.GivenUp)
	for _, what := range slices.Sorted(maps.Keys(r.Refused)) {
		fmt.Fprintf(w, "    refused tokens %s: %d\n", what, r.Refused[what])
	}
}
