package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// served is a server under limits, whose handler answers some bytes or a flood of them.
type served struct {
	t    *testing.T
	addr string
	done atomic.Int64 // handlers that ended
}

func mustServe(t *testing.T, m limits) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, addr: l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	mux.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		defer s.done.Add(1)
		for b := make([]byte, 1<<20); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.serve(ctx, l, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

func (s *served) dial(send string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, send); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// closed tells whether the other side ends a connection within some time, whatever it answers before.
func closed(conn net.Conn, within time.Duration) bool {
	_ = conn.SetReadDeadline(time.Now().Add(within))
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	return !(errors.As(err, &timeout) && timeout.Timeout())
}

// Callers who say little, nothing, or who do not listen are sent away. The control is the same caller at a server without
// that limit, where the connection stays.
func TestServe_SlowCallersAreSentAway(t *testing.T) {
	t.Parallel()
	const short, wait = 100 * time.Millisecond, 700 * time.Millisecond
	for name, c := range map[string]struct {
		limit limits
		send  string
	}{
		"half a header":        {limits{readHeader: short}, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "},
		"nothing at all":       {limits{readHeader: short}, ""},
		"half a body":          {limits{read: short}, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow"},
		"half a chunk":         {limits{read: short}, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nslow"},
		"idle after a request": {limits{idle: short}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if conn := mustServe(t, c.limit).dial(c.send); !closed(conn, 10*time.Second) {
				t.Error("the connection stays")
			}
			if conn := mustServe(t, limits{}).dial(c.send); closed(conn, wait) {
				t.Error("control: the connection ends without the limit too, so the test shows nothing")
			}
		})
	}
}

// A caller who does not read what it asked for holds a handler, and the snapshot that the handler reads, no longer than the
// limit.
func TestServe_ACallerWhoDoesNotReadIsSentAway(t *testing.T) {
	t.Parallel()
	const request = "GET /flood HTTP/1.1\r\nHost: a\r\n\r\n"
	limited, free := mustServe(t, limits{write: 100 * time.Millisecond}), mustServe(t, limits{})
	limited.dial(request)
	control := free.dial(request)
	for end := time.Now().Add(10 * time.Second); limited.done.Load() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the handler still writes")
		}
	}
	if free.done.Load() != 0 {
		t.Error("control: the handler ends without the limit too, so the test shows nothing")
	}
	control.Close()
}

func TestServe_HeadersAreBounded(t *testing.T) {
	t.Parallel()
	request := func(size int) string {
		return "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Large: " + strings.Repeat("x", size) + "\r\n\r\n"
	}
	for _, c := range []struct {
		limit limits
		size  int
		want  int
	}{
		{serveLimits, 32 << 10, http.StatusOK},
		{serveLimits, 80 << 10, http.StatusRequestHeaderFieldsTooLarge},
		{limits{}, 80 << 10, http.StatusOK}, // the control: Go's own limit is 1 MiB
	} {
		s := mustServe(t, c.limit)
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go io.WriteString(conn, request(c.size)) // the server may hang up before all of it is sent
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("a header of %d bytes: %v", c.size, err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("a header of %d bytes: got %s, want %d", c.size, resp.Status, c.want)
		}
	}
}

// Connections beyond the limit wait, and are served as soon as others end.
func TestServe_ConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	answered := func(conn net.Conn, within time.Duration) bool {
		_ = conn.SetReadDeadline(time.Now().Add(within))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}
	for _, c := range []struct {
		limit limits
		want  bool
	}{{limits{connections: 2}, false}, {limits{}, true}} {
		s := mustServe(t, c.limit)
		first := s.dial(request)
		for i, conn := range []net.Conn{first, s.dial(request)} {
			if !answered(conn, 10*time.Second) {
				t.Fatalf("connection %d is not answered", i)
			}
		}
		third := s.dial(request)
		if got := answered(third, 300*time.Millisecond); got != c.want {
			t.Errorf("limit %d: the third connection is answered: %v, want %v", c.limit.connections, got, c.want)
		}
		if first.Close(); !c.want && !answered(third, 10*time.Second) {
			t.Error("the third connection is not answered after the first has gone")
		}
	}
}
