package overlay

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestWrite_FitsTheInstalledGo(t *testing.T) {
	file, err := Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Replace map[string]string }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for installed, changed := range list.Replace {
		was, err := os.ReadFile(installed)
		if err != nil {
			t.Error(err)
		}
		is, err := os.ReadFile(changed)
		if err != nil || string(is) == string(was) {
			t.Errorf("%s stands in for %s unchanged: %v", changed, installed, err)
		}
	}
	if len(list.Replace) != len(edits) {
		t.Errorf("%d files are replaced, want %d", len(list.Replace), len(edits))
	}
}

func TestApply_NamesWhatDoesNotFit(t *testing.T) {
	got, err := apply("a b", []edit{{"a", "c"}, {"", " d"}})
	if got != "c b d" || err != nil {
		t.Errorf("got %q, %v, want \"c b d\"", got, err)
	}
	if _, err := apply("a b", []edit{{"x", "y"}}); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("got %v, want an error that names x", err)
	}
}
