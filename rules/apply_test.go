package rules

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidemark/tidemark/codecs"
)

const windowJob = `
name: windows
input: {topic: in, id: event.id, time: event.t, max_ahead: 100000d%s}
totals:
  n: {count: true, window: 1h}
  low: {min: event.v, window: 1h}
  all: {sum: event.v, window: 1h}
flags:
  many: {when: totals.n > 1000000}
`

// MustApply counts one event in.
func mustApply(t testing.TB, a *Applier, st *State, value string) Outcome {
	t.Helper()
	out, refusal := tryApply(t, a, st, value)
	if refusal != nil {
		t.Fatalf("%s: %v", value, refusal)
	}
	return out
}

func tryApply(t testing.TB, a *Applier, st *State, value string) (Outcome, *Refusal) {
	t.Helper()
	if _, refusal := a.Read(&Record{Topic: "in", TimestampMs: 1 << 40, Value: []byte(value)}); refusal != nil {
		t.Fatalf("%s: %v", value, refusal)
	}
	return a.Apply(st)
}

func TestApply_RefusesBeyondStateBytesAndGoesOn(t *testing.T) {
	rs := mustLoad(t, `
name: big
input: {topic: in, id: event.id, time: event.t, max_ahead: 100000d}
state_bytes_max: 8192
totals:
  texts: {list: event.v, window: 10s}
  newest: {list: event.v, max_items: 2}
`)
	a, st := rs.NewApplier(), rs.NewState()
	refused := 0
	text := strings.Repeat("x", 500)
	for i := range 40 {
		before := st.describe()
		_, refusal := tryApply(t, a, st, fmt.Sprintf(`{"id":"a","t":%d,"v":"%s"}`, i*100, text))
		if refusal == nil {
			continue
		}
		refused++
		if refusal.Reason != ReasonStateBytes {
			t.Fatalf("reason: got %s, want %s", refusal.Reason, ReasonStateBytes)
		}
		if after := st.describe(); after != before {
			t.Errorf("a refusal changed the state: got %s, want %s", after, before)
		}
	}
	if refused == 0 || refused > 36 {
		t.Errorf("refused: got %d of 40", refused)
	}
	table := records{}
	st.Encode("a", table.write)
	if size, limit := int64(len(table["a"])), rs.Job().StateBytesMax; size > limit {
		t.Errorf("encoded: got %d bytes, want at most %d", size, limit)
	}
	// An event that lets the others leave the window fits again.
	mustApply(t, a, st, fmt.Sprintf(`{"id":"a","t":60000,"v":"%s"}`, text))
}

func TestApply_RefusedEventFarAheadLeavesWindowsInPlace(t *testing.T) {
	rs := mustLoad(t, fmt.Sprintf(windowJob, ""))
	a, st := rs.NewApplier(), rs.NewState()
	for i := range 500 {
		mustApply(t, a, st, fmt.Sprintf(`{"id":"a","t":%d,"v":%d}`, i*1000, i%7))
	}
	before := st.describe()
	if _, refusal := tryApply(t, a, st, `{"id":"a","t":900000000,"v":"text"}`); refusal == nil || refusal.Reason != ReasonRule {
		t.Fatalf("got %v, want a refusal by rule", refusal)
	}
	if after := st.describe(); after != before {
		t.Errorf("got %s, want %s", after, before)
	}
	mustApply(t, a, st, `{"id":"a","t":500000,"v":1}`)
	if got, want := st.shown(nil)[2].Num.String(), "501"; got != want {
		t.Errorf("count: got %s, want %s", got, want)
	}
}

func TestApply_BoundsWhatATotalTakes(t *testing.T) {
	rs := mustLoad(t, `
name: big
input: {topic: in, id: event.id, time: event.t, max_ahead: 100000d}
totals:
  area: {sum: event.v * event.v, window: 10s}
`)
	a, st := rs.NewApplier(), rs.NewState()
	for _, v := range []string{"10000000000000000000000000", "0.00000000000000000000000001"} {
		_, refusal := tryApply(t, a, st, `{"id":"a","t":1,"v":`+v+`}`)
		if refusal == nil || refusal.Reason != ReasonRule {
			t.Errorf("%s: got %v, want a refusal by rule", v, refusal)
		}
	}
	mustApply(t, a, st, `{"id":"a","t":1,"v":1e-25}`)
	mustApply(t, a, st, `{"id":"a","t":2,"v":9999999999999999999999999}`)
	mustApply(t, a, st, `{"id":"a","t":10002,"v":null}`)
	if got, want := st.shown(nil)[0].Num.String(), "99999999999999999999999980000000000000000000000001"; got != want {
		t.Errorf("sum: got %s, want %s", got, want)
	}
}

