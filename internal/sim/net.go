package sim

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Process is one end of the network as a client process has it: killing it cuts all its connections for ever, freezing
// it holds back everything that it sends and receives, as SIGSTOP does.
type Process struct {
	name string
	c    *Cluster

	mu     sync.Mutex // guards the fields below
	cond   *sync.Cond
	dead   bool
	frozen bool
	conns  map[*conn]bool
}

var errDead = errors.New("sim: the process is dead")

// NewProcess puts a process on the cluster's network.
func (c *Cluster) NewProcess(name string) *Process {
	p := &Process{name: name, c: c, conns: map[*conn]bool{}}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// Dial connects to a broker by its address; it fits eos.Kafka.
func (p *Process) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.c.sleep(p.c.faults.latency(p.c))
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.dead:
		return nil, errDead
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	client, server := newPair(p)
	if err := p.c.accept(address, server, p.name); err != nil {
		return nil, err
	}
	p.conns[client] = true
	return client, nil
}

// Kill cuts the process off. What it had sent may still arrive, or not: in is asked for each connection.
func (p *Process) Kill(arrives func() bool) {
	p.mu.Lock()
	p.dead, p.frozen = true, false
	p.cond.Broadcast()
	conns := p.conns
	p.conns = map[*conn]bool{}
	p.mu.Unlock()
	for _, c := range sortedConns(conns) {
		if !arrives() {
			c.out.drop()
		}
		_ = c.Close()
	}
}

// Freeze stops and Thaw restarts everything between the process and the brokers.
func (p *Process) Freeze() { p.setFrozen(true) }

// Thaw ends a freeze.
func (p *Process) Thaw() { p.setFrozen(false) }

func (p *Process) setFrozen(v bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = v && !p.dead
	p.cond.Broadcast()
}

// waitThawed returns when the process is not frozen.
func (p *Process) waitThawed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.frozen {
		p.cond.Wait()
	}
}

func (p *Process) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// conn is one end of a connection in memory. Unlike net.Pipe it buffers, so that a client may die with a request sent.
type conn struct {
	in, out *stream
	process *Process // nil at the broker's end
	id      int64
}

func newPair(p *Process) (client, server *conn) {
	up, down := newStream(), newStream()
	id := p.c.connIDs.Add(1)
	return &conn{in: down, out: up, process: p, id: id}, &conn{in: up, out: down, id: id}
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	if c.process != nil {
		c.process.waitThawed()
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	if c.process != nil {
		c.process.waitThawed()
	}
	return c.out.write(b)
}

func (c *conn) Close() error {
	c.in.close()
	c.out.close()
	if c.process != nil {
		c.process.forget(c)
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return address("sim") }
func (c *conn) RemoteAddr() net.Addr { return address("sim") }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error  { return nil } // writes never wait

type address string

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }

// stream is one direction of a connection.
type stream struct {
	mu       sync.Mutex // guards the fields below
	cond     *sync.Cond
	buf      []byte
	closed   bool
	expired  bool
	deadline *time.Timer
}

func newStream() *stream {
	s := &stream{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == 0 {
		switch {
		case s.closed:
			return 0, io.EOF
		case s.expired:
			return 0, os.ErrDeadlineExceeded
		}
		s.cond.Wait()
	}
	n := copy(b, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

func (s *stream) write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.buf = append(s.buf, b...)
	s.cond.Broadcast()
	return len(b), nil
}

// close lets the other end read what is there first.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.deadline != nil {
		s.deadline.Stop()
	}
	s.cond.Broadcast()
}

func (s *stream) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = nil
}

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadline != nil {
		s.deadline.Stop()
		s.deadline = nil
	}
	s.expired = false
	if t.IsZero() || s.closed {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		s.expired = true
		s.cond.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.deadline == timer {
			s.expired = true
			s.cond.Broadcast()
		}
	})
	s.deadline = timer
}
