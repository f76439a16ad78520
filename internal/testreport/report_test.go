package main

import (
	"strings"
	"testing"
)

func TestReport_NamesEachSkipAndFailure(t *testing.T) {
	const pass = `{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"skip","Package":"empty","Elapsed":0}
{"Action":"pass","Package":"p","Elapsed":0.5}
`
	const skip = `{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: a tool is missing: java\n"}
{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}
`
	for _, c := range []struct {
		what, events, want string
		ok, okRequired     bool
	}{
		{"all passed", pass, "1 passed, 0 failed, 0 skipped", true, true},
		{"one skipped", skip + pass, "p TestB: b_test.go:7: a tool is missing: java", true, false},
		{"one failed", `{"Action":"output","Package":"p","Test":"TestC","Output":"got 1\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
` + pass, "got 1", false, false},
		{"a package panicked", pass + `{"Action":"output","Package":"q","Test":"TestD","Output":"panic: D\n"}
{"Action":"fail","Package":"q"}
`, "panic: D", false, false},
		{"a build failed", pass + `{"Action":"build-output","ImportPath":"q","Output":"q.go:1: no\n"}
{"Action":"build-fail","ImportPath":"q"}
{"Action":"fail","Package":"q","FailedBuild":"q"}
`, "q.go:1: no", false, false},
		{"nothing ran", "", "0 passed", false, false},
	} {
		var out strings.Builder
		r := newReport(&out)
		if err := r.read(strings.NewReader(c.events)); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		r.end()
		if !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), "noise") {
			t.Errorf("%s: got\n%s\nwant %q and no noise", c.what, out.String(), c.want)
		}
		if r.ok(false) != c.ok || r.ok(true) != c.okRequired {
			t.Errorf("%s: ok %v, with REQUIRE=1 %v, want %v and %v", c.what, r.ok(false), r.ok(true), c.ok, c.okRequired)
		}
	}
}