// A total takes squares of the doubles that programs write with 17 digits, small ones too.
func TestApply_SumsSquaresOfDoubles(t *testing.T) {
	rs := mustLoad(t, `
name: variance
input: {topic: in, id: event.id, time: event.t, max_ahead: 100000d}
totals:
  squares: {sum: event.v * event.v}
`)
	a, st := rs.NewApplier(), rs.NewState()
	mustApply(t, a, st, `{"id":"a","t":1,"v":0.00030000000000000004}`)
	mustApply(t, a, st, `{"id":"a","t":2,"v":-1.7976931348623157e5}`)
	if got, want := st.shown(nil)[0].Num.String(), "32317006071.3109999220439596646649240000000000000016"; got != want {
		t.Errorf("squares: got %s, want %s", got, want)
	}
}

// Times that are finer than milliseconds are cut down to them, whether they are text or numbers.
func TestRead_CutsTimesDownToMilliseconds(t *testing.T) {
	for _, c := range []struct {
		time, event string
		want        int64
		refused     bool
	}{
		{"event.t", `{"t":"2017-03-27T13:08:09.1239Z"}`, 1490620089123, false},
		{"event.t", `{"t":1490620089123.9}`, 1490620089123, false},
		{"event.t", `{"t":1.4906200891239e12}`, 1490620089123, false},
		{"event.t", `{"t":"1969-12-31T23:59:59.9999Z"}`, -1, false},
		{"event.t", `{"t":-0.1}`, -1, false},
		{"event.t * 1000", `{"t":1490620089.123456}`, 1490620089123, false},
		{"event.t", `{"t":-62135596800000}`, -62135596800000, false},
		{"event.t", `{"t":-62135596800000.5}`, 0, true},
		{"event.t", `{"t":253402300799999.5}`, 253402300799999, false},
		{"event.t", `{"t":253402300800000}`, 0, true},
		{"event.t", `{"t":1e33}`, 0, true},
	} {
		a := mustLoad(t, "name: times\ninput: {topic: in, time: "+c.time+", max_ahead: 3000000d}\n").NewApplier()
		_, refusal := a.Read(&Record{Key: []byte("a"), TimestampMs: 1, Value: []byte(c.event)})
		switch {
		case c.refused && (refusal == nil || refusal.Reason != ReasonTime):
			t.Errorf("%s: got %v, want a refusal by time", c.event, refusal)
		case !c.refused && refusal != nil:
			t.Errorf("%s: %v", c.event, refusal)
		case !c.refused && a.TimeMs() != c.want:
			t.Errorf("%s: got %d, want %d", c.event, a.TimeMs(), c.want)
		}
	}
}

func TestEncode_WritesFewBytesPerCommitOfALargeWindow(t *testing.T) {
	rs := mustLoad(t, fmt.Sprintf(windowJob, ""))
	a, st, table := rs.NewApplier(), rs.NewState(), records{}
	ms := fillWindow(t, a, st, 50_000)
	st.Encode("a", table.write)
	written, commits := 0, 2000
	for range commits {
		ms += 72
		mustApply(t, a, st, fmt.Sprintf(`{"id":"a","t":%d,"v":%d}`, ms, ms%100))
		st.Encode("a", func(key, value []byte) {
			written += len(key) + len(value)
			table.write(key, value)
		})
	}
	perCommit := written / commits
	t.Logf("%d keys, %d bytes per commit", len(table), perCommit)
	if perCommit > 6000 {
		t.Errorf("bytes per commit: got %d, want at most 6000", perCommit)
	}
	again, err := rs.DecodeState("a", table["a"], table.read)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.describe(), st.describe(); got != want {
		t.Errorf("decoded: got %s, want %s", got, want)
	}
	live := 1
	for i := range st.tallies {
		live += len(st.tallies[i].win.chunks) - 1
	}
	if len(table) != live {
		t.Errorf("keys: got %d, want %d", len(table), live)
	}
}

