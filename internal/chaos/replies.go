package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
)

// commitRequests are the requests of a commit by their API keys.
var commitRequests = map[uint16]string{0: "Produce", 24: "AddPartitionsToTxn", 25: "AddOffsetsToTxn", 26: "EndTxn", 28: "TxnOffsetCommit"}

const replyLost = "reply lost" // in the log

var errReplyLost = errors.New("the connection broke before the reply was read")

// replies loses a share of the replies to the requests of commits: the broker has done what it was asked for, and the
// connection breaks before anybody hears of it.
type replies struct {
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	share float64
	log   *slog.Logger
	seed  uint64
	conns atomic.Uint64
}

func (r *replies) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := r.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &losingConn{Conn: conn, replies: r, rng: rand.New(rand.NewPCG(r.seed^uint64(os.Getpid()), r.conns.Add(1)))}, nil
}

// losingConn is one connection. The clients write a request in one piece, which begins with its size (4 bytes) and its key (2).
type losingConn struct {
	net.Conn
	replies *replies
	rng     *rand.Rand             // of Write, which one goroutine calls at a time
	losing  atomic.Pointer[string] // the request whose reply gets lost
}

func (c *losingConn) Write(b []byte) (int, error) {
	if len(b) > 6 {
		name, ok := commitRequests[binary.BigEndian.Uint16(b[4:])]
		if ok && c.rng.Float64() < c.replies.share {
			c.losing.Store(&name)
		}
	}
	return c.Conn.Write(b)
}

func (c *losingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if name := c.losing.Load(); name != nil && err == nil {
		c.replies.log.Info(replyLost, "request", *name)
		return 0, errors.Join(errReplyLost, c.Close())
	}
	return n, err
}
