package hostile

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// tally counts what an attack did.
type tally struct {
	name          string
	tried, turned atomic.Int64 // away: refused, or hung up on
}

// attack is one way to be hostile. Each comes from an address of its own.
type attack struct {
	name  string
	sides int
	run   func(ctx context.Context, s *subject, count *tally, side int)
}

// The attacks. Each is paced: they share the machine with the view.
var attacks = []attack{
	{"slow-loris: a header byte by byte", 40, slowly("GET /v1/ids/id-1 HTTP/1.1\r\nHost: a\r\nX-Slow: "+strings.Repeat("x", 1000), 11)},
	{"half a body", 20, slowly("POST /v1/ids:batchGet HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer FLOOD\r\nContent-Length: 100000\r\n\r\n{", 12)},
	{"half a request for a stream", 20, slowly("POST "+tidemarkv1connect.ViewWatchProcedure+" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer LAZY\r\nContent-Type: application/connect+json\r\nContent-Length: 100000\r\n\r\n\x00", 13)},
	{"half-open TLS", 20, halfOpen},
	{"many connections", 2, connections},
	{"oversized headers and URLs", 2, oversized},
	{"wrong tokens", 4, wrongTokens},
	{"a flood of reads", 8, flood},
	{"watchers that never read", 60, neverReads},
	{"noise", 4, noise},
}

// loopback is an address of the loopback network.
func loopback(last int) string { return fmt.Sprintf("127.0.0.%d", last) }

func (s *subject) dial(ctx context.Context, last int, protocols ...string) (net.Conn, error) {
	c := s.tls()
	c.NextProtos = protocols
	return (&tls.Dialer{NetDialer: dialer(loopback(last)), Config: c}).DialContext(ctx, "tcp", s.addr)
}

// slowly sends a text a byte at a time, and begins again when it is sent away.
func slowly(text string, last int) func(context.Context, *subject, *tally, int) {
	return func(ctx context.Context, s *subject, count *tally, _ int) {
		text := strings.NewReplacer("FLOOD", s.tokens["flood"], "LAZY", s.tokens["lazy"]).Replace(text)
		head := max(0, strings.Index(text, "\r\n\r\n")+4) // what makes a request is sent at once
		for ctx.Err() == nil {
			conn, err := s.dial(ctx, last, "http/1.1")
			if err != nil {
				pause(ctx, 200*time.Millisecond)
				continue
			}
			count.tried.Add(1)
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, err = io.WriteString(conn, text[:head])
			for i := head; err == nil && i < len(text) && ctx.Err() == nil; i++ {
				_, err = conn.Write([]byte{text[i]})
				err = pauseOr(ctx, err, 500*time.Millisecond)
			}
			if _, _ = io.Copy(io.Discard, conn); ctx.Err() == nil {
				count.turned.Add(1)
			}
			stop()
			conn.Close()
		}
	}
}

// halfOpen connects, sends a part of a handshake or nothing, and waits.
func halfOpen(ctx context.Context, s *subject, count *tally, side int) {
	for ctx.Err() == nil {
		conn, err := dialer(loopback(14)).DialContext(ctx, "tcp", s.addr)
		if err != nil {
			pause(ctx, 200*time.Millisecond)
			continue
		}
		count.tried.Add(1)
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		if side%2 == 0 {
			_, _ = conn.Write([]byte("\x16\x03\x01\x02\x00\x01"))
		}
		if _, _ = io.Copy(io.Discard, conn); ctx.Err() == nil {
			count.turned.Add(1)
		}
		stop()
		conn.Close()
		pause(ctx, 200*time.Millisecond)
	}
}

// connections opens as many as it can get, and keeps them.
func connections(ctx context.Context, s *subject, count *tally, _ int) {
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	every(ctx, 10*time.Millisecond, func() {
		conn, err := dialer(loopback(15)).DialContext(ctx, "tcp", s.addr)
		if err != nil {
			return
		}
		count.tried.Add(1)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err == io.EOF || strings.Contains(err.Error(), "reset") {
			count.turned.Add(1)
			conn.Close()
			return
		}
		if open = append(open, conn); len(open) > 2*s.limits.Connections {
			open[0].Close()
			open = open[1:]
		}
	})
}

// request sends one request over a client and counts it; whatever is no success is turned away.
func request(ctx context.Context, s *subject, c *http.Client, count *tally, path string, header http.Header) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.addr+path, nil)
	if err != nil {
		return
	}
	req.Header = header
	count.tried.Add(1)
	resp, err := c.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			count.turned.Add(1)
		}
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode >= http.StatusBadRequest {
		count.turned.Add(1)
	}
}

func oversized(ctx context.Context, s *subject, count *tally, side int) {
	c := s.client(loopback(16))
	defer c.CloseIdleConnections()
	every(ctx, 50*time.Millisecond, func() {
		header := http.Header{"Authorization": {"Bearer " + s.tokens["flood"]}}
		if side%2 == 0 {
			header.Set("X-Large", strings.Repeat("x", 200<<10))
			request(ctx, s, c, count, "/v1/ids/id-1", header)
		} else {
			request(ctx, s, c, count, "/v1/ids/"+strings.Repeat("x", 30<<10), header)
		}
	})
}

func wrongTokens(ctx context.Context, s *subject, count *tally, _ int) {
	c := s.client(loopback(17))
	defer c.CloseIdleConnections()
	every(ctx, 5*time.Millisecond, func() {
		request(ctx, s, c, count, "/v1/ids/id-1", http.Header{"Authorization": {"Bearer good." + rand.Text()}})
	})
}

// flood asks with a token that is right, more than it may.
func flood(ctx context.Context, s *subject, count *tally, _ int) {
	c := s.client(loopback(18))
	defer c.CloseIdleConnections()
	every(ctx, 8*time.Millisecond, func() {
		request(ctx, s, c, count, "/v1/ids/id-1", http.Header{"Authorization": {"Bearer " + s.tokens["flood"]}})
	})
}

// neverReads watches everything and takes nothing of it.
func neverReads(ctx context.Context, s *subject, count *tally, side int) {
	for ctx.Err() == nil {
		conn, err := s.dial(ctx, 19, "http/1.1")
		if err != nil {
			pause(ctx, 200*time.Millisecond)
			continue
		}
		count.tried.Add(1)
		_ = conn.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4096)
		_, _ = fmt.Fprintf(conn, "GET /v1/watch HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", s.tokens["lazy"])
		answer := make([]byte, 32)
		if _, err := io.ReadFull(conn, answer); err != nil || !strings.Contains(string(answer), " 200 ") {
			count.turned.Add(1)
		} else {
			pause(ctx, time.Duration(20+side)*time.Second)
		}
		conn.Close()
		pause(ctx, time.Second)
	}
}

// noise sends random bytes, over TLS and as HTTP/2.
func noise(ctx context.Context, s *subject, count *tally, side int) {
	every(ctx, 100*time.Millisecond, func() {
		conn, err := s.dial(ctx, 20, []string{"h2", "http/1.1"}[side%2])
		if err != nil {
			return
		}
		defer conn.Close()
		count.tried.Add(1)
		b := make([]byte, 4096)
		_, _ = rand.Read(b)
		if side == 0 {
			_, _ = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		}
		_, _ = conn.Write(b)
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err == nil || !strings.Contains(err.Error(), "timeout") {
			count.turned.Add(1)
		}
	})
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func pauseOr(ctx context.Context, err error, d time.Duration) error {
	if err == nil {
		pause(ctx, d)
	}
	return err
}
