// Package lane answers the plainest HTTP/1.1 requests itself, at a third of what net/http's server costs, and leaves all
// others to that server. It knows nothing of what is asked for.
//
// A connection is in the lane for as long as each of its requests is a GET below one path, or one of some POSTs to another,
// in the strict form of request.go, and arrives whole with one read, the first bytes of a further one aside. The first one
// that is anything else is handed, with the connection and every byte that was read and not answered, to whoever accepts
// from the Lane, and never comes back. So nothing has to be understood here that is not certain: chunks, an upgrade, HTTP/2,
// a header that is odd or comes in pieces are net/http's business. Requests go to the same handler as there, as the same
// http.Request, and are answered alike.
//
// request.go reads, response.go writes.
package lane

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a Lane. All but the limits and ErrorLog must be set.
type Config struct {
	Handler http.Handler
	Context context.Context // of all requests
	// Prefix begins the paths of the GETs that are answered in the lane, and TakesQuery tells which queries they may have
	// besides none. Post is the path of the POSTs, which have no query, and TakesBody tells which bodies. What the handler does for them must not wait for anything, because it does not hear
	// that the caller has gone, and must not stream.
	Prefix, Post string
	TakesQuery   func(string) bool
	TakesBody    func([]byte) bool

	// 0 is no limit. Of the last two up to a quarter may be missing.
	FirstTimeout time.Duration // until the first byte of a connection
	IdleTimeout  time.Duration // from one request to the next
	WriteTimeout time.Duration // for an answer

	ErrorLog *log.Logger // of handlers that panic; nil: none
}

// Lane is a listener. Its Accept gives those connections that have left the lane.
type Lane struct {
	net.Listener
	cfg   Config
	start sync.Once
	left  chan net.Conn
	ended chan struct{} // accepting has ended
	fault error         // why; after ended

	closing atomic.Bool
	mu      sync.Mutex // guards open, and what enters or leaves it
	open    map[*conn]struct{}
	gone    sync.WaitGroup // of those that are open
}

// New puts a lane before a listener.
func New(l net.Listener, cfg Config) *Lane {
	return &Lane{Listener: l, cfg: cfg, left: make(chan net.Conn), ended: make(chan struct{}), open: map[*conn]struct{}{}}
}

// Accept implements net.Listener.
func (l *Lane) Accept() (net.Conn, error) {
	l.start.Do(func() { go l.accept() })
	select {
	case c := <-l.left:
		return c, nil
	case <-l.ended:
		return nil, l.fault
	}
}

// accept ends with the listener.
func (l *Lane) accept() {
	defer close(l.ended)
	for delay := time.Duration(0); ; {
		nc, err := l.Listener.Accept()
		if err == nil {
			delay = 0
			l.enter(nc)
			continue
		}
		var temporary interface{ Temporary() bool } // no more file descriptors, above all; net/http goes on likewise
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			l.fault = err
			return
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		time.Sleep(delay)
	}
}

func (l *Lane) enter(nc net.Conn) {
	c := &conn{lane: l, Conn: nc}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing.Load() {
		_ = nc.Close()
		return
	}
	l.open[c] = struct{}{}
	l.gone.Go(c.run)
}

// leave is true where the lane is not closing.
func (l *Lane) leave(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	return !l.closing.Load()
}

// closeWithin is how long the answers under way may take at the end.
const closeWithin = time.Second

// Close ends listening and every connection that waits for a request, and returns when the answers under way are written.
func (l *Lane) Close() error {
	l.mu.Lock()
	l.closing.Store(true)
	for c := range l.open {
		c.hurry()
	}
	l.mu.Unlock()
	err := l.Listener.Close()
	l.gone.Wait()
	return err
}

// bufferBytes is the longest request that the lane reads, and what a connection that waits costs.
const bufferBytes = 4096

// conn is a connection in the lane.
type conn struct {
	net.Conn
	lane  *Lane
	base  *http.Request // what all requests of the connection have in common
	armed time.Time     // when the deadlines were set
	body  bytes.Reader  // of the request under way
}

func (c *conn) run() {
	rest, leaves := c.serve()
	if goesOn := c.lane.leave(c); leaves && goesOn && c.SetDeadline(time.Time{}) == nil {
		select {
		case c.lane.left <- &handed{c.Conn, rest}:
			return
		case <-c.lane.ended:
		}
	}
	_ = c.Conn.Close()
}

