package main

import (
	"strings"
	"testing"

	"github.com/tidemark/tidemark/eos"
)

// A fail-stop may be about records that are lost already: all that it says of itself is that it has changed nothing.
func TestReport_AFailStopPromisesOnlyThatNothingWasChanged(t *testing.T) {
	var b strings.Builder
	code := report(&b, eos.Stop(nil, "mend it", "records were deleted before they were counted"))
	want := "tidemark: stopped, nothing was changed: records were deleted before they were counted: mend it\n"
	if code != exitFailStop || b.String() != want {
		t.Errorf("got %d, %q, want %d, %q", code, b.String(), exitFailStop, want)
	}
}
