// Command systemtest runs Goka's own system tests on three brokers of a real Kafka: as they stand, and over eos.Unit, which the
// package goka beside this puts in the place of Goka's builders. It ends with 1 where an outcome is not the one that
// docs/goka-systemtests.md gives; that table is made of what is declared here (-table prints it). It cannot run twice at once: Goka's
// tests have paths of their own in /tmp.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

const (
	gokaPackage  = "github.com/lovoo/goka"
	standIn      = "github.com/tidemark/tidemark/internal/systemtest/goka"
	testsPackage = gokaPackage + "/systemtest"
	folder       = "internal/systemtest" // from the root of the repository
	document     = "docs/goka-systemtests.md"
	testsWithin  = "2m" // a test that waits for what never comes
	readyWithin  = 5 * time.Minute
)

// leftByGoka are the paths that Goka's tests and defaults have.
var leftByGoka = []string{"/tmp/goka-rebalance-test", "/tmp/goka/processor/goka?systemtest*", "/tmp/goka/view/goka?systemtest*"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "systemtest: %v\n", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flag.NewFlagSet("systemtest", flag.ContinueOnError)
	only := fs.String("only", "", "the tests whose names contain this")
	subject := fs.String("subject", "", "stock or ours; default: both")
	table := fs.Bool("table", false, "print the table of docs/goka-systemtests.md, and run nothing")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *table {
		printTable(out)
		return nil
	}
	if err := documented(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tidemark-systemtest-*")
	if err != nil {
		return err
	}
	differ := 0
	defer func() {
		err = errors.Join(err, clean())
		if differ > 0 {
			fmt.Fprintf(out, "what the tests said stays in %s\n", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	for _, s := range []subjectTests{
		{"stock", buildStock, func(t *test) outcome { return t.stock }},
		{"ours", buildOurs, func(t *test) outcome { return t.ours }},
	} {
		if *subject != "" && *subject != s.name {
			continue
		}
		n, err := s.run(ctx, dir, *only, out)
		differ += n
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if differ > 0 {
		return fmt.Errorf("%d outcomes are not those that are declared", differ)
	}
	return nil
}

// documented compares the table of the document with what is declared.
func documented() error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	var table bytes.Buffer
	printTable(&table)
	if !bytes.Contains(text, table.Bytes()) {
		return fmt.Errorf("%s has another table; -table prints it", document)
	}
	return nil
}

func clean() (err error) {
	for _, pattern := range leftByGoka {
		paths, globErr := filepath.Glob(pattern)
		err = errors.Join(err, globErr)
		for _, path := range paths {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// subjectTests are the tests over one of the two.
type subjectTests struct {
	name  string
	build func(ctx context.Context, dir, binary string) error
	want  func(*test) outcome
}

// run answers how many outcomes are not as declared.
func (s subjectTests) run(ctx context.Context, dir, only string, out io.Writer) (differ int, err error) {
	binary := filepath.Join(dir, s.name+".test")
	if err := s.build(ctx, dir, binary); err != nil {
		return 0, err
	}
	if err := allDeclared(ctx, binary); err != nil {
		return 0, err
	}
	start, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	cluster, err := kafkatest.Start(start, kafkatest.Options{Brokers: 3})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	passed := 0
	for _, t := range tests {
		if !strings.Contains(t.name, only) {
			continue
		}
		began := time.Now()
		said, ok := runTest(ctx, dir, binary, t.name, cluster.Addrs())
		if ctx.Err() != nil {
			return differ, ctx.Err()
		}
		if err := os.WriteFile(filepath.Join(dir, s.name+"-"+t.name+".log"), said, 0o600); err != nil {
			return differ, err
		}
		verdict, fine := s.want(&t).judge(ok, said)
		if !fine {
			differ++
		}
		if ok {
			passed++
		}
		fmt.Fprintf(out, "%-5s  %-38s  %5.1f s  %s\n", s.name, t.name, time.Since(began).Seconds(), verdict)
	}
	fmt.Fprintf(out, "%-5s  %d passed\n", s.name, passed)
	return differ, nil
}

// runTest runs one test in a process of its own: some of them end their process.
func runTest(ctx context.Context, dir, binary, name string, brokers []string) (said []byte, ok bool) {
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.run", "^"+name+"$", "-test.timeout", testsWithin)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOKA_SYSTEMTEST=1", "GOKA_SYSTEMTEST_BROKERS="+strings.Join(brokers, ","), "TMPDIR="+dir)
	said, err := cmd.CombinedOutput()
	return said, err == nil && bytes.Contains(said, []byte("\n--- PASS: "+name+" "))
}

// allDeclared compares the tests that there are with those that are declared.
func allDeclared(ctx context.Context, binary string) error {
	list, err := exec.CommandContext(ctx, binary, "-test.list", ".").Output()
	if err != nil {
		return fmt.Errorf("list the tests: %w", err)
	}
	there, declared := strings.Fields(string(list)), []string{}
	for _, t := range tests {
		declared = append(declared, t.name)
	}
	slices.Sort(there)
	slices.Sort(declared)
	if !slices.Equal(there, declared) {
		return fmt.Errorf("the tests are %v, declared are %v", there, declared)
	}
	return nil
}

func buildStock(ctx context.Context, _, binary string) error {
	_, err := goTool(ctx, "test", "-c", "-o", binary, testsPackage)
	return err
}

// buildOurs compiles a copy in which Goka's import and the declared lines are others. The copy lies over this folder for the
// compiler alone.
func buildOurs(ctx context.Context, dir, binary string) error {
	from, err := goTool(ctx, "list", "-f", "{{.Dir}}", testsPackage)
	if err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(strings.TrimSpace(from), "*.go"))
	if err != nil {
		return err
	}
	here, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	over := map[string]string{}
	left := slices.Clone(edits)
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		name := filepath.Base(source)
		copied := strings.Replace(string(text), `"`+gokaPackage+`"`, `"`+standIn+`"`, 1)
		left = slices.DeleteFunc(left, func(e edit) bool {
			if e.file != name || !strings.Contains(copied, e.old) {
				return false
			}
			copied = strings.Replace(copied, e.old, e.new, 1)
			return true
		})
		over[filepath.Join(here, "ours", name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(copied), 0o600); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("no place for these changes: %v", left)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": over})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return err
	}
	_, err = goTool(ctx, "test", "-c", "-vet=off", "-overlay", path, "-o", binary, "./ours")
	return err
}

func goTool(ctx context.Context, args ...string) (string, error) {
	var errs strings.Builder
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = folder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return string(out), nil
}
