// Package typescript has the test that the OpenAPI document is good for what others make of it: a TypeScript client is generated,
// checked by the compiler, and asks a real view.
package typescript

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark/tidemark/internal/jobtest"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// mustTools ends a test for which node or npm is missing: skipped, and failed where everything is required.
func mustTools(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("TypeScript: left out of -short")
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		why := fmt.Sprintf("a tool is missing: %s, to try a TypeScript client (Debian: apt-get install nodejs npm)", tool)
		if os.Getenv("REQUIRE") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
}

// run runs a program in the folder and gives what it printed.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// mustProject is a copy of the project with its packages and the types that are made from a document.
func mustProject(t *testing.T, document []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json", "try.ts"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "openapi.json"), document, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	run(t, dir, "node", "node_modules/openapi-typescript/bin/cli.js", "openapi.json", "-o", "schema.ts")
	return dir
}

func compile(dir string) ([]byte, error) {
	cmd := exec.Command("node", "node_modules/typescript/bin/tsc", "-p", ".")
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

func TestTypeScript_AGeneratedClientAsksAView(t *testing.T) {
	mustTools(t)
	j := jobtest.MustStart(t, jobtest.Config{})
	v := j.MustView(t)
	at, err := j.Write(t.Context(), "user/1", `{"points":40}`, `{"points":70.5}`)
	if err != nil {
		t.Fatal(err)
	}
	dir := mustProject(t, pb.OpenAPI)
	if out, err := compile(dir); err != nil {
		t.Fatalf("the program does not compile with the types of the document: %v\n%s", err, out)
	}
	got := run(t, dir, "node", "try.js", v.URL(), "user/1", at.String())
	want := `get: user/1 version 2 points "110.5" flags watched
as of past true
list: user/1 version 2 points "110.5" flags watched and no more
by flag: logins-events
batch: user/1 version 2 points "110.5" flags watched; nobody not found
nobody: 404 not_found tidemark.v1.Freshness
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// The control: with a document that lacks a field, the program does not compile.
	other := strings.ReplaceAll(string(pb.OpenAPI), `"next_page_token"`, `"next_token"`)
	if err := os.WriteFile(filepath.Join(dir, "openapi.json"), []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "node", "node_modules/openapi-typescript/bin/cli.js", "openapi.json", "-o", "schema.ts")
	if out, err := compile(dir); err == nil || !strings.Contains(string(out), "next_page_token") {
		t.Errorf("the control: got %v\n%s\nwant that next_page_token is missed", err, out)
	}
}