// fillWindow counts entries in that lie 72 ms apart: 50,000 of them fill the hour.
func fillWindow(t testing.TB, a *Applier, st *State, entries int) (ms int64) {
	for range entries {
		ms += 72
		mustApply(t, a, st, fmt.Sprintf(`{"id":"a","t":%d,"v":%d}`, ms, ms%100))
	}
	return ms
}

func TestDecodeState_NamesWhatIsMissing(t *testing.T) {
	rs := mustLoad(t, fmt.Sprintf(windowJob, ""))
	a, st, table := rs.NewApplier(), rs.NewState(), records{}
	fillWindow(t, a, st, 1000)
	st.Encode("a", table.write)
	for key := range table {
		if key[0] == chunkKeyPrefix {
			delete(table, key)
			break
		}
	}
	if _, err := rs.DecodeState("a", table["a"], table.read); !errors.Is(err, ErrStateCorrupt) {
		t.Errorf("got %v, want %v", err, ErrStateCorrupt)
	}
}

// FuzzDecodeState wants an error or a state that goes on: never a panic.
func FuzzDecodeState(f *testing.F) {
	smallChunks(f)
	rs := mustLoad(f, `
name: fuzz
input: {topic: in, id: event.id, time: event.t, max_ahead: 100000d}
totals:
  a: {avg: event.v}
  b: {last: event.v}
  c: {list: event.v, max_items: 3}
  d: {min: event.v, window: 10s}
  e: {avg: event.v, window: 10s, grain: 1s}
  f: {list: event.v, window: 10s}
  g: {count: true, window: 10s}
flags:
  low: {when: totals.d < 2, clear: totals.g > 5}
`)
	a := rs.NewApplier()
	st, table := rs.NewState(), records{}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		mustApply(f, a, st, fmt.Sprintf(`{"id":"x","t":%d,"v":%d}`, i*300-random.IntN(2000), random.IntN(9)))
		st.Encode("x", table.write)
		f.Add(table["x"], 0, byte(0))
	}
	whole := codecs.State{}
	if err := whole.UnmarshalBinary(table["x"], rs.Schema()); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Working, 0, byte(1))
	f.Fuzz(func(t *testing.T, b []byte, at int, flip byte) {
		base := b
		if flip&1 == 1 { // only what this package wrote, inside a sound envelope
			bad := whole
			bad.Working = append([]byte(nil), b...)
			if len(b) > 0 {
				bad.Working[uint(at)%uint(len(b))] ^= flip >> 1
			}
			base = bad.AppendBinary(nil, rs.Schema())
		}
		st, err := rs.DecodeState("x", base, table.read)
		if err != nil {
			return
		}
		a := rs.NewApplier()
		for _, ms := range []int64{st.lastMs, st.lastMs - 1500, st.lastMs + 700} {
			if ms < timeMinMs || ms > timeMaxMs {
				continue
			}
			_, _ = tryApply(t, a, st, fmt.Sprintf(`{"id":"x","t":%d,"v":4}`, ms))
		}
		out := records{}
		st.Encode("x", out.write)
	})
}

// check tells as many entries as there can be.
func TestEntries_BoundsWhatIsKept(t *testing.T) {
	for _, c := range []struct {
		keys string
		want int64
	}{
		{"window: 10s, grain: 10s", 3},
		{"window: 30s, grain: 10s", 7},
		{"window: 30s", 61},
	} {
		for _, late := range []string{"", "5s", "11s"} {
			input := ""
			if late != "" {
				input = ", allowed_lateness: " + late
			}
			rs := mustLoad(t, "name: n\ninput: {topic: in, id: event.id, time: event.t, max_ahead: 100000d"+input+"}\ntotals:\n  n: {count: true, "+c.keys+"}\n")
			a, st, most := rs.NewApplier(), rs.NewState(), int64(0)
			for second := range 200 {
				mustApply(t, a, st, fmt.Sprintf(`{"id":"a","t":%d}`, second*1000))
				kept := int64(0)
				for _, chunk := range st.tallies[0].win.chunks {
					kept += int64(len(chunk.times))
				}
				most = max(most, kept)
			}
			told := rs.totals[0].entries(1)
			if most > told || most < told-1 {
				t.Errorf("%s, late by %q: told %d entries, kept %d", c.keys, late, told, most)
			}
			if late == "" && told != c.want {
				t.Errorf("%s: told %d entries, want %d", c.keys, told, c.want)
			}
		}
	}
}
