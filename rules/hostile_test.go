package rules

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// filled repeats what line gives for 0, 1, 2 … until about size bytes are there.
func filled(size int, line func(i int) string) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		b.WriteString(line(i))
	}
	return b.String()
}

func rows(n int, line func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i))
	}
	return b.String()
}

// hostileJobs are files of about size bytes that are made to cost more than they should, with a part of the fault that each
// must give; "" where it must load.
func hostileJobs(size int) map[string][2]string {
	const head = "name: x\ninput: {topic: t}\n"
	flag := func(when string) string { return head + "flags: {a: {when: '" + when + "'}}\n" }
	again := func(s string) string { return strings.Repeat(s, max(1, size/len(s))) }
	names := min(namedMax, size/200)
	longNames := head + "totals:\n" + rows(names, func(i int) string { return fmt.Sprintf("  %s%d: {count: true}\n", strings.Repeat("t", 180), i) })
	return map[string][2]string{
		"aliases of aliases": {"name: x\na0: &a0 [x]\n" + filled(size, func(i int) string {
			return fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 9))
		}), `unknown key "a0"`},
		"alias of itself":    {"&a [*a]", "anchors and aliases have no meaning"},
		"merge":              {"name: &n {a: 1}\n<<: [*n, *n]\n", `unknown key "<<"`},
		"nested lists":       {again("["), ""},
		"nested mappings":    {again("{a: "), ""},
		"nested items":       {again("- "), ""},
		"nested keys":        {again("? "), ""},
		"keys in a list":     {"[" + again("a:,") + "]", "must be a mapping"},
		"unknown keys":       {filled(size, func(i int) string { return fmt.Sprintf("%x: 1\n", i) }), "unknown key"},
		"one key":            {again("a: 1\n"), `unknown key "a"`},
		"a long key":         {strings.Repeat("a", 1000) + ": 1\n" + head, "unknown key"},
		"anchors":            {filled(size, func(i int) string { return fmt.Sprintf("a%d: &a%d x\n", i, i) }), "unknown key"},
		"tags":               {"name: " + again("!"), "tags have no meaning"},
		"documents":          {again("---\n"), ""},
		"comments":           {again("#\n"), "is empty"},
		"blank lines":        {flag(again("\n") + "zz"), ""},
		"faults in one line": {"{name: x, input: {topic: t}, flags: {" + filled(size, func(i int) string { return fmt.Sprintf("f%d: {when: '%szz'}, ", i, strings.Repeat("id == id && ", 80)) }) + "}}", "unknown name zz"},
		"unknown totals": {longNames + "flags:\n" + filled(size, func(i int) string {
			return fmt.Sprintf("  f%d: {when: '%strue'}\n", i, strings.Repeat("totals.uuuuuuu>1||", 30))
		}), "no total named"},
		"a long unknown name": {
			longNames + "flags: {a: {when: totals." + strings.Repeat("u", min(size, 16000)) + " > 1}}\n", "no total named",
		},
		"nested parentheses": {flag(strings.Repeat("(", 8000) + "true" + strings.Repeat(")", 8000)), "recursion limit"},
		"nested members":     {flag("event" + strings.Repeat(".a", 8000) + " == 1"), "recursion"},
		"macros in a row":    {flag("event.l" + strings.Repeat(".map(x, x)", 99) + " == []"), "recursion"},
		"a long expression":  {flag(again("true && ") + "true"), ""},
		"syntax errors":      {flag(strings.Repeat("@ ", 8000)), "cannot be read"},
		"a huge number":      {flag("1e999999999 > 1"), "magnitude of 1e34"},
		"a long number":      {flag(`decimal("` + strings.Repeat("9", min(size, 15000)) + `") > 1`), "digits"},
		"a wide pattern":     {flag(`event.s.matches("` + strings.Repeat("(x?){1000}", 90) + `")`), "unfold to"},
		"as many as allowed": {head + "totals:\n" + rows(names, func(i int) string {
			return fmt.Sprintf("  t%05d: {sum: event.x, when: event.x > 1}\n", i)
		}) + "flags:\n" + rows(names, func(i int) string {
			return fmt.Sprintf("  f%05d: {when: totals.t00001 > 1, clear: totals.t00002 < 1}\n", i)
		}), "loads"},
	}
}

// Each file takes well under a second; before there were bounds some took minutes. The limit is wide, for the race detector
// on a busy machine.
func TestLoad_HostileFilesEndSoonAndTakeLittleMemory(t *testing.T) {
	const size, allocatedMax, within = 256 << 10, 512 << 20, 15 * time.Second
	for name, c := range hostileJobs(size) {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			rs, err := Load([]byte(c[0]))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > allocatedMax || took > within {
				t.Errorf("%d bytes took %v and %d MiB, want less than %v and %d MiB", len(c[0]), took, got>>20, within, allocatedMax>>20)
			}
			switch {
			case c[1] == "loads":
				if err != nil || rs == nil {
					t.Fatalf("got %v, want it to load", err)
				}
			case err == nil || !strings.Contains(err.Error(), c[1]):
				t.Errorf("got %.300v, want a fault with %q", err, c[1])
			}
			if faults, ok := err.(*Faults); ok && len(*faults) > faultsMax+1 {
				t.Errorf("got %d faults, want at most %d and a last one that says so", len(*faults), faultsMax)
			}
		})
	}
}

func TestLoad_SaysThatThereAreMoreFaults(t *testing.T) {
	src := func(unknown int) string {
		return "name: x\ninput: {topic: t}\n" + rows(unknown, func(i int) string { return fmt.Sprintf("k%04d: 1\n", i) })
	}
	const more = "there are more faults than these"
	if _, err := Load([]byte(src(faultsMax))); err == nil || strings.Contains(err.Error(), more) {
		t.Errorf("%d faults: got %.100v, want them alone", faultsMax, err)
	}
	_, err := Load([]byte(src(faultsMax + 1)))
	if err == nil || !strings.HasSuffix(err.Error(), more+": mend them first") {
		t.Errorf("%d faults: got %.100v, want the last line to say that there are more", faultsMax+1, err)
	}
}
