package eos

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// endTxn is the API key of EndTxn.
const endTxn = 26

// request is one kind of request of a processor to its brokers, and which of them a test comes upon.
type request struct {
	name string
	key  int16
	at   int64
}

// requests are those on which membership and commits stand.
var requests = []request{
	{"JoinGroup", 11, 2}, // the first is answered with a member id alone
	{"SyncGroup", 14, 1},
	{"Heartbeat", 12, 2},
	{"InitProducerId", 22, lanes}, // of a session's last producer
	{"TxnOffsetCommit", 28, 3},
	{"Produce", 0, 3},
	{"EndTxn", endTxn, 3},
}

// announcements are the requests more that clusters want before transaction.version 2.
var announcements = []request{{"AddPartitionsToTxn", 24, 3}, {"AddOffsetsToTxn", 25, 3}}

// intercept does something at requests of one kind, just before they are sent or just after the reply has arrived. The clients
// write a request in one piece, which begins with its size (4 bytes) and its key (2).
type intercept struct {
	key   int16
	reply bool
	when  func(request []byte) bool // whether to, at each of that kind
	do    func(net.Conn) error
	done  atomic.Int64
}

// once is true of the nth.
func once(nth int64) func([]byte) bool {
	var seen atomic.Int64
	return func([]byte) bool { return seen.Add(1) == nth }
}

var errCut = errors.New("the connection was cut")

// cutOff loses what the connection carries.
func cutOff(conn net.Conn) error { return errors.Join(errCut, conn.Close()) }

// on has all connections of a unit intercepted.
func (i *intercept) on(cfg *Config) {
	k := *cfg.Kafka
	k.Dial = i.dial
	cfg.Kafka = &k
}

func (i *intercept) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &intercepted{Conn: conn, of: i}, nil
}

type intercepted struct {
	net.Conn
	of      *intercept
	waiting atomic.Bool // for the reply
}

func (c *intercepted) Write(b []byte) (int, error) {
	if len(b) > 6 && int16(binary.BigEndian.Uint16(b[4:])) == c.of.key && c.of.when(b) {
		if c.of.reply {
			c.waiting.Store(true)
		} else if err := c.act(); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

func (c *intercepted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.waiting.CompareAndSwap(true, false) {
		if err := c.act(); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (c *intercepted) act() error {
	c.of.done.Add(1)
	return c.of.do(c.Conn)
}

// eachRequest runs a test for each request, before it and after its reply: on a cluster of today, and the announcements on one
// that wants them.
func eachRequest(t *testing.T, test func(t *testing.T, brokers []string, r request, reply bool)) {
	run := func(brokers []string, requests []request) {
		for _, r := range requests {
			for side, reply := range map[string]bool{"request": false, "reply": true} {
				t.Run(r.name+"/"+side, func(t *testing.T) {
					t.Parallel()
					test(t, brokers, r, reply)
				})
			}
		}
	}
	run(kafkatest.Shared(t), requests)
	run(kafkatest.MustCluster(t, olderTransactions).Addrs(), announcements)
}

// freezeAtRequest stops the process just before its nth request of a kind, or just after the reply.
func freezeAtRequest(cfg *Config, name string, reply bool, at int64) {
	// Neither the broker nor the session's end may end for us what the freeze interrupts.
	cfg.TransactionTimeout, cfg.lastCommits = time.Minute, time.Minute
	for _, r := range append(announcements, requests...) {
		if r.name == name {
			i := &intercept{key: r.key, reply: reply, when: once(at), do: func(net.Conn) error { freezeHere(); return nil }}
			i.on(cfg)
		}
	}
}

// A process stops at a request while another takes over from it, and then goes on. What it still sends is refused, it joins
// again, and the two share the work.
func TestUnit_FrozenAtEachRequestAndOvertakenCountsOnce(t *testing.T) {
	eachRequest(t, func(t *testing.T, brokers []string, r request, reply bool) {
		w := newWorld(t, brokers, 2)
		w.produce(100, 20)
		side := "request"
		if reply {
			side = "reply"
		}
		z := w.freezeChildBy(r.name, int(r.at), crashRequest+"="+side)
		cfg := w.config("heir", t.TempDir())
		shortWaits(&cfg)
		heir, stop := w.run(cfg)
		w.caughtUp(heir)
		w.produce(100, 20)
		w.caughtUp(heir)
		z.goOn()
		w.feedUntil(func() {
			eventually(t, time.Minute, "the thawed one works again", func() bool { return len(heir.Status()) == 1 })
		})
		w.caughtUp(heir)
		if err := z.cmd.Process.Kill(); err != nil {
			t.Fatalf("kill: %v", err)
		}
		eventually(t, time.Minute, "take over again", func() bool { return len(heir.Status()) == int(w.partitions) })
		w.caughtUp(heir)
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		w.check()
	})
}

// A request is lost on its way, or the reply is, after the broker has done what it was asked for.
func TestUnit_EachRequestOrReplyLostOnceCountsOnce(t *testing.T) {
	eachRequest(t, func(t *testing.T, brokers []string, r request, reply bool) {
		w := newWorld(t, brokers, 2)
		w.produce(100, 20)
		i := &intercept{key: r.key, reply: reply, when: once(r.at), do: cutOff}
		cfg := w.config("a", t.TempDir())
		shortWaits(&cfg)
		i.on(&cfg)
		u, stop := w.run(cfg)
		w.feedUntil(func() { eventually(t, time.Minute, "lose it", func() bool { return i.done.Load() == 1 }) })
		w.caughtUp(u)
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		w.check()
	})
}
