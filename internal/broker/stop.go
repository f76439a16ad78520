package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Fault is why a broker stopped by itself: a file of its directory that could not be written or read.
type Fault struct {
	Dir  string
	Text string // what kfake was doing, and the cause
	Err  error  // the cause, such as syscall.ENOSPC; nil where kfake gives none
}

// Error gives directory and cause in one line.
func (f *Fault) Error() string {
	return fmt.Sprintf("broker: the embedded broker on %s has stopped: %s", f.Dir, f.Text)
}

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.Err }

// stopper stops a kfake at the first error of a file. kfake itself goes on: where it cannot write an abort marker, it forgets the
// transaction, and to readers of what is committed its records are as good as committed (txns.go, endTx). But it tells its
// logger first, in the goroutine that met the error: there the connections are closed, and the goroutine is held for good. So nothing
// is answered, written or saved that comes after the error, and the directory is as after a kill.
type stopper struct {
	dir  string
	to   *slog.Logger // may be nil
	lock *os.File     // may be nil; held here for as long as kfake is in memory, because other goroutines of it may still write

	stopped chan struct{} // closed when fault is set

	mu        sync.Mutex // guards what follows
	fault     *Fault
	listeners []net.Listener
	conns     map[net.Conn]struct{}
}

func newStopper(dir string, to *slog.Logger, lock *os.File) *stopper {
	return &stopper{dir: dir, to: to, lock: lock, stopped: make(chan struct{}), conns: map[net.Conn]struct{}{}}
}

// Logf is called by kfake. It does not return from an error.
func (s *stopper) Logf(level kfake.LogLevel, format string, args ...any) {
	if level == kfake.LogLevelNone || level > kfake.LogLevelWarn {
		return
	}
	cause := fileError(args)
	text := fmt.Sprintf(format, args...)
	stops := cause != nil || level == kfake.LogLevelError
	if stops {
		s.stop(&Fault{Dir: s.dir, Text: text, Err: cause})
	}
	if s.to != nil {
		s.to.Warn("embedded broker: " + text)
	}
	if stops {
		select {}
	}
}

// fileError finds the error of a file among what is logged. kfake logs a failed write as a warning, among harmless ones.
func fileError(args []any) error {
	for _, arg := range args {
		var (
			path   *fs.PathError
			rename *os.LinkError
		)
		if err, ok := arg.(error); ok && (errors.As(err, &path) || errors.As(err, &rename)) {
			return err
		}
	}
	return nil
}

// stop closes everything that answers; the first fault is the one that counts.
func (s *stopper) stop(f *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return
	}
	s.fault = f
	for _, l := range s.listeners {
		_ = l.Close() // nobody is left to tell
	}
	for c := range s.conns {
		_ = c.Close()
	}
	close(s.stopped)
}

// err is the fault, or nil.
func (s *stopper) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		return nil
	}
	return s.fault
}

// while gives a context that ends with kfake too.
func (s *stopper) while(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-s.stopped:
			cancel(s.err())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// listen is net.Listen, with everything that comes of it closed at the stop.
func (s *stopper) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
	return &stoppable{l, s}, nil
}

type stoppable struct {
	net.Listener
	s *stopper
}

func (l *stoppable) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.fault != nil {
		return nil, errors.Join(l.s.fault, c.Close())
	}
	l.s.conns[c] = struct{}{}
	return &accepted{c, l.s}, nil
}

type accepted struct {
	net.Conn
	s *stopper
}

func (c *accepted) Close() error {
	c.s.mu.Lock()
	delete(c.s.conns, c.Conn)
	c.s.mu.Unlock()
	return c.Conn.Close()
}

// start opens a kfake under the stopper.
func (s *stopper) start(opts []kfake.Opt) (*kfake.Cluster, error) {
	var (
		cluster *kfake.Cluster
		err     error
	)
	opened := make(chan struct{})
	go func() { // it never returns from an error of a file that it logs
		defer close(opened)
		cluster, err = kfake.NewCluster(append(opts, kfake.WithLogger(s))...)
	}()
	select {
	case <-opened:
		return cluster, err
	case <-s.stopped:
		return nil, s.err()
	}
}

// close ends a kfake that is under the stopper, and saves what is in memory; what has stopped is left as it is.
func (s *stopper) close(cluster *kfake.Cluster) error {
	if err := s.err(); err != nil {
		return err
	}
	closed := make(chan struct{})
	go func() { // see start
		defer close(closed)
		cluster.Close()
	}()
	select {
	case <-closed:
	case <-s.stopped:
	}
	return s.err()
}
