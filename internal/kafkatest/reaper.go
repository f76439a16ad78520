package kafkatest

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// reap removes folders after this process: it reads their names, and when its input ends, because this process has, removes
// them. The brokers may write for a moment longer, hence the tries.
const reap = `dirs=
while read -r dir; do dirs="$dirs $dir"; done
for try in 1 2 3 4 5; do rm -rf $dirs 2>/dev/null && exit; sleep 1; done`

var reaper struct {
	mu sync.Mutex // guards to
	to io.Writer
}

// removeWithProcess has a temporary folder removed when this process is gone, if it did not do so itself. Folders of a
// temporary directory whose name has a space in it stay.
func removeWithProcess(dir string) error {
	reaper.mu.Lock()
	defer reaper.mu.Unlock()
	if reaper.to == nil {
		sh := exec.Command("sh", "-c", reap)
		sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		to, err := sh.StdinPipe()
		if err != nil {
			return err
		}
		if err := sh.Start(); err != nil {
			return fmt.Errorf("start what removes temporary folders: %w", err)
		}
		reaper.to = to
	}
	_, err := fmt.Fprintln(reaper.to, dir)
	return err
}
