package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/child"
)

// stacksWithin is the patience with a process that writes down its stacks.
const stacksWithin = 2 * time.Second

// slot is the place of one processor or view: an instance name, a state directory and a log, and one process after the other.
type slot struct {
	task task
	log  string

	op     sync.Mutex  // held while something is done to the slot
	wanted atomic.Bool // a process belongs here
	harmed atomic.Bool // a fault is being done to it
	mayEnd atomic.Bool // it is no fault of its own when it ends

	mu    sync.Mutex // guards the fields below
	life  *life      // nil: down
	meant bool       // its end was our doing
}

// life is one process.
type life struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed after Wait
	err   error         // of Wait; to be read after ended
}

func newSlot(dir string, t task) *slot {
	t.Dir, t.Orders = filepath.Join(dir, t.Instance), filepath.Join(dir, t.Instance+".orders")
	t.Addr = filepath.Join(dir, t.Instance+".addr")
	return &slot{task: t, log: filepath.Join(dir, t.Instance+".log")}
}

// start starts a process; the slot must be down. ended is called when it ends without having been told to.
func (s *slot) start(ended func(error)) error {
	text, err := json.Marshal(s.task)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), taskEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = log, log
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != nil {
		return fmt.Errorf("%s is up", s.task.Instance)
	}
	if err := child.Start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", s.task.Instance, err)
	}
	l := &life{cmd: cmd, ended: make(chan struct{})}
	s.life, s.meant = l, false
	go func() {
		l.err = cmd.Wait()
		s.mu.Lock()
		s.life = nil
		meant := s.meant
		s.mu.Unlock()
		close(l.ended)
		if !meant {
			ended(l.err)
		}
	}()
	return nil
}

// pid is 0 while the slot is down.
func (s *slot) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == nil {
		return 0
	}
	return s.life.cmd.Process.Pid
}

// signal sends a signal to the process; a slot that is down is told nothing.
func (s *slot) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == nil {
		return nil
	}
	if err := s.life.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%v to %s: %w", sig, s.task.Instance, err)
	}
	return nil
}

// end ends the process by the signal and returns when it is gone; after the patience it is killed with its stacks in the
// log, and that is an error. So is
// an exit code other than 0 after SIGTERM.
func (s *slot) end(sig syscall.Signal, patience time.Duration) error {
	s.mu.Lock()
	l := s.life
	s.meant = true
	s.mu.Unlock()
	if l == nil {
		return nil
	}
	if err := s.signal(sig); err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-l.ended:
	case <-timer.C:
		err := s.signal(syscall.SIGQUIT) // the log gets the stacks
		select {
		case <-l.ended:
		case <-time.After(stacksWithin):
		}
		err = errors.Join(err, s.signal(syscall.SIGKILL))
		<-l.ended
		return errors.Join(fmt.Errorf("%s did not end within %v of %v", s.task.Instance, patience, sig), err)
	}
	// One that has just begun does not listen yet and has nothing to lose: it dies of the signal.
	status, _ := l.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if sig == syscall.SIGTERM && l.err != nil && !(status.Signaled() && status.Signal() == sig) {
		return fmt.Errorf("%s after %v: %w", s.task.Instance, sig, l.err)
	}
	return nil
}

// forget removes the local state; the slot must be down.
func (s *slot) forget() error { return os.RemoveAll(s.task.Dir) }

// order has the process obey at the step, or at nothing any more where what is empty.
func (s *slot) order(what, step string) error {
	if what == "" {
		return errors.Join(os.Remove(s.task.Orders), s.signal(syscall.SIGUSR1))
	}
	return errors.Join(os.WriteFile(s.task.Orders, []byte(what+" at "+step), 0o644), s.signal(syscall.SIGUSR1))
}

// logged is how long the slot's log is.
func (s *slot) logged() (int64, error) {
	info, err := os.Stat(s.log)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// logSince is what was logged after that.
func (s *slot) logSince(begun int64) ([]byte, error) {
	log, err := os.Open(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := log.Seek(begun, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(log)
}
