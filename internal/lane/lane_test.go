package lane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const prefix = "/v1/ids/"

// server is an http.Server, with a lane before it or without.
type server struct {
	addr   string
	inLane atomic.Int64 // requests that the lane answered
	stop   func()
}

func mustServe(t testing.TB, lane bool, cfg Config, h http.HandlerFunc) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(*response); ok {
			s.inLane.Add(1)
		}
		h(w, r)
	})
	quiet := log.New(io.Discard, "", 0)
	srv := &http.Server{Handler: handler, ErrorLog: quiet, ReadHeaderTimeout: 2 * time.Second, Protocols: &http.Protocols{}}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	if lane {
		cfg.Handler, cfg.Context, cfg.Prefix, cfg.Post, cfg.ErrorLog = handler, t.Context(), prefix, "/v1/ids:batchGet", quiet
		cfg.TakesQuery = func(query string) bool { return strings.HasPrefix(query, "max_age=") }
		cfg.TakesBody = func(body []byte) bool { return !bytes.Contains(body, []byte("wait")) }
		for _, d := range []*time.Duration{&cfg.FirstTimeout, &cfg.IdleTimeout, &cfg.WriteTimeout} {
			if *d == 0 {
				*d = time.Minute
			}
		}
		l = New(l, cfg)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			_ = srv.Close()
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// mirror answers with all that it was asked, and in several ways.
func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h := w.Header()
	h.Set("Etag", `"1-2"`)
	h.Add("X-Two", "one")
	h.Add("X-Two", "two\r\nX-Smuggled: yes")
	switch {
	case strings.Contains(r.URL.Path, "none"):
		w.WriteHeader(http.StatusNotModified)
		return
	case strings.Contains(r.URL.Path, "fail"):
		h.Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		h.Set("X-Late", "not heard")
	case strings.Contains(r.URL.Path, "close"):
		h.Set("Connection", "close")
	}
	fmt.Fprintf(w, "%s %q %q %q %q %q %s %d %v %q\n", r.Method, r.URL.Path, r.URL.RawPath, r.URL.EscapedPath(), r.RequestURI, r.Host, r.Proto, r.ContentLength, r.Close, body)
	fmt.Fprintf(w, "%q %q %v", r.URL.RawQuery, r.URL.Fragment, r.Header) // a map prints in the order of its keys
}

// said is all that a server says to some bytes, the Date aside.
func (s *server) said(t testing.TB, sent []byte) string {
	t.Helper()
	c := s.dial(t)
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite() // it may have been reset already, for what was refused
	var out strings.Builder
	for in := bufio.NewReader(c); ; {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return out.String() // the end
		}
		if date := resp.Header.Get("Date"); date != "" {
			if _, err := http.ParseTime(date); err != nil {
				t.Errorf("Date: %v", err)
			}
			resp.Header.Set("Date", "then")
		}
		body, err := io.ReadAll(resp.Body)
		if resp.Close && resp.StatusCode >= http.StatusBadRequest {
			err = nil // what follows a request that is refused is not read, and the connection may be reset for it
		}
		fmt.Fprintf(&out, "%s %s %v %d %v %v %q %v\n", resp.Proto, resp.Status, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Close, body, err)
	}
}

const post = "POST /v1/ids:batchGet HTTP/1.1\r\nHost: h\r\n"

const plain = "GET /v1/ids/a HTTP/1.1\r\nHost: h\r\n\r\n"

// requests that are answered in the lane, and others.
var inLane = []string{
	plain,
	"GET /v1/ids/ HTTP/1.1\r\nHost: h:1\r\n\r\n",
	"GET /v1/ids/a/../b//c;d=e,$&+@:~ HTTP/1.1\r\nHost: [::1]:80\r\nuser-agent: x/1 (y)\r\nACCEPT: */*\r\n\r\n",
	"GET /v1/ids/%2F%00%e4 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a:   2  \r\nIf-None-Match: \"1-2\", *\r\nEmpty:\r\n\r\n",
	"GET /v1/ids/none HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n",
	"GET /v1/ids/fail HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x.y\r\ntraceparent: 00-1-2-01\r\n\r\n",
	plain + plain + plain,
	"GET /v1/ids/a?max_age=1s HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/ids/%2f?max_age=%31s?&x=/y HTTP/1.1\r\nHost: h\r\n\r\n",
	post + "Content-Length: 3\r\n\r\nabc",
	post + "Content-Type: application/json\r\ncontent-length:   003\r\n\r\nabc" + plain + post + "Content-Length: 0\r\n\r\n" + plain,
	post + "Content-Length: 3\r\n\r\nabc\r\n" + plain, // as net/http bears it
	"GET /v1/ids/close HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/ids/0000 HTTP/1.1\r\nHost:0\r\n\r\n00", // too little to be refused as a request, as is
	post + "Content-Length: 3\r\n\r\nabc\r\n0",      // this, but not
	plain + "0000",
	post + "Content-Length: 3\r\n\r\nabc\r\n00",
}

