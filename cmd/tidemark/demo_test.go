package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDemo_EverySetEqualsItsOracleOnPlainTextOf100Columns(t *testing.T) {
	t.Parallel()
	for name, ids := range map[string]string{"ssh-auth": "202", "hurdat2-storms": "2,004", "nab-metrics": "47"} {
		t.Run(name, func(t *testing.T) {
			d := try(t, "", "demo", name, "--once")
			d.wants(t, "demo", exitDone, fmt.Sprintf("%s of %s IDs equal the independent oracle", ids, ids), "")
			if strings.Contains(d.out, "\x1b") {
				t.Error("colours where nobody looks; want plain text")
			}
			for _, line := range strings.Split(d.out, "\n") {
				if n := utf8.RuneCountInString(line); n > widthMax || strings.TrimRight(line, " ") != line {
					t.Errorf("a line of %d characters, want at most %d and no blanks at its end: %q", n, widthMax, line)
				}
			}
		})
	}
}

func TestDemo_ServesWhatItSaysUntilItIsStopped(t *testing.T) {
	t.Parallel()
	b := start(t, "demo", "--listen", "127.0.0.1:0")
	if body := fetch(t, b.says(`curl (http://\S+/v1/ids/\S+)`)); !strings.Contains(body, `"id":"24.151.103.17"`) {
		t.Errorf("the first line to try gives %s", body)
	}
	if body := fetch(t, b.says(`curl (http://\S+/v1/flags/\S+)`)); !strings.Contains(body, `"id":"24.151.103.17"`) {
		t.Errorf("the second line to try gives %s", body)
	}
	if code := b.stop(); code != exitDone {
		t.Errorf("demo ended with %d, want 0\n%s", code, b.err.String())
	}
}

func TestDemo_EveryFlagHasWords(t *testing.T) {
	t.Parallel()
	for _, set := range demoSets {
		rs, err := set.rules()
		if err != nil {
			t.Fatalf("%s: %v", set.name, err)
		}
		if rs.Job().Name != set.name {
			t.Errorf("set %s has job %s", set.name, rs.Job().Name)
		}
		for _, flag := range rs.Schema().Flags {
			if set.words[flag] == "" {
				t.Errorf("%s: flag %s has no words", set.name, flag)
			}
		}
	}
}

// TestCompare_NamesEveryKindOfDifference is the control of the demo's verdict.
func TestCompare_NamesEveryKindOfDifference(t *testing.T) {
	t.Parallel()
	one, two := "1", "2"
	at := time.Date(2017, 3, 30, 0, 0, 0, 0, time.UTC)
	state := func() *demoState {
		return &demoState{
			ID: "a", Count: 2, FirstTime: at, LastTime: at, Totals: map[string]*string{"sum": &two, "min": &one, "max": &one},
			Flags: map[string]*demoWhy{"f": {Time: at, Partition: 1, Offset: 3}},
		}
	}
	oracle := map[string]*oracleEntry{"a": {
		ID: "a", Count: 2, Sum: &two, Min: &one, Max: &one, FirstMs: at.UnixMilli(), LastMs: at.UnixMilli(),
		Flags: map[string]oracleFlag{"f": {Line: 7, Time: at}},
	}}
	w := written{}
	w.add(7, 1, 3)
	w.add(8, 1, 4)
	if equal, first := compare([]*demoState{state()}, oracle, w); equal != 1 || first != "" {
		t.Errorf("equal states: got %d, %q; want 1 and nothing", equal, first)
	}
	for what, change := range map[string]func(*demoState){
		"count":          func(s *demoState) { s.Count++ },
		"from":           func(s *demoState) { s.LastTime = at.Add(time.Second) },
		"sum":            func(s *demoState) { s.Totals["sum"] = &one },
		"max":            func(s *demoState) { s.Totals["max"] = nil },
		"not raised":     func(s *demoState) { s.Flags = nil },
		"raised by line": func(s *demoState) { s.Flags["f"].Offset = 4 },
		"not so":         func(s *demoState) { s.Flags["g"] = &demoWhy{} },
		"not in":         func(s *demoState) { s.ID = "b" },
	} {
		s := state()
		change(s)
		if equal, first := compare([]*demoState{s}, oracle, w); equal != 0 || !strings.Contains(first, what) {
			t.Errorf("%s: got %d, %q; want 0 and the difference", what, equal, first)
		}
	}
	if equal, first := compare(nil, oracle, w); equal != 0 || first != "a: missing" {
		t.Errorf("missing: got %d, %q", equal, first)
	}
}

func TestText_NumbersColumnsAndOddIDs(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) is %q, want %q", n, got, want)
		}
	}
	if got := wrap("one two three", 7); !slices.Equal(got, []string{"one two", "three"}) {
		t.Errorf("wrap gives %q", got)
	}
	for id, want := range map[string]string{"a b": "a b", `"x`: `"\"x"`, "a\nb": `"a\nb"`, "ü": "ü"} {
		got := showID(id)
		if got != want {
			t.Errorf("showID(%q) is %s, want %s", id, got, want)
		}
		if back, err := readIDs(strings.NewReader(got+"\n"), nil); err != nil || len(back) != 1 || back[0] != id {
			t.Errorf("%s reads back as %q, %v; want %q", got, back, err, id)
		}
	}
	for id, want := range map[string]string{"1.2": "1.2", "..": "%2E%2E", "a/b?c": "a%2Fb%3Fc", "ü": "%C3%BC"} {
		if got := escapeID(id); got != want {
			t.Errorf("escapeID(%q) is %s, want %s", id, got, want)
		}
	}
}
