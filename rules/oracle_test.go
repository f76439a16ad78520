package rules

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/tidemark/tidemark/codecs"
)

// oracle is one line of oracle.ndjson.gz: what two independent programs found for one ID.
type oracle struct {
	ID      string  `json:"id"`
	Count   uint64  `json:"count"`
	Sum     string  `json:"sum"`
	Min     *string `json:"min"`
	Max     *string `json:"max"`
	FirstMs int64   `json:"first_ms"`
	LastMs  int64   `json:"last_ms"`
	Flags   map[string]struct {
		Line int64  `json:"line"`
		Time string `json:"time"`
	} `json:"flags"`
}

func mustLoadFile(t testing.TB, path string) *RuleSet {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := Load(src)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return rs
}

func mustEachLine(t testing.TB, path string, do func(line int64, text []byte)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReaderSize(unzipped, 1<<20)
	for n := int64(0); ; n++ {
		text, err := lines.ReadBytes('\n')
		if len(text) > 0 {
			do(n, text)
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestApply_EqualsOracles(t *testing.T) {
	for _, name := range []string{"ssh_auth", "nab_metrics", "hurdat2_storms"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("..", "testdata", name)
			rs := mustLoadFile(t, filepath.Join(dir, "job.yaml"))
			states, table := fold(t, rs, filepath.Join(dir, "events.ndjson.gz"))
			ids := 0
			mustEachLine(t, filepath.Join(dir, "oracle.ndjson.gz"), func(_ int64, text []byte) {
				var want oracle
				if err := json.Unmarshal(text, &want); err != nil {
					t.Fatal(err)
				}
				ids++
				st := states[want.ID]
				if st == nil {
					t.Fatalf("%s: no state", want.ID)
				}
				want.compare(t, st)
				st.Encode(want.ID, table.write)
				again, err := rs.DecodeState(want.ID, table[want.ID], table.read)
				if err != nil {
					t.Fatal(err)
				}
				want.compare(t, again)
			})
			if len(states) != ids {
				t.Errorf("IDs: got %d, want %d", len(states), ids)
			}
		})
	}
}

// fold counts a file of events in. Every 97th event it puts its ID's state through the codec.
func fold(t *testing.T, rs *RuleSet, events string) (map[string]*State, records) {
	t.Helper()
	a, states, table := rs.NewApplier(), map[string]*State{}, records{}
	mustEachLine(t, events, func(line int64, text []byte) {
		rec := Record{Topic: rs.Job().Input.Topic, Offset: line, TimestampMs: 1 << 45, Value: text}
		id, refusal := a.Read(&rec)
		if refusal != nil {
			t.Fatalf("line %d: %v", line, refusal)
		}
		st := states[id]
		if st == nil {
			st = rs.NewState()
		}
		if _, refusal = a.Apply(st); refusal != nil {
			t.Fatalf("line %d: %v", line, refusal)
		}
		if line%97 == 0 {
			st.Encode(id, table.write)
			var err error
			if st, err = rs.DecodeState(id, table[id], table.read); err != nil {
				t.Fatalf("line %d: %v", line, err)
			}
		}
		states[string(append([]byte(nil), id...))] = st
	})
	return states, table
}

func (want *oracle) compare(t *testing.T, st *State) {
	t.Helper()
	got := map[string]string{
		"count": strconv.FormatUint(st.count, 10), "version": strconv.FormatUint(st.version, 10),
		"first": fmt.Sprint(st.firstMs), "last": fmt.Sprint(st.lastMs),
	}
	for i, v := range st.shown(nil) {
		got[st.rules.totals[i].name] = describeValue(&v)
	}
	orNull := func(s *string) string {
		if s == nil {
			return "null"
		}
		return *s
	}
	for key, value := range map[string]string{
		"count": strconv.FormatUint(want.Count, 10), "version": strconv.FormatUint(want.Count, 10),
		"first": fmt.Sprint(want.FirstMs), "last": fmt.Sprint(want.LastMs),
		"sum": want.Sum, "min": orNull(want.Min), "max": orNull(want.Max),
	} {
		if got[key] != value {
			t.Errorf("%s: %s: got %s, want %s", want.ID, key, got[key], value)
		}
	}
	for i, f := range st.flags {
		name := st.rules.flags[i].name
		flag, raised := want.Flags[name]
		if f.Raised != raised {
			t.Errorf("%s: %s: got raised %v, want %v", want.ID, name, f.Raised, raised)
			continue
		}
		if !raised {
			continue
		}
		ms, err := codecs.ParseTime([]byte(flag.Time))
		if err != nil {
			t.Fatal(err)
		}
		if f.Why.Offset != flag.Line || f.Why.TimeMs != ms {
			t.Errorf("%s: %s: got line %d at %d, want line %d at %d", want.ID, name, f.Why.Offset, f.Why.TimeMs, flag.Line, ms)
		}
	}
}
