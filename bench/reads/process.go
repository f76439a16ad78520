package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/child"
)

// process is a server that this program has started. It ends with this program.
type process struct {
	name    string
	cmd     *exec.Cmd
	started time.Time
	said    *child.Tail
	ended   chan struct{}
	err     error // after ended
}

// startProcess starts a server; user is whom it runs as, nil for who we are.
func startProcess(name string, user *syscall.Credential, path string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), said: &child.Tail{}, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = p.said, p.said, "/"
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	p.started = time.Now()
	if err := child.Start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// await waits until the server is of use, which up says by nil.
func (p *process) await(ctx context.Context, within time.Duration, up func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		err := up()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended by itself: %w\n%s", p.name, p.err, p.said.Text())
		case <-ctx.Done():
			return fmt.Errorf("%s is not up after %s: %w\n%s", p.name, within, err, p.said.Text())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// stop asks the server to end, and kills it where it does not.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // to Postgres: at once, and in order
	select {
	case <-p.ended:
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(fmt.Errorf("%s did not end within 20 s and was killed", p.name), p.cmd.Process.Kill())
	}
}

// cpu is the time that the server and its children have used.
func (p *process) cpu() (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	own, sum := strconv.Itoa(p.cmd.Process.Pid), time.Duration(0)
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// proc(5): pid (name) state ppid …; user and system time are the 14th and 15th.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 13 || filepath.Base(filepath.Dir(file)) != own && fields[1] != own {
			continue
		}
		user, err1 := strconv.ParseInt(fields[11], 10, 64)
		system, err2 := strconv.ParseInt(fields[12], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(user+system) * (time.Second / ticksPerSecond)
	}
	return sum, nil
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// ownCPU is the time that this process has used.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// freeAddr is an address on the loopback interface that nobody listens on.
func freeAddr() (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
