package kafkatest_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// childCluster has this test binary start a cluster, say where, and wait to be killed.
const childCluster = "KAFKATEST_CHILD"

func runChildCluster() {
	c, err := kafkatest.Start(context.Background(), kafkatest.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Nodes[0].PID(), c.Addrs()[0], filepath.Dir(filepath.Dir(c.Nodes[0].Log())))
	select {} // until the test kills this process
}

// await polls for a condition, which says what it lacks.
func await(t *testing.T, lacks func() error) {
	t.Helper()
	ctx := within(t)
	for {
		err := lacks()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestStart_KilledProcessLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	mine := kafkatest.Shared(t) // which also says whether there is a Java
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childCluster+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child says nothing: %v", err)
	}
	var jvm int
	var addr, dir string
	if _, err := fmt.Sscan(line, &jvm, &addr, &dir); err != nil {
		t.Fatalf("the child says %q: %v", line, err)
	}
	if addr == mine[0] {
		t.Errorf("two clusters at once both have %s", addr)
	}
	if !lives(t, jvm) {
		t.Fatalf("broker %d is gone before the kill", jvm) // the control
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		if lives(t, jvm) {
			return fmt.Errorf("broker %d outlives the process that started it", jvm)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the cluster's folder %s is left behind: %v", dir, err)
		}
		return nil
	})
}

// lives tells whether a process runs; one that has ended and whose parent never asked does not.
func lives(t *testing.T, pid int) bool {
	t.Helper()
	if err := syscall.Kill(pid, 0); err != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

func TestShared_SaysWhichToolIsMissing(t *testing.T) {
	t.Parallel()
	run := func(require string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestShared_ServesManyTests$", "-test.v")
		cmd.Env = append(os.Environ(), "PATH="+t.TempDir(), "REQUIRE="+require)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("")
	if err != nil || !strings.Contains(out, "--- SKIP") || !strings.Contains(out, "java 17") || !strings.Contains(out, "apt-get install") {
		t.Errorf("without java: got %v and\n%s\nwant a skip that says how to get it", err, out)
	}
	out, err = run("1")
	if err == nil || !strings.Contains(out, "--- FAIL") || !strings.Contains(out, "java 17") {
		t.Errorf("without java, with REQUIRE=1: got %v and\n%s\nwant a failure that says how to get it", err, out)
	}
}