var elsewhere = []string{
	"GET /v1/ids/a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/ids/a? HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/ids/a#x HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/ids/%zz HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/other HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET http://h/v1/ids/a HTTP/1.1\r\nHost: h\r\n\r\n",
	"HEAD /v1/ids/a HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/ids/a HTTP/1.0\r\nHost: h\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h i\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost:\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\nHost: h\n\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nX: a\x00\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nX: \u00e4\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nnone\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nPragma: no-cache\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" + plain,
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + plain,
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + plain,
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
	"POST /v1/ids/a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
	post + "\r\n" + plain,
	post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc" + plain,
	post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd" + plain,
	post + "Content-Length: +3\r\n\r\nabc" + plain,
	post + "Content-Length: 3, 3\r\n\r\nabc" + plain,
	post + "Content-Length: \r\n\r\nabc" + plain,
	post + "Content-Length: 65539\r\n\r\nabc",
	post + "Content-Length: 4\r\n\r\nabc",
	post + "Content-Length: 4\r\n\r\nwait" + plain,
	post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + plain,
	post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + plain,
	"POST /v1/ids:batchGet?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab",
	"GET /v1/ids/\u00e4 HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET  /v1/ids/a HTTP/1.1\r\nHost: h\r\n\r\n",
	"get /v1/ids/a HTTP/1.1\r\nHost: h\r\n\r\n",
	"\r\n" + plain,
	"GET /v1/ids/" + strings.Repeat("a", 5000) + " HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET /v1/ids/a HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", headersMax+1) + "\r\n",
}

// TestLane_AnswersAsNetHTTPDoes sends the same bytes to a server with a lane and to one without.
func TestLane_AnswersAsNetHTTPDoes(t *testing.T) {
	with, without := mustServe(t, true, Config{}, mirror), mustServe(t, false, Config{}, mirror)
	same := func(sent string) {
		t.Helper()
		if got, want := with.said(t, []byte(sent)), without.said(t, []byte(sent)); got != want {
			t.Errorf("%.300q:\ngot  %swant %s", sent, got, want)
		}
	}
	for _, sent := range inLane {
		before := with.inLane.Load()
		same(sent)
		if got, want := with.inLane.Load()-before, int64(strings.Count(sent, " HTTP/1.1\r\n")); got != want {
			t.Errorf("%q: %d requests were answered in the lane, want %d", sent, got, want)
		}
	}
	before := with.inLane.Load()
	for _, sent := range elsewhere {
		same(sent)
	}
	if got := with.inLane.Load() - before; got != 0 {
		t.Errorf("%d requests that are not the lane's were answered there", got)
	}
	for _, sent := range elsewhere { // a connection leaves the lane with what was not answered
		same(plain + sent)
		same(plain + sent + plain)
	}
	same(post + "Content-Length: 3\r\n\r\nabc\r\n\r\n\r\n" + plain) // more than net/http bears
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random, all := rand.New(rand.NewPCG(seed, 0)), append(append([]string{}, inLane...), elsewhere...)
	before = with.inLane.Load()
	for range 2000 {
		sent := []byte(all[random.IntN(len(all))] + all[random.IntN(len(all))])
		for range random.IntN(3) {
			sent[random.IntN(min(len(sent), 200))] = "\r\n :;%?#/\x00aGH1.\xff-\t"[random.IntN(18)]
		}
		same(string(sent))
	}
	if with.inLane.Load() == before {
		t.Error("no changed request was answered in the lane")
	}
}

func FuzzLane_AnswersAsNetHTTPDoes(f *testing.F) {
	with, without := mustServe(f, true, Config{}, mirror), mustServe(f, false, Config{}, mirror)
	for _, sent := range append(append([]string{}, inLane...), elsewhere...) {
		f.Add([]byte(sent))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		if bytes.HasPrefix(sent, []byte("PRI ")) || len(sent) > 1<<16 {
			return // frames come when they like
		}
		if got, want := with.said(t, sent), without.said(t, sent); got != want {
			t.Errorf("%q:\ngot  %swant %s", sent, got, want)
		}
	})
}

func TestLane_RequestsInPiecesAreAnswered(t *testing.T) {
	s := mustServe(t, true, Config{}, mirror)
	c := s.dial(t)
	in := bufio.NewReader(c)
	for n := range len(plain) {
		for _, piece := range []string{plain[:n], plain[n:]} {
			if _, err := c.Write([]byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("cut at %d: %s, %v", n, resp.Status, err)
		}
	}
}

// TestLane_WhatFollowsAnAnswerMayComeInPieces cuts line breaks behind a body, and the request behind them, at each place.
func TestLane_WhatFollowsAnAnswerMayComeInPieces(t *testing.T) {
	s := mustServe(t, true, Config{}, mirror)
	const body, follows = "Content-Length: 3\r\n\r\nabc", "\r\n" + plain
	for n := range len(follows) {
		c := s.dial(t)
		in := bufio.NewReader(c)
		for _, piece := range []string{post + body + follows[:n], follows[n:]} {
			if _, err := c.Write([]byte(piece)); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("cut at %d: %v", n, err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("cut at %d: %q is answered with %s, %v", n, piece, resp.Status, err)
			}
		}
	}
}

func TestLane_SpeaksHTTP2ByPriorKnowledge(t *testing.T) {
	s := mustServe(t, true, Config{}, mirror)
	tr := &http.Transport{Protocols: &http.Protocols{}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://" + s.addr + prefix + "a")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.ProtoMajor != 2 || err != nil || !strings.Contains(string(body), "HTTP/2") {
		t.Errorf("got %s, %q, %v", resp.Proto, body, err)
	}
}
