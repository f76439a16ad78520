package guard

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/netutil"

	"github.com/tidemark/tidemark/view"
)

// Listener bounds the connections that are open at once. Beyond most of one address, a connection is closed at once; beyond
// all, those that come wait. Zero is no bound.
func Listener(l net.Listener, all, most int) net.Listener {
	if all > 0 {
		l = netutil.LimitListener(l, all)
	}
	if most > 0 {
		l = &perAddress{Listener: l, most: most, open: map[netip.Addr]int{}}
	}
	return l
}

// perAddress turns away connections of addresses that have many.
type perAddress struct {
	net.Listener
	most int

	mu   sync.Mutex // guards open
	open map[netip.Addr]int
}

// Accept implements net.Listener.
func (p *perAddress) Accept() (net.Conn, error) {
	for {
		conn, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := view.AddressOf(conn.RemoteAddr().String())
		if p.enter(addr) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { p.leave(addr) })}, nil
		}
		_ = conn.Close() // nobody is told: whoever has so many connections knows
	}
}

func (p *perAddress) enter(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[addr] >= p.most {
		return false
	}
	p.open[addr]++
	return true
}

func (p *perAddress) leave(addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[addr]--; p.open[addr] == 0 {
		delete(p.open, addr)
	}
}

type counted struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
