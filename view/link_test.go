package view

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
)

// link is a way to the brokers that can be cut.
type link struct {
	mu    sync.Mutex // guards the fields below
	down  bool
	conns []net.Conn
}

func newLink(t testing.TB) *link {
	l := &link{}
	t.Cleanup(l.cut)
	return l
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errors.New("the link is cut")
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		l.conns = append(l.conns, c)
	}
	return c, err
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
