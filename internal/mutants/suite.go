package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tree is the source tree, or a mutant of it: Go's overlay puts the changed files in the place of the real ones, for
// what the tests build by themselves too.
type tree struct {
	root    string
	overlay string // "": as it is
}

// plant writes a mutant's files and its overlay into dir.
func plant(root, dir string, m *mutant) (*tree, error) {
	changed, err := m.apply(root)
	if err != nil {
		return nil, err
	}
	replace := map[string]string{}
	for file, source := range changed {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, []byte(source), 0o600); err != nil {
			return nil, err
		}
		replace[filepath.Join(root, filepath.FromSlash(file))] = to
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	t := &tree{root: root, overlay: filepath.Join(dir, "overlay.json")}
	return t, os.WriteFile(t.overlay, overlay, 0o600)
}

func (t *tree) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // go test ends its children
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir = t.root
	cmd.Env = append(os.Environ(), "REQUIRE=1") // a test that was left out catches nothing
	if t.overlay != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+t.overlay))
	}
	return cmd
}

// compile builds everything, and the tests of the given packages without running any.
func (t *tree) compile(ctx context.Context, packages ...string) error {
	for _, args := range [][]string{{"build", "./..."}, append([]string{"test", "-vet=off", "-run=^$"}, packages...)} {
		if out, err := t.command(ctx, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// suiteTimeout ends a suite that a mutant makes hang; that catches it too.
const suiteTimeout = "5m"

// event is a line of go test -json.
type event struct{ Action, Package, Test, Output, FailedBuild string }

// test runs one suite until the first failure, and answers the test that failed, "" if none did.
func (t *tree) test(ctx context.Context, suite []string) (failed string, err error) {
	args := append([]string{"test", "-json", "-vet=off", "-count=1", "-failfast", "-timeout=" + suiteTimeout}, suite...)
	out, runErr := t.command(ctx, args...).Output()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	failed, ran, err := verdict(out)
	var exit *exec.ExitError
	switch {
	case err != nil:
		return "", err
	case runErr == nil && ran == 0:
		return "", fmt.Errorf("go %s: no test ran", strings.Join(args, " "))
	case runErr == nil:
		return "", nil
	case failed == "" || !errors.As(runErr, &exit):
		return "", fmt.Errorf("go %s: %w, and no test failed: %s", strings.Join(args, " "), runErr, out)
	}
	return failed, nil
}

// verdict reads what go test said: the innermost test that failed first, and how many ended. A package that
// does not build is an error: that no test was run against it proves nothing.
func verdict(out []byte) (failed string, ran int, err error) {
	for line := range strings.Lines(string(out)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return "", 0, fmt.Errorf("go test said %q: %w", line, err)
		}
		switch {
		case e.Action == "build-fail" || e.FailedBuild != "":
			return "", 0, fmt.Errorf("package %s does not build", e.Package)
		case e.Test == "":
		case e.Action == "pass":
			ran++
		case e.Action == "fail":
			ran++
			if failed == "" {
				failed = e.Test
			}
		}
	}
	return failed, ran, nil
}
