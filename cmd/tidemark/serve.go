package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/tidemark/tidemark/internal/lane"
	"github.com/tidemark/tidemark/view"
)

// listen opens an address for HTTP. Only the loopback interface is served unless insecure says that others may come too:
// there is neither TLS nor any question who somebody is.
func listen(flag, addr string, insecure bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usagef("--%s %s: want HOST:PORT, such as 127.0.0.1:8080", flag, addr)
	}
	ip := net.ParseIP(host)
	if loopback := host == "localhost" || ip != nil && ip.IsLoopback(); !loopback && !insecure {
		return nil, usagef("--%s %s: other machines could reach it, and nobody is asked who they are: name 127.0.0.1, or say --insecure", flag, addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, usagef("--%s %s: %w: name another address", flag, addr, err)
	}
	return l, nil
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
}

var serveLimits = limits{
	readHeader: 10 * time.Second, read: 30 * time.Second, write: time.Minute, idle: 2 * time.Minute,
	headerBytes: 64 << 10, connections: 512,
}

// serve answers until the context ends, and then finishes what is under way.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return serveLimits.serve(ctx, l, h)
}

func (m limits) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: m.readHeader, ReadTimeout: m.read, WriteTimeout: m.write, IdleTimeout: m.idle,
		MaxHeaderBytes: m.headerBytes, ErrorLog: log.New(io.Discard, "", 0), // it would hold what strangers send
		BaseContext: func(net.Listener) context.Context { return ctx },
		Protocols:   &http.Protocols{},
	}
	if m.connections > 0 {
		l = netutil.LimitListener(l, m.connections)
	}
	l = lane.New(l, lane.Config{
		Handler: h, Context: ctx, Prefix: view.IDPath, TakesQuery: view.NamesMaxAgeAlone, Post: view.BatchPath, TakesBody: view.NamesIDsAlone,
		FirstTimeout: m.readHeader, IdleTimeout: m.idle, WriteTimeout: m.write,
		ErrorLog: s.ErrorLog,
	})
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true) // gRPC, by clients that know that they will get it
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
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
