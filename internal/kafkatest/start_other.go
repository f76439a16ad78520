//go:build !linux

package kafkatest

import (
	"os/exec"
	"syscall"
)

// startChild starts the command in a process group of its own, so that Ctrl-C reaches us alone. A kill -9 of this process
// leaves the child behind: only Linux ties a child's life to its parent's.
func startChild(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}
