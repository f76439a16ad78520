package kafkatest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTools_MavenIsNeededOnlyToFetch(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if err := os.WriteFile(filepath.Join(dir, "java"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tools(false); err != nil {
		t.Errorf("with java and the jars: got %v, want nothing", err)
	}
	if err := tools(true); !errors.Is(err, ErrTool) || !strings.Contains(err.Error(), "apt-get install maven") {
		t.Errorf("with java, without the jars: got %v, want mvn and how to get it", err)
	}
}
