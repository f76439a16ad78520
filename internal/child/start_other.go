//go:build !linux

// Package child starts processes whose lives end with that of the process that started them. It knows nothing of what they do.
package child

import (
	"os/exec"
	"syscall"
)

// Start starts the command in a process group of its own, so that Ctrl-C reaches us alone. A kill -9 of this process
// leaves the child behind: only Linux ties a child's life to its parent's.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return cmd.Start()
}
