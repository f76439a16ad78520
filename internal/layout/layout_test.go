// Package layout holds the test of which package may import which.
package layout

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tidemark/tidemark/"

// allowed lists, for each package, what of our own it may import, directly or through others. A package
// that is not named here may be imported by nothing that is.
var allowed = map[string][]string{
	"internal/wire": {},
	"codecs":        {"internal/wire"},
	"eos":           {"internal/wire"},
	"rules":         {"codecs", "internal/wire"},
	"processor":     {"rules", "eos", "codecs", "internal/wire"},
	"view":          {"eos", "codecs", "internal/wire", "proto/tidemark/v1", "proto/tidemark/v1/tidemarkv1connect"},
	"view/guard":    {"view", "eos", "codecs", "internal/wire", "proto/tidemark/v1", "proto/tidemark/v1/tidemarkv1connect"},
	"ops":           {"rules", "eos", "codecs", "internal/wire"},
	// It implements what the view asks of a producer, and makes its tokens.
	"ingest": {"view", "rules", "eos", "codecs", "internal/wire", "proto/tidemark/v1", "proto/tidemark/v1/tidemarkv1connect"},
	"client": {"proto/tidemark/v1", "proto/tidemark/v1/tidemarkv1connect"},

	"internal/history": {"eos", "codecs", "internal/wire"},
}

func TestImports_FollowTheArrowsOfTheLayout(t *testing.T) {
	for pkg, may := range allowed {
		for _, dep := range ownDeps(t, pkg) {
			if dep != pkg && !slices.Contains(may, dep) {
				t.Errorf("%s imports %s; want only %v", pkg, dep, may)
			}
		}
	}
	for _, pkg := range []string{"rules", "client"} {
		for _, dep := range externalDeps(t, pkg) {
			if strings.Contains(dep, "IBM/sarama") || strings.Contains(dep, "twmb/franz-go") || strings.Contains(dep, "lovoo/goka") {
				t.Errorf("%s imports %s; want nothing of Kafka", pkg, dep)
			}
		}
	}
	for _, pkg := range []string{"cmd/tidemark"} {
		if slices.Contains(externalDeps(t, pkg), "runtime/cgo") {
			t.Errorf("%s needs cgo; want none in the main binary", pkg)
		}
	}
}

func ownDeps(t *testing.T, pkg string) []string {
	t.Helper()
	var own []string
	for _, dep := range externalDeps(t, pkg) {
		if rest, ok := strings.CutPrefix(dep, module); ok {
			own = append(own, rest)
		}
	}
	return own
}

func externalDeps(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", module+pkg)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	return strings.Fields(string(out))
}
