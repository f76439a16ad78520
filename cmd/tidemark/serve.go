package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tidemark/tidemark/internal/lane"
	"github.com/tidemark/tidemark/view"
	"github.com/tidemark/tidemark/view/guard"
)

// listen opens an address for HTTP. Only the loopback interface is served unless letIn says that others may come too: who
// they are is asked, over TLS, or somebody has said that it need not be.
func listen(flag, addr string, letIn bool) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, usagef("--%s %s: want HOST:PORT, such as 127.0.0.1:8080", flag, addr)
	}
	if !isLoopback(addr) && !letIn {
		return nil, usagef("--%s %s: other machines could reach it: ask who they are, over TLS (--serve-tls-cert, --serve-tls-key and --principals), name 127.0.0.1, or say --insecure", flag, addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, usagef("--%s %s: %w: name another address", flag, addr, err)
	}
	return l, nil
}

// isLoopback tells addresses that no other machine can reach.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && isLoopbackHost(host)
}

func isLoopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// shutdownWithin is how long answers that are under way may take at the end.
const shutdownWithin = 3 * time.Second

// limits are what one caller, or all of them, may take of a server. A handler that streams lifts read and write for its own
// request, by http.ResponseController.
type limits struct {
	readHeader, read time.Duration // for a request's header, and for the whole of it
	write            time.Duration // for the answer, from the end of the header on
	idle             time.Duration // between two requests of a connection
	headerBytes      int
	connections      int // at once; further ones wait to be accepted. Files and Kafka's connections need descriptors too
	// clientConnections are those of one address; further ones are closed.
	clientConnections int
	streams           int         // at once in a connection of HTTP/2
	tls               *tls.Config // nil: no TLS
	faults            *log.Logger // where connections that fail are told of; nil: nowhere
}

var serveLimits = limits{
	readHeader: 10 * time.Second, read: 30 * time.Second, write: time.Minute, idle: 2 * time.Minute,
	headerBytes: 64 << 10, connections: 4096, clientConnections: 1024, streams: 250,
}

// serve answers until the context ends, and then finishes what is under way.
func (m limits) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: m.readHeader, ReadTimeout: m.read, WriteTimeout: m.write, IdleTimeout: m.idle,
		MaxHeaderBytes: m.headerBytes, ErrorLog: m.faults,
		BaseContext: func(net.Listener) context.Context { return ctx },
		Protocols:   &http.Protocols{}, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: m.streams},
		TLSConfig: m.tls,
	}
	if m.faults == nil {
		s.ErrorLog = log.New(io.Discard, "", 0) // it would hold what strangers send
	}
	l = guard.Listener(l, m.connections, m.clientConnections)
	if m.tls == nil {
		l = lane.New(l, lane.Config{
			Handler: h, Context: ctx, Prefix: view.IDPath, TakesQuery: view.NamesMaxAgeAlone, Post: view.BatchPath, TakesBody: view.NamesIDsAlone,
			FirstTimeout: m.readHeader, IdleTimeout: m.idle, WriteTimeout: m.write,
			ErrorLog: s.ErrorLog,
		})
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(m.tls != nil)
	s.Protocols.SetUnencryptedHTTP2(m.tls == nil) // gRPC, by clients that know that they will get it
	ended := make(chan error, 1)
	go func() {
		if m.tls != nil {
			ended <- s.ServeTLS(l, "", "")
		} else {
			ended <- s.Serve(l)
		}
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWithin)
	defer cancel()
	err := s.Shutdown(wait)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	<-ended
	return err
}

// together runs the actors until the first of them returns, ends the others, and returns when all have. Its error is the
// first one that is not merely the end of the context.
func together(ctx context.Context, actors ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, actor := range actors {
		wg.Go(func() {
			err := actor(ctx)
			if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
				once.Do(func() { first = err })
			}
			cancel()
		})
	}
	wg.Wait()
	return first
}
