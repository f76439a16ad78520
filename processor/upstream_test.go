package processor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kgo"
)

const countJob = `name: NAME
input: {topic: NAME-events, id: event.id, time: event.time}
totals:
  sum: {sum: event.value}
flags:
  ten: {when: "totals.sum >= 10"}
`

// upstream is a number of transactional producers of one job's input, and what they have committed.
type upstream struct {
	j       *job
	clients []*kgo.Client
	open    []map[string]int // nil: no transaction
	want    map[string]int
	rng     *rand.Rand
}

func mustUpstream(j *job, n int) *upstream {
	seed := rand.Uint64()
	j.t.Logf("seed %d", seed)
	u := &upstream{j: j, open: make([]map[string]int, n), want: map[string]int{}, rng: rand.New(rand.NewPCG(seed, 0))}
	for i := range n {
		u.clients = append(u.clients, j.mustClient(kgo.TransactionalID(fmt.Sprintf("%s-up%d", j.names.Job, i)), kgo.TransactionTimeout(time.Minute)))
	}
	return u
}

// write sends records into the producer's open transaction, begun if there is none.
func (u *upstream) write(i int) {
	if u.open[i] == nil {
		if err := u.clients[i].BeginTransaction(); err != nil {
			u.j.t.Fatalf("begin: %v", err)
		}
		u.open[i] = map[string]int{}
	}
	u.j.mustWrite(u.clients[i], u.events(u.open[i])...)
}

func (u *upstream) events(count map[string]int) []*kgo.Record {
	var records []*kgo.Record
	for range 1 + u.rng.IntN(8) {
		id := fmt.Sprint("id-", u.rng.IntN(40))
		records = append(records, &kgo.Record{Key: []byte(id), Value: event(id, "1", "")})
		count[id]++
	}
	return records
}

func (u *upstream) end(i int, commit kgo.TransactionEndTry) {
	u.j.t.Helper()
	if err := u.clients[i].EndTransaction(u.j.t.Context(), commit); err != nil {
		u.j.t.Fatalf("end of a transaction: %v", err)
	}
	if commit == kgo.TryCommit {
		for id, n := range u.open[i] {
			u.want[id] += n
		}
	}
	u.open[i] = nil
}

// work interleaves transactions of all producers, committed and aborted, and records outside of any.
func (u *upstream) work(steps int) {
	plain := u.j.mustClient()
	for range steps {
		i := u.rng.IntN(len(u.clients) + 1)
		switch {
		case i == len(u.clients):
			u.j.mustWrite(plain, u.events(u.want)...)
		case u.open[i] != nil && u.rng.IntN(3) == 0:
			u.end(i, kgo.TransactionEndTry(u.rng.IntN(2) == 0))
		default:
			u.write(i)
		}
	}
}

func (u *upstream) check(when string) {
	u.j.t.Helper()
	states := u.j.table()
	for id, n := range u.want {
		if st := states[id]; st == nil || st.Count != uint64(n) || u.j.total(st, "sum") != fmt.Sprint(n) {
			u.j.t.Errorf("%s: %s: got %+v, want %d events", when, id, st, n)
		}
	}
	if len(states) != len(u.want) {
		u.j.t.Errorf("%s: got %d IDs, want %d", when, len(states), len(u.want))
	}
}

func TestProcessor_CountsOnlyWhatUpstreamTransactionsCommitted(t *testing.T) {
	j := mustJob(t, kafkatest.Shared(t), countJob, 2)
	u := mustUpstream(j, 3)
	u.work(60)
	for i := range u.clients {
		if u.open[i] != nil {
			u.end(i, kgo.TryCommit)
		}
	}
	j.mustRun()
	u.check("markers of commits at the tail")

	for range 3 {
		u.write(0)
		u.end(0, kgo.TryAbort)
	}
	j.mustRun()
	u.check("aborted records at the tail")

	u.work(60)
	for i := range u.clients {
		if u.open[i] == nil {
			u.write(i)
		}
	}
	u.end(0, kgo.TryAbort)
	u.end(1, kgo.TryCommit) // the third's is open, and hides what was committed behind it
	j.mustRun()
	r := j.mustStart()
	r.waitLevel("below an open transaction")
	u.end(2, kgo.TryCommit)
	r.waitFor("the events of the transaction that was open", func(m map[string]float64) bool {
		return j.committedEvents() == u.total()
	})
	r.waitLevel("with a marker at the tail")
	r.stop()
	u.check("after the open transaction")
}

func (u *upstream) total() (n int) {
	for _, c := range u.want {
		n += c
	}
	return n
}

func (j *job) committedEvents() (n int) {
	for _, st := range j.table() {
		n += int(st.Count)
	}
	return n
}

// running is a processor at work.
type running struct {
	j        *job
	registry *prometheus.Registry
	cancel   context.CancelFunc
	done     chan error
}

func (j *job) mustStart() *running {
	j.t.Helper()
	r := &running{j: j, registry: prometheus.NewRegistry(), done: make(chan error, 1)}
	cfg := j.config()
	cfg.UntilCaughtUp, cfg.Metrics = false, r.registry
	p, err := New(cfg)
	if err != nil {
		j.t.Fatalf("new: %v", err)
	}
	ctx, cancel := context.WithCancel(j.t.Context())
	r.cancel = cancel
	go func() { r.done <- p.Run(ctx) }()
	return r
}

func (r *running) stop() {
	r.j.t.Helper()
	r.cancel()
	if err := <-r.done; err != nil {
		r.j.t.Errorf("run: %v", err)
	}
}

// waitFor polls the metrics.
func (r *running) waitFor(what string, ok func(map[string]float64) bool) {
	r.j.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		m := gather(r.j.t, r.registry)
		if ok(m) {
			return
		}
		if time.Now().After(deadline) {
			r.j.t.Fatalf("%s: not in time: %v", what, m)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitLevel waits until all partitions are owned and nothing is waiting in any of them.
func (r *running) waitLevel(when string) {
	r.j.t.Helper()
	r.waitFor("no lag "+when, func(m map[string]float64) bool {
		_, owned := m["tidemark_lag_records"]
		return owned && m["tidemark_recovery_ratio"] == float64(r.j.partitions) && m["tidemark_lag_records"] == 0 && m["tidemark_lag_seconds"] == 0
	})
}