// serve answers until the connection ends, or until it leaves the lane with what was read and not answered.
func (c *conn) serve() (rest []byte, leaves bool) {
	ctx, cancel := context.WithCancel(context.WithValue(c.lane.cfg.Context, http.LocalAddrContextKey, c.LocalAddr()))
	defer cancel()
	c.base = (&http.Request{
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: c.RemoteAddr().String(),
	}).WithContext(ctx)
	_ = c.SetReadDeadline(after(time.Now(), c.lane.cfg.FirstTimeout))
	if c.lane.closing.Load() {
		return nil, false
	}
	buf := make([]byte, bufferBytes)
	for begun, posted, least := buf[:0], false, 1; ; least = leastBytes {
		if len(begun) < least {
			n, err := io.ReadAtLeast(c, buf[copy(buf, begun):], least-len(begun))
			if err != nil {
				return nil, false
			}
			begun = buf[:len(begun)+n]
		}
		if posted {
			begun = begun[lineBreaks(begun):]
		}
		r, length := c.parse(begun)
		if r == nil {
			return begun, true
		}
		if !c.answer(r) {
			return nil, false
		}
		begun, posted = begun[length:], r.Method == http.MethodPost
	}
}

// leastBytes is how much net/http waits for behind an answered request, before it reads a further one or passes over line
// breaks. It ends a connection without a word that ends with less.
const leastBytes = 4

// lineBreaks is how many bytes net/http passes over that some clients send behind the body of a POST.
func lineBreaks(b []byte) (n int) {
	for n < min(len(b), leastBytes) && (b[n] == '\r' || b[n] == '\n') {
		n++
	}
	return n
}

// answer is false where the connection has ended.
func (c *conn) answer(r *http.Request) (goesOn bool) {
	now := time.Now()
	c.arm(now)
	out := responses.Get().(*response)
	defer responses.Put(out)
	out.reset()
	if !c.handle(out, r) {
		return false
	}
	_, err := c.Write(out.bytes(now))
	return err == nil && !out.closes && !c.lane.closing.Load()
}

// arm moves the deadlines on, where a quarter of either has gone: to set them costs as much as a read of LevelDB. A
// connection on which that fails says so at the next read or write.
func (c *conn) arm(now time.Time) {
	cfg := &c.lane.cfg
	if !c.armed.IsZero() && now.Sub(c.armed) < min(cfg.IdleTimeout, cfg.WriteTimeout)/4 {
		return
	}
	c.armed = now
	_, _ = c.SetReadDeadline(after(now, cfg.IdleTimeout)), c.SetWriteDeadline(after(now, cfg.WriteTimeout))
	if c.lane.closing.Load() { // which has set others just before
		c.hurry()
	}
}

// after is when a limit is over, never for 0.
func after(now time.Time, limit time.Duration) time.Time {
	if limit == 0 {
		return time.Time{}
	}
	return now.Add(limit)
}

// hurry ends waiting for a request, and bounds the writing of an answer.
func (c *conn) hurry() {
	_, _ = c.SetReadDeadline(time.Unix(1, 0)), c.SetWriteDeadline(time.Now().Add(closeWithin))
}

// handle is false where the handler panicked, after which the connection is cut.
func (c *conn) handle(out *response, r *http.Request) (ok bool) {
	defer func() {
		if ok {
			return
		}
		if err := recover(); err != http.ErrAbortHandler && c.lane.cfg.ErrorLog != nil {
			c.lane.cfg.ErrorLog.Printf("http: panic serving %v: %v\n%s", r.RemoteAddr, err, debug.Stack())
		}
	}()
	c.lane.cfg.Handler.ServeHTTP(out, r)
	c.body.Reset(nil)
	return true
}

// handed is a connection that has left the lane.
type handed struct {
	net.Conn
	rest []byte // to be read first
}

// Read implements net.Conn.
func (h *handed) Read(p []byte) (int, error) {
	if len(h.rest) == 0 {
		return h.Conn.Read(p)
	}
	n := copy(p, h.rest)
	if h.rest = h.rest[n:]; len(h.rest) == 0 {
		h.rest = nil
	}
	return n, nil
}
