// Package overlay makes a Go runtime whose chance and preemption can be seeded: copies of some of its files, for go build
// -overlay to put in place of the installed ones. The tag simruntime tells package sim that it is built so.
//
// It changes, for goroutines in a testing/synctest bubble:
//
//   - a goroutine that waits for a mutex counts as blocked, so that time goes on: sarama holds one while it dials and while
//     it waits for the first answer of a broker; the time after which a mutex is handed over is the bubble's
//
// and once a seed is set
//
//   - the order of select's ready cases and of maps, and whatever math/rand draws, follow from it: all of them ask the
//     runtime for a number; so does the order in which goroutines that became ready run; a context ends its children in the
//     order of their age, not of their addresses
//   - no goroutine is taken off its processor because it ran for 10 ms or sat in a system call for 20 us, which the
//     machine's load decides.
//
// It fails by name where the installed Go is not one that it knows.
package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// edit replaces old, which must occur, or adds new at the end of the file where old is empty.
type edit struct{ old, new string }

// edits are by the path of a file below GOROOT/src.
var edits = map[string][]edit{
	"runtime/rand.go": {
		{
			"func rand() uint64 {\n",
			"func rand() uint64 {\n\tif simSeeded() {\n\t\treturn simNext(&simSeed)\n\t}\n",
		},
		// A new thread is no event of the bubble.
		{"\tmp.cheaprand = rand()\n", "\tmp.cheaprand = bootstrapRand()\n"},
		// The hash of strings in maps is keyed once, at the start of the process.
		{
			"\tglobalRand.state.Init(*seed)\n",
			"\tclear(seed[:])\n\tglobalRand.state.Init(*seed)\n",
		},
		{"", `
// simSeed is where the numbers of bubbles come from, 0 for the usual ones.
//
//go:linkname simSeed
var simSeed uint64

// simOrder is the same for the order of goroutines.
//
//go:linkname simOrder
var simOrder uint64

// simCheap is cheaprand for what a bubble can see. The runtime's own uses keep theirs: how often a lock of its is contended
// depends on the machine.
func simCheap() uint32 {
	if simSeeded() {
		return uint32(simNext(&simSeed) >> 32)
	}
	return cheaprand()
}

//go:nosplit
func simSeeded() bool {
	if simSeed == 0 {
		return false
	}
	gp := getg().m.curg
	return gp != nil && gp.bubble != nil
}

// simNext is splitmix64.
//
//go:nosplit
func simNext(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
`},
	},
	"runtime/proc.go": {
		{
			"\tif randomizeScheduler && next && randn(2) == 0 {\n",
			"\tif simOrder != 0 && next && gp.bubble != nil && simNext(&simOrder)>>62 == 0 {\n\t\tnext = false\n\t}\n" +
				"\tif randomizeScheduler && simSeed == 0 && next && randn(2) == 0 {\n",
		},
		{"\t\tif retake(now) != 0 {\n", "\t\tif simSeed == 0 && retake(now) != 0 {\n"},
	},
	"runtime/runtime2.go": {{
		"\twaitReasonSyncCondWait:          true,\n",
		"\twaitReasonSyncCondWait:          true,\n\twaitReasonSyncMutexLock:         true,\n" +
			"\twaitReasonSyncRWMutexRLock:      true,\n\twaitReasonSyncRWMutexLock:       true,\n",
	}},
	// Caches of type switches, which are made by chance, and take memory: maps are ordered by addresses too.
	"runtime/iface.go": {
		{"cheaprand()&1023 ", "simCheap()&1023 "},
		{"cheaprand()&uint32(oldC.Mask)", "simCheap()&uint32(oldC.Mask)"},
	},
	"runtime/select.go": {{
		"\t\tj := cheaprandn(uint32(norder + 1))\n",
		"\t\tj := uint32((uint64(simCheap()) * uint64(norder+1)) >> 32)\n",
	}},
	"runtime/time.go": {{"\t\t\tt.rand = cheaprand()\n", "\t\t\tt.rand = simCheap()\n"}},
	// A context ends those that were made of it in the order of their addresses.
	"context/context.go": {
		{"map[canceler]struct{}", "map[canceler]uint64"},
		{"p.children[child] = struct{}{}", "p.children[child] = simMade.Add(1)"},
		{"range c.children {", "range simByAge(c.children) {"},
		{"", `
var simMade atomic.Uint64

// simByAge orders children as they were made.
func simByAge(children map[canceler]uint64) func(yield func(canceler) bool) {
	list := make([]canceler, 0, len(children))
	for child := range children {
		list = append(list, child)
		for i := len(list) - 1; i > 0 && children[list[i]] < children[list[i-1]]; i-- {
			list[i], list[i-1] = list[i-1], list[i]
		}
	}
	return func(yield func(canceler) bool) {
		for _, child := range list {
			if !yield(child) {
				return
			}
		}
	}
}
`},
	},
	// A mutex hands itself over after 1 ms of waiting.
	"runtime/sema.go": {{
		"func internal_sync_nanotime() int64 {\n",
		"func internal_sync_nanotime() int64 {\n\tif b := getg().bubble; b != nil {\n\t\treturn b.now\n\t}\n",
	}, {"\ts.ticket = cheaprand() | 1\n", "\ts.ticket = simCheap() | 1\n"}},
}

// Write fills dir and answers the file that go build -overlay takes.
func Write(dir string) (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for its GOROOT: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, list := range edits {
		from := filepath.Join(strings.TrimSpace(string(root)), "src", filepath.FromSlash(name))
		source, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		text, err := apply(string(source), list)
		if err != nil {
			return "", fmt.Errorf("%s: %w", from, err)
		}
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[from] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, list, 0o600)
}

func apply(text string, edits []edit) (string, error) {
	for _, e := range edits {
		if e.old == "" {
			text += e.new
			continue
		}
		if !strings.Contains(text, e.old) {
			return "", fmt.Errorf("%q does not occur: adapt internal/sim/overlay to this version of Go, or use one that it knows (GOTOOLCHAIN=go1.26.8)", e.old)
		}
		text = strings.ReplaceAll(text, e.old, e.new)
	}
	return text, nil
}
