package eos

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// endTxnKey is the API key of EndTxn; a request begins with its size (4 bytes) and its key (2 bytes).
const endTxnKey = 26

// cutter cuts connections at EndTxn: the request gets lost, or its answer does.
type cutter struct {
	answer bool // the answer is what gets lost
	armed  atomic.Bool
	cuts   atomic.Int64
}

type cutConn struct {
	net.Conn
	c   *cutter
	end atomic.Bool // EndTxn was sent: what comes back is lost
}

var errCut = errors.New("the connection was cut")

func (c *cutter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, c: c}, nil
}

func (c *cutConn) Write(b []byte) (int, error) {
	if c.c.armed.Load() && len(b) > 6 && b[4] == 0 && b[5] == endTxnKey {
		c.c.cuts.Add(1)
		if !c.c.answer {
			return 0, errors.Join(errCut, c.Conn.Close())
		}
		c.end.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.end.Load() {
		return 0, errors.Join(errCut, c.Conn.Close())
	}
	return n, err
}

// uncertain runs a unit whose second commit ends in doubt, and lets it go on or stop.
func uncertain(t *testing.T, w *world, answer bool, weak weakness) (u *Unit, stop func() error, c *cutter) {
	t.Helper()
	c = &cutter{answer: answer}
	w.produce(2000, 2000) // every key once: no later commit repeats what one left out
	cfg := w.config("a", t.TempDir())
	k := *w.kafka
	k.Dial = c.dial
	cfg.Kafka, cfg.weak = &k, weak
	cfg.TransactionTimeout, cfg.BatchRecordsMax, cfg.CatchUpLag = 2*time.Second, 20, 1<<40
	var commits atomic.Int64
	cfg.Trace = func(step string) {
		switch step {
		case "before EndTxn":
			if commits.Add(1) == 2 {
				c.armed.Store(true)
			}
		case "cut", "recovered": // the next try
			c.armed.Store(false)
		}
	}
	u, stop = w.run(cfg)
	return u, stop, c
}

func TestProtect_ACommitInDoubtIsGivenUpAndReadBack(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for name, answer := range map[string]bool{"request lost": false, "answer lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, brokers, 2)
			u, stop, c := uncertain(t, w, answer, weakness{})
			w.caughtUp(u)
			if err := stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if c.cuts.Load() == 0 {
				t.Errorf("no EndTxn was cut off")
			}
			w.check()
		})
	}
}

// Control: the session goes on with what it has in memory.
func TestProtect_GoingOnAfterACommitInDoubtLosesRecords(t *testing.T) {
	w := newWorld(t, kafkatest.Shared(t), 2)
	_, stop, c := uncertain(t, w, false, weakness{goOn: true})
	eventually(t, time.Minute, "cut off", func() bool { return c.cuts.Load() > 0 })
	_ = stop()
	u, stop := w.run(w.config("a", t.TempDir()))
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if len(w.faults()) == 0 {
		t.Errorf("nothing was lost; this test cannot show what giving up is for")
	}
}

// Control: LevelDB has the values of a transaction that was aborted.
func TestProtect_LocalStateWrittenBeforeTheCommitIsWrong(t *testing.T) {
	w := newWorld(t, kafkatest.Shared(t), 2)
	u, stop, _ := uncertain(t, w, false, weakness{flushFirst: true})
	eventually(t, time.Minute, "a fail-stop", func() bool { return u.Err() != nil })
	var stopped *FailStop
	if !errors.As(u.Err(), &stopped) {
		t.Errorf("stopped for %v, want a fail-stop: state and offsets do not agree", u.Err())
	}
	_ = stop()
}
