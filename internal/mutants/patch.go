package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mutant is one wrong version of the core.
type mutant struct {
	name   string     // of its file
	wrong  string     // what is wrong with it, for people
	suites [][]string // arguments of go test that should catch it, the cheapest first
	hunks  []hunk
}

// hunk is one place of a unified diff: the lines that must be there, and what stands there instead.
type hunk struct{ file, old, new string }

// loadMutants reads the patches of a directory in the order of their names.
func loadMutants(dir string) ([]*mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no patches in %s", dir)
	}
	if err != nil {
		return nil, err
	}
	var all []*mutant
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		m, err := parseMutant(strings.TrimSuffix(filepath.Base(f), ".patch"), string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// parseMutant reads a head of "Wrong:" and "Suite:" lines and the unified diff behind it.
func parseMutant(name, text string) (*mutant, error) {
	m := &mutant{name: name}
	file := ""
	var in *hunk
	for n, line := range strings.SplitAfter(text, "\n") {
		label, rest, _ := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, "--- "):
			in = nil
		case strings.HasPrefix(line, "+++ b/"):
			file = strings.TrimSpace(strings.TrimPrefix(line, "+++ b/"))
		case strings.HasPrefix(line, "@@ ") && file != "":
			m.hunks = append(m.hunks, hunk{file: file})
			in = &m.hunks[len(m.hunks)-1]
		case in != nil:
			if err := in.add(line); err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
		case label == "Wrong":
			m.wrong = strings.TrimSpace(rest)
		case label == "Suite":
			m.suites = append(m.suites, strings.Fields(rest))
		case strings.TrimSpace(line) != "":
			return nil, fmt.Errorf("line %d is not part of a patch: %q", n+1, line)
		}
	}
	if m.wrong == "" || len(m.suites) == 0 || len(m.hunks) == 0 {
		return nil, errors.New("a patch needs a line Wrong:, a line Suite: and a unified diff")
	}
	return m, nil
}

func (h *hunk) add(line string) error {
	if line == "" { // after the last line
		return nil
	}
	switch line[0] {
	case ' ':
		h.old += line[1:]
		h.new += line[1:]
	case '-':
		h.old += line[1:]
	case '+':
		h.new += line[1:]
	case '\n':
		h.old += line
		h.new += line
	default:
		return fmt.Errorf("%q is no line of a diff", line)
	}
	return nil
}

// apply answers the changed files by name, as they are with the mutant in them. Each hunk must fit at exactly one
// place, wherever that is now: a patch that was overtaken by the code is an error and not a mutant.
func (m *mutant) apply(root string) (map[string]string, error) {
	changed := map[string]string{}
	for i, h := range m.hunks {
		source, ok := changed[h.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(h.file)))
			if err != nil {
				return nil, fmt.Errorf("mutant %s: %w", m.name, err)
			}
			source = string(b)
		}
		if n := strings.Count(source, h.old); n != 1 || h.old == h.new {
			return nil, fmt.Errorf("mutant %s: hunk %d fits %d places of %s, want one, and a change: make the patch anew from the code as it is", m.name, i+1, n, h.file)
		}
		changed[h.file] = strings.Replace(source, h.old, h.new, 1)
	}
	return changed, nil
}
