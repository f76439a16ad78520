package chaos

import (
	"strings"
	"testing"
)

func TestReport_OrdersThatNobodyObeyedAreNoTest(t *testing.T) {
	for _, kind := range stepKinds {
		for obeyed, want := range []string{"none of 2 came by its step", ""} {
			r := &Report{Faults: map[string]int{kindKill: 3, kind: 2}, Obeyed: map[string]int{kind: obeyed}}
			r.holdTo(&Config{})
			if got := strings.Join(r.Blames, "\n"); r.OK() != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s, obeyed %d times: got %q, want %q", kind, obeyed, got, want)
			}
		}
	}
}
