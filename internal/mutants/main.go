// Command mutants shows that the tests notice what they are there to notice. Each patch beside it makes a wrong
// version of the core. Every one of them must build, and must be caught: first by the suites that its patch
// names, and failing these by the whole of eos and processor. The same suites must pass on the tree as it is.
//
// Run it from the root of the module (make mutants); arguments are the names of the mutants, all by default.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// whole is what is run against a mutant that its own suites let pass.
var whole = [][]string{{"-short", "./eos"}, {"./eos"}, {"./processor"}}

func main() {
	control := flag.Bool("control", true, "first run the suites on the tree as it is")
	write := flag.String("write", "", "file whose table of mutants is replaced by this run's")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *control, *write, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, control bool, write string, names []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	mutants, err := loadMutants(filepath.Join(root, "internal", "mutants"))
	if err != nil {
		return err
	}
	if mutants, err = choose(mutants, names); err != nil {
		return err
	}
	for _, m := range mutants { // all of them, before an hour is spent on some
		if _, err := m.apply(root); err != nil {
			return err
		}
	}
	if control {
		if err := passes(ctx, &tree{root: root}, mutants); err != nil {
			return err
		}
	}
	var results []result
	survived := 0
	for _, m := range mutants {
		r, err := hunt(ctx, root, m)
		if err != nil {
			return err
		}
		fmt.Printf("%-34s %-9s %s\n", m.name, r.took.Round(100*time.Millisecond), r.says())
		if results = append(results, r); r.by == "" {
			survived++
		}
	}
	fmt.Printf("%d mutants, %d survived\n", len(results), survived)
	if write != "" {
		if err := writeTable(write, results); err != nil {
			return err
		}
	}
	if survived > 0 {
		return fmt.Errorf("%d mutants survived: a test is missing for each", survived)
	}
	return nil
}

func choose(all []*mutant, names []string) ([]*mutant, error) {
	var chosen []*mutant
	for _, name := range names {
		i := slices.IndexFunc(all, func(m *mutant) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no mutant is called %q", name)
		}
		chosen = append(chosen, all[i])
	}
	if len(names) == 0 {
		return all, nil
	}
	return chosen, nil
}

// passes is the control: a suite that fails without a mutant catches none.
func passes(ctx context.Context, t *tree, mutants []*mutant) error {
	done := map[string]bool{}
	for _, m := range mutants {
		for _, suite := range m.suites {
			text := strings.Join(suite, " ")
			if done[text] {
				continue
			}
			done[text] = true
			start := time.Now()
			failed, err := t.test(ctx, suite)
			if err == nil && failed != "" {
				err = fmt.Errorf("%s fails on the tree as it is (go test %s)", failed, text)
			}
			if err != nil {
				return fmt.Errorf("control: %w", err)
			}
			fmt.Printf("control %-9s %s\n", time.Since(start).Round(100*time.Millisecond), text)
		}
	}
	return nil
}

// result is what became of one mutant.
type result struct {
	m     *mutant
	by    string // the test that caught it, "" if it survived
	suite string
	took  time.Duration // of the suites, until it was caught
}

func (r result) says() string {
	if r.by == "" {
		return "SURVIVED: " + r.m.wrong
	}
	return "caught by " + r.by + " (" + r.suite + ")"
}

// hunt builds a mutant and runs suites against it until one fails.
func hunt(ctx context.Context, root string, m *mutant) (result, error) {
	r := result{m: m}
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	t, err := plant(root, dir, m)
	if err != nil {
		return r, err
	}
	if err := t.compile(ctx, "./eos", "./processor", "./view"); err != nil {
		return r, fmt.Errorf("mutant %s: %w", m.name, err)
	}
	start := time.Now()
	for _, suite := range slices.Concat(m.suites, whole) {
		if r.by, err = t.test(ctx, suite); err != nil {
			return r, fmt.Errorf("mutant %s: %w", m.name, err)
		}
		if r.by != "" {
			r.suite = strings.Join(suite, " ")
			break
		}
	}
	r.took = time.Since(start)
	return r, nil
}

// tableHead begins the table in the document that -write names; the table reaches to the document's end.
const tableHead = "| mutant | what is wrong | caught by | after |\n|---|---|---|---|\n"

// writeTable puts the results into the table. Rows of mutants that were not run stay.
func writeTable(file string, results []result) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, table, ok := strings.Cut(string(text), tableHead)
	if !ok {
		return fmt.Errorf("%s has no table that begins %q", file, tableHead)
	}
	rows := map[string]string{}
	for row := range strings.Lines(table) {
		name, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " ")
		rows[name] = row
	}
	for _, r := range results {
		by := "**none**"
		if r.by != "" {
			by = "`" + r.by + "`"
		}
		rows[r.m.name] = fmt.Sprintf("| %s | %s | %s | %s |\n", r.m.name, r.m.wrong, by, r.took.Round(100*time.Millisecond))
	}
	out := before + tableHead
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		out += rows[name]
	}
	return os.WriteFile(file, []byte(out), 0o600)
}
