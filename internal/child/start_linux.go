// Package child starts processes whose lives end with that of the process that started them. It knows nothing of what they do.
package child

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

var starter = sync.OnceValue(func() chan func() {
	work := make(chan func())
	go serveStarts(work)
	return work
})

// serveStarts runs for as long as the process: the kernel sends the parent-death signal when the *thread* that made the child
// ends (prctl(2), PR_SET_PDEATHSIG), so children are made by one thread that never does.
func serveStarts(work chan func()) {
	runtime.LockOSThread()
	for f := range work {
		f()
	}
}

// Start starts the command in a process group of its own, so that Ctrl-C reaches us alone, and has the kernel kill it
// when this process dies, however it dies.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	done := make(chan error)
	starter() <- func() { done <- cmd.Start() }
	return <-done
}
