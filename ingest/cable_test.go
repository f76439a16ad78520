package ingest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// cable is the way to the brokers. It can be held, so that what brokers say does not arrive, and torn.
type cable struct {
	mu    sync.Mutex // guards what follows
	held  chan struct{}
	torn  bool
	conns map[*cableConn]bool
	// answered, if set, is asked before each answer is passed on; false cuts the connection instead.
	answered func() bool
}

func newCable() *cable { return &cable{conns: map[*cableConn]bool{}} }

type cableConn struct {
	net.Conn
	cable *cable
	gone  chan struct{}
	once  sync.Once
}

func (c *cable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.torn {
		return nil, errors.Join(errors.New("the cable is torn"), conn.Close())
	}
	cc := &cableConn{Conn: conn, cable: c, gone: make(chan struct{})}
	c.conns[cc] = true
	return cc, nil
}

// set has answered asked for each answer.
func (c *cable) set(answered func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered = answered
}

// hold keeps what brokers say from arriving, until release.
func (c *cable) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = make(chan struct{})
}

func (c *cable) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.held)
	c.held = nil
}

// tear cuts all connections, and lets no other be made.
func (c *cable) tear() {
	c.mu.Lock()
	conns := c.conns
	c.torn, c.conns = true, map[*cableConn]bool{}
	c.mu.Unlock()
	for conn := range conns {
		_ = conn.Close()
	}
}

// mend lets connections be made again.
func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.torn = false
}

func (c *cableConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, err
	}
	c.cable.mu.Lock()
	held, answered := c.cable.held, c.cable.answered
	c.cable.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-c.gone:
			return 0, net.ErrClosed
		}
	}
	if answered != nil && !answered() {
		return 0, errors.Join(io.ErrUnexpectedEOF, c.Close())
	}
	return n, nil
}

func (c *cableConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}
