package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

// A bar that nobody knows the end of must not be drawn once it was taken away.
func TestProgress_NothingDrawsAfterItsEnd(t *testing.T) {
	var out bytes.Buffer
	for _, countsBytes := range []bool{false, true} {
		p := &progress{w: &out, tty: true, bytes: countsBytes}
		p.tell("caught up", 12345, 0)
		p.end()
		p.tell("counting events", 1, 2)
		p.end()
	}
	stacks := make([]byte, 1<<20)
	if all := string(stacks[:runtime.Stack(stacks, true)]); strings.Contains(all, "progressbar") {
		t.Errorf("a bar goes on after its end:\n%s", all)
	}
	if got, want := out.String(), "caught up: 12,345 events"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}
