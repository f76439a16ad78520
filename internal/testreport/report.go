package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// event is one line of go test -json (go doc cmd/test2json; build events: go help buildjson).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build events
	Test       string
	Output     string
	Elapsed    float64
}

type name struct{ pkg, test string }

func (n name) String() string { return n.pkg + " " + n.test }

// report gathers what go test tells.
type report struct {
	to      io.Writer
	output  map[name][]string // of tests that still run; under "" of the package
	passed  int
	failed  int
	skipped []string
	times   []timed
	begun   time.Time
}

type timed struct {
	name    name
	seconds float64
}

func newReport(to io.Writer) *report {
	return &report{to: to, output: map[name][]string{}, begun: time.Now()}
}

// read takes all events, and prints packages and failures as they come.
func (r *report) read(from io.Reader) error {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				r.take(e)
			} else {
				fmt.Fprintf(r.to, "%s", line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the events of go test: %w", err)
		}
	}
}

func (r *report) take(e event) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[n] = append(r.output[n], e.Output)
	case "build-output":
		fmt.Fprint(r.to, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.takePackage(e)
		} else {
			r.takeTest(e)
		}
		delete(r.output, n)
	}
}

func (r *report) takeTest(e event) {
	n := name{e.Package, e.Test}
	if !strings.Contains(e.Test, "/") {
		r.times = append(r.times, timed{n, e.Elapsed})
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped = append(r.skipped, fmt.Sprintf("%v: %s", n, reason(r.output[n])))
	case "fail":
		r.failed++
		fmt.Fprintf(r.to, "--- FAIL: %v\n%s", n, strings.Join(r.output[n], ""))
	}
}

// takePackage prints a package's line. One without tests comes as skipped, and is none that somebody left out.
func (r *report) takePackage(e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.to, "ok    %s  %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		r.failed++
		for n, output := range r.output { // of tests that a panic or a timeout cut off
			if n.pkg == e.Package {
				fmt.Fprint(r.to, strings.Join(output, ""))
			}
		}
		fmt.Fprintf(r.to, "FAIL  %s  %.1fs\n", e.Package, e.Elapsed)
	}
}

// reason is what the test said when it was skipped: its output without go test's own lines.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	return cmp.Or(strings.Join(said, " "), "no reason given")
}

// slowestShown is how many tests the summary names.
const slowestShown = 10

func (r *report) end() {
	slices.SortFunc(r.times, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	fmt.Fprintln(r.to, "\nslowest:")
	for _, t := range r.times[:min(slowestShown, len(r.times))] {
		fmt.Fprintf(r.to, "  %6.1fs  %v\n", t.seconds, t.name)
	}
	if len(r.skipped) > 0 {
		fmt.Fprintln(r.to, "\nSKIPPED:")
		for _, s := range r.skipped {
			fmt.Fprintf(r.to, "  %s\n", s)
		}
	}
	fmt.Fprintf(r.to, "\n%d passed, %d failed, %d skipped in %v\n", r.passed, r.failed, len(r.skipped), time.Since(r.begun).Round(time.Second))
}

// ok tells whether the run counts as passed. Where everything is required, and where nothing ran, it must not.
func (r *report) ok(require bool) bool {
	return r.failed == 0 && r.passed > 0 && (!require || len(r.skipped) == 0)
}
