package lane

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ends tells whether the server ends a connection within some time, whatever it answers before.
func ends(c net.Conn, within time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(within))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	return !(errors.As(err, &timeout) && timeout.Timeout())
}

// Callers who say nothing are sent away, before their first request and after it. The control is the same caller at a lane
// without that limit.
func TestLane_SilentCallersAreSentAway(t *testing.T) {
	t.Parallel()
	const short, wait = 100 * time.Millisecond, 700 * time.Millisecond
	for name, c := range map[string]struct {
		limit Config
		sent  string
	}{
		"nothing at all":        {Config{FirstTimeout: short}, ""},
		"idle after a request":  {Config{IdleTimeout: short}, plain},
		"a byte, and then idle": {Config{IdleTimeout: short}, plain + "G"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, limited := range []bool{true, false} {
				cfg := Config{}
				if limited {
					cfg = c.limit
				}
				conn := mustServe(t, true, cfg, mirror).dial(t)
				if _, err := conn.Write([]byte(c.sent)); err != nil {
					t.Fatal(err)
				}
				if limited && !ends(conn, 10*time.Second) {
					t.Error("the connection stays")
				} else if !limited && ends(conn, wait) {
					t.Error("control: the connection ends without the limit too, so the test shows nothing")
				}
			}
		})
	}
}

// TestLane_ACallerWhoDoesNotReadIsSentAway asks for more than the sockets hold and reads nothing until the server has hung
// up, or would have. The control is a lane with a longer limit.
func TestLane_ACallerWhoDoesNotReadIsSentAway(t *testing.T) {
	t.Parallel()
	const short = 100 * time.Millisecond
	large := strings.Repeat("x", 64<<20)
	for _, limit := range []time.Duration{short, time.Minute} {
		s := mustServe(t, true, Config{WriteTimeout: limit}, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, large) })
		conn := s.dial(t)
		if _, err := conn.Write([]byte(plain)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * short)
		n, err := io.CopyN(io.Discard, conn, int64(len(large)))
		if all := err == nil; all != (limit != short) || s.inLane.Load() != 1 {
			t.Errorf("limit %s: %d bytes of %d came (%v)", limit, n, len(large), err)
		}
	}
}

// TestLane_CloseLetsAnswersBeWritten closes while one caller is being answered and one waits.
func TestLane_CloseLetsAnswersBeWritten(t *testing.T) {
	t.Parallel()
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := mustServe(t, true, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "slow") {
			close(begun)
			<-goOn
		}
		_, _ = io.WriteString(w, "hello")
	})
	idle, busy := s.dial(t), s.dial(t)
	for conn, sent := range map[net.Conn]string{idle: plain, busy: strings.Replace(plain, "/a", "/slow", 1)} {
		if _, err := conn.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(idle), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the first answer: %v", err)
	}
	<-begun
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	if !ends(idle, 10*time.Second) {
		t.Error("a connection that waits stays open")
	}
	select {
	case <-stopped:
		t.Error("the server has ended before the answer under way")
	default:
	}
	close(goOn)
	resp, err = http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil {
		t.Fatalf("the answer under way: %v", err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "hello" || err != nil {
		t.Errorf("the answer under way: got %q, %v", body, err)
	}
	<-stopped
	if _, err := net.Dial("tcp", s.addr); err == nil {
		t.Error("it still listens")
	}
}

// TestLane_APanicCutsItsConnectionAlone is as net/http does it.
func TestLane_APanicCutsItsConnectionAlone(t *testing.T) {
	t.Parallel()
	s := mustServe(t, true, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "panic") {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "hello")
	})
	other := s.dial(t)
	if got := s.said(t, []byte(strings.Replace(plain, "/a", "/panic", 1)+plain)); got != "" {
		t.Errorf("got %q after a panic, want the end", got)
	}
	if _, err := other.Write([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(other), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("another connection: %v", err)
	}
}
