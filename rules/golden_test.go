package rules

import (
	"encoding/hex"
	flags "flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// update writes the golden file anew. It is what earlier versions wrote: a change of it is a change of a format, and
// needs a new format version.
var update = flags.Bool("update", false, "write the golden files anew")

const goldenJob = `
name: golden
input: {topic: in, id: event.id, time: event.t, max_ahead: 100000d}
totals:
  a: {avg: event.v}
  b: {last: event.s}
  c: {list: event.s, max_items: 3}
  d: {min: event.v, window: 10s}
  e: {avg: event.v, window: 10s, grain: 1s}
  f: {list: event.s, window: 10s}
  g: {count: true, window: 10s}
flags:
  low: {when: totals.d < 2, clear: totals.g > 25}
`

func TestGolden_RecordsOfAState(t *testing.T) {
	smallChunks(t)
	rs := mustLoad(t, goldenJob)
	a, st, now := rs.NewApplier(), rs.NewState(), records{}
	for i := range 60 {
		scalar := []string{`"é"`, "true", "-0.50", `""`, "null", "12345678901234567890.5"}[i%6]
		mustApply(t, a, st, fmt.Sprintf(`{"id":"x","t":%d,"v":%d.%d,"s":%s}`, i*300-i%7*200-5000, i%9, i%10, scalar))
		if i%10 == 9 {
			st.Encode("x", now.write)
		}
	}
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(now)) {
		fmt.Fprintf(&text, "%x %x\n", key, now[key])
	}
	const path = "testdata/state.golden"
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(old) {
		t.Errorf("written now\n%s\nwant, as earlier versions wrote,\n%s", text.String(), old)
	}

	table := records{}
	for line := range strings.Lines(string(old)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		k, err := hex.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		if table[string(k)], err = hex.DecodeString(value); err != nil {
			t.Fatal(err)
		}
	}
	if len(table) < 5 {
		t.Errorf("%d records; want the state and some chunks", len(table))
	}
	again, err := rs.DecodeState("x", table["x"], table.read)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.describe(), st.describe(); got != want {
		t.Errorf("the old bytes read as %s, want %s", got, want)
	}
	base := string(table["x"])
	again.Encode("x", table.write)
	if string(table["x"]) != base {
		t.Errorf("written again: %x, want %x", table["x"], base)
	}
}
