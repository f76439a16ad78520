package kafkatest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// lockFile waits until the process alone holds the lock of the file. Close, or the death of the process, gives it up.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// tryLockFile is lockFile without the waiting: nil if another holds the lock.
func tryLockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Ports are taken below the range from which systems give ports to clients (Linux: 32768 and up), so that no connection
// lands on the port of a broker that is down for a while.
const (
	portMin = 15000
	portMax = 32000
)

// port is a loopback port that is held against every other cluster of this machine until Close, also while no broker listens.
type port struct {
	number int
	lock   *os.File
}

func (p *port) Close() error { return p.lock.Close() }

func (p *port) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// takePort finds a port on which nobody listens.
func takePort() (*port, error) {
	dir, err := portDir()
	if err != nil {
		return nil, err
	}
	for range 1000 {
		p, err := tryPort(dir, portMin+rand.IntN(portMax-portMin))
		if p != nil || err != nil {
			return p, err
		}
	}
	return nil, errors.New("no free loopback port found in 1000 tries")
}

// takeThisPort takes the port that somebody asked for.
func takeThisPort(number int) (*port, error) {
	dir, err := portDir()
	if err != nil {
		return nil, err
	}
	p, err := tryPort(dir, number)
	if p == nil && err == nil {
		err = fmt.Errorf("port %d is taken", number)
	}
	return p, err
}

// tryPort is nil when the port is taken.
func tryPort(dir string, number int) (*port, error) {
	lock, err := tryLockFile(filepath.Join(dir, strconv.Itoa(number)))
	if lock == nil {
		return nil, err
	}
	p := &port{number, lock}
	l, err := net.Listen("tcp4", p.addr())
	if err != nil {
		return nil, p.Close()
	}
	return p, l.Close()
}

func portDir() (string, error) {
	dir := filepath.Join(os.TempDir(), "tidemark-kafka-ports")
	return dir, os.MkdirAll(dir, 0o777)
}
