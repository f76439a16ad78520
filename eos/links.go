package eos

import (
	"context"
	"errors"
	"net"
	"sync"
)

// links are the connections of the group's client. sarama's requests know no context: its heartbeats and the looking up of
// leaders wait for a broker that is silent, one timeout after the other, and a stop would wait for them, for minutes. Cut, they
// fail at once.
type links struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	mu   sync.Mutex // guards the fields below
	open map[*link]struct{}
	over bool
}

type link struct {
	net.Conn
	of *links
}

var errLinksCut = errors.New("the processor stops")

func newLinks(dial func(ctx context.Context, network, address string) (net.Conn, error)) *links {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &links{dial: dial, open: map[*link]struct{}{}}
}

// Dial is Kafka.Dial.
func (l *links) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, errors.Join(errLinksCut, conn.Close())
	}
	k := &link{conn, l}
	l.open[k] = struct{}{}
	return k, nil
}

// Close ends the connection.
func (k *link) Close() error {
	k.of.mu.Lock()
	delete(k.of.open, k)
	k.of.mu.Unlock()
	return k.Conn.Close()
}

// cut ends all connections, and lets none be made any more.
func (l *links) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for k := range l.open {
		_ = k.Conn.Close() // what waits for it is told
		delete(l.open, k)
	}
}
