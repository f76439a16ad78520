package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const patch = `Wrong: one is two
Suite: -short .
Suite: -run ^TestOne$ .
--- a/one.go
+++ b/one.go
@@ -2,3 +2,3 @@

-func one() int { return 1 }
+func one() int { return 2 }
 // the end
`

// Every patch must still fit the code, and every suite name tests and a package.
func TestMutants_FitTheTree(t *testing.T) {
	mutants, err := loadMutants(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(mutants) < 12 {
		t.Errorf("%d mutants, want 12 at least", len(mutants))
	}
	for _, m := range mutants {
		if _, err := m.apply(filepath.Join("..", "..")); err != nil {
			t.Error(err)
		}
		for _, suite := range m.suites {
			if last := suite[len(suite)-1]; !strings.HasPrefix(last, "./") {
				t.Errorf("%s: suite %v ends with %q, want a package", m.name, suite, last)
			}
		}
	}
}

func TestMutant_APatchThatDoesNotFitIsAnError(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"fits":        {"package p\n\nfunc one() int { return 1 }\n// the end\n", ""},
		"moved":       {"package p\n\n\n\nfunc one() int { return 1 }\n// the end\n", ""},
		"overtaken":   {"package p\n\nfunc one() int { return 3 }\n// the end\n", "fits 0 places"},
		"two places":  {strings.Repeat("\nfunc one() int { return 1 }\n// the end\n", 2), "fits 2 places"},
		"not a patch": {"", "not part of a patch"},
		"no change":   {"package p\n\nfunc one() int { return 1 }\n// the end\n", "and a change"},
	} {
		text := patch
		switch name {
		case "not a patch":
			text = "nonsense\n" + text
		case "no change":
			text = strings.ReplaceAll(text, "return 2", "return 1")
		}
		root := t.TempDir()
		mustWrite(t, filepath.Join(root, "one.go"), c.source)
		m, err := parseMutant("m", text)
		if err == nil {
			var changed map[string]string
			if changed, err = m.apply(root); err == nil && !strings.Contains(changed["one.go"], "return 2") {
				t.Errorf("%s: got %q", name, changed["one.go"])
			}
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v, want %q", name, err, c.want)
		}
	}
}

// A module of one function and one test stands for the tree.
func TestHunt_TellsCaughtFromSurvivedFromBroken(t *testing.T) {
	root := t.TempDir()
	mustWrite(t, filepath.Join(root, "go.mod"), "module one\n\ngo 1.26\n")
	mustWrite(t, filepath.Join(root, "one.go"), "package one\n\nfunc one() int { return 1 }\n// the end\n")
	mustWrite(t, filepath.Join(root, "one_test.go"), `package one

import "testing"

func TestOne(t *testing.T) {
	t.Run("inner", func(t *testing.T) {
		if one() != 1 {
			t.Error(one())
		}
	})
}

func TestOther(t *testing.T) {}
`)
	for name, c := range map[string]struct{ body, suite, by, err string }{
		"caught":        {"return 2", "-run ^TestOne .", "TestOne/inner", ""},
		"survived":      {"return 2", "-run ^TestOther .", "", ""},
		"does not run":  {"return 2", "-run ^TestNone .", "", "no test ran"},
		"does not live": {"return two", "-run ^TestOne .", "", "undefined: two"},
	} {
		m, err := parseMutant(name, strings.ReplaceAll(patch, "return 2", c.body))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		tr, err := plant(root, dir, m)
		if err != nil {
			t.Fatal(err)
		}
		by := ""
		if err = tr.compile(t.Context(), "."); err == nil {
			by, err = tr.test(t.Context(), strings.Fields(c.suite))
		}
		if by != c.by || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: caught by %q, error %v; want %q, %q", name, by, err, c.by, c.err)
		}
	}
	if by, err := (&tree{root: root}).test(t.Context(), []string{"."}); by != "" || err != nil { // the control
		t.Errorf("the tree as it is: caught by %q, error %v; want neither", by, err)
	}
}

func TestWriteTable_KeepsTheRowsOfWhatDidNotRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mutants.md")
	mustWrite(t, file, "# Head\n\n"+tableHead+"| a | old | `TestA` | 1s |\n| b | old | `TestB` | 2s |\n")
	if err := writeTable(file, []result{{m: &mutant{name: "b", wrong: "new"}, by: "TestNew"}, {m: &mutant{name: "c", wrong: "lives"}}}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	want := "# Head\n\n" + tableHead + "| a | old | `TestA` | 1s |\n| b | new | `TestNew` | 0s |\n| c | lives | **none** | 0s |\n"
	if err != nil || string(got) != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
}

func mustWrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
