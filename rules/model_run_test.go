package rules

import (
	"bytes"
	flags "flag"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark/tidemark/codecs"
)

var (
	modelSeed      = flags.Uint64("model.seed", 1, "first seed of the histories")
	modelHistories = flags.Int("model.histories", 10_000, "how many histories are compared with the plain model")
)

// records keeps what Encode writes, as a table would.
type records map[string][]byte

func (r records) write(key, value []byte) {
	if value == nil {
		delete(r, string(key))
		return
	}
	r[string(key)] = value
}

func (r records) read(key []byte) ([]byte, error) { return r[string(key)], nil }

func smallChunks(t testing.TB) {
	before := chunking
	chunking = chunkLimits{tailEntries: 5, chunkEntries: 3, tailBytes: 120, chunkBytes: 60}
	t.Cleanup(func() { chunking = before })
}

func TestApply_EqualsPlainModel(t *testing.T) {
	histories := *modelHistories
	if testing.Short() {
		histories /= 10
	}
	for i := range histories {
		runHistory(t, *modelSeed+uint64(i), 4+i%19)
	}
}

func TestApply_EqualsPlainModelInSmallChunks(t *testing.T) {
	smallChunks(t)
	histories := *modelHistories / 8
	if testing.Short() {
		histories /= 10
	}
	for i := range histories {
		runHistory(t, *modelSeed+1e6+uint64(i), 4+i%67)
	}
}

func TestApply_EqualsPlainModelOnLongHistories(t *testing.T) {
	for i := range 24 {
		runHistory(t, *modelSeed+2e6+uint64(i), 1+i/4*80)
	}
}

// historiesPerJob run with the same job, for loading one takes longer than most histories.
const historiesPerJob = 11

var loaded struct {
	seed  uint64
	rules *RuleSet
}

func mustLoadRandom(t testing.TB, seed uint64) (*generator, *RuleSet) {
	t.Helper()
	g := newGenerator(seed)
	if loaded.rules == nil || loaded.seed != seed {
		rs, err := Load([]byte(g.jobFile()))
		if err != nil {
			t.Fatalf("job seed %d is refused: %v\n%s", seed, err, g.jobFile())
		}
		loaded.seed, loaded.rules = seed, rs
	}
	return g, loaded.rules
}

// A history is one random job and two states of it: one that is never encoded, one that is encoded and decoded at
// random points.
type history struct {
	t       testing.TB
	seed    uint64
	g       *generator
	rules   *RuleSet
	plain   *State
	coded   *State
	table   records
	applier *Applier
	log     []string
	shown   string // what the model showed after the last event
}

func runHistory(t testing.TB, seed uint64, events int) {
	t.Helper()
	g, rs := mustLoadRandom(t, seed/historiesPerJob)
	g.Rand = rand.New(rand.NewPCG(seed, 18))
	h := &history{
		t: t, seed: seed, g: g, rules: rs, plain: rs.NewState(), coded: rs.NewState(), table: records{},
		applier: rs.NewApplier(), shown: g.m.describe(),
	}
	now := pick[int64](g, 0, -5_000_000, 1_500_000_000_000)
	for offset := range int64(events) {
		ev, text := g.event(now, offset)
		h.log = append(h.log, text)
		if h.step(ev, text) {
			now = max(now, ev.ms)
		}
	}
	final := records{}
	h.plain.Encode("x", final.write)
	h.coded.Encode("x", h.table.write)
	if !maps.EqualFunc(final, h.table, bytes.Equal) {
		h.fatalf("encoded once: %x\nencoded often: %x", final, h.table)
	}
}

func (h *history) fatalf(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("seed %d, event %d: %s\n%s\n%s", h.seed, len(h.log)-1, fmt.Sprintf(format, args...),
		h.g.jobFile(), strings.Join(h.log, "\n"))
}

// step counts one event in and compares. It reports whether the event was accepted.
func (h *history) step(ev *mevent, text string) bool {
	h.t.Helper()
	wantChanges, wantLate, wantErr := h.g.m.apply(ev)
	rec := &Record{Topic: "in", Partition: 3, Offset: ev.offset, TimestampMs: ev.ms, Key: []byte("x"), Value: []byte(text)}
	want := h.g.m.describe()
	for _, st := range []*State{h.plain, h.coded} {
		if _, refusal := h.applier.Read(rec); refusal != nil {
			h.fatalf("refused: %v", refusal)
		}
		got, refusal := h.applier.Apply(st)
		if (refusal != nil) != (wantErr != nil) || (refusal != nil && refusal.Reason != ReasonRule) {
			h.fatalf("refusal: got %v, want %v", refusal, wantErr)
		}
		if refusal != nil {
			if after := st.describe(); after != h.shown {
				h.fatalf("a refusal changed the state: got %s, want %s", after, h.shown)
			}
			continue
		}
		if got.Late != wantLate {
			h.fatalf("late: got %v, want %v", got.Late, wantLate)
		}
		h.compareChanges(got.Changes, wantChanges)
		if got := st.describe(); got != want {
			h.fatalf("state: got\n%s, want\n%s", got, want)
		}
		st.checkSizes(h)
	}
	h.shown = want
	h.recode()
	return wantErr == nil
}

// recode encodes and decodes one of the states now and then.
func (h *history) recode() {
	h.t.Helper()
	if h.g.IntN(4) > 0 {
		return
	}
	h.coded.Encode("x", h.table.write)
	size := int64(0)
	for _, value := range h.table {
		size += int64(len(value))
	}
	if bound := h.coded.SizeBound(); size > bound {
		h.fatalf("encoded size %d is beyond its bound %d", size, bound)
	}
	if h.g.IntN(2) == 0 {
		return
	}
	st, err := h.rules.DecodeState("x", h.table["x"], h.table.read)
	if err != nil {
		h.fatalf("decode: %v", err)
	}
	h.coded = st
}

// checkSizes compares the running sizes with a fresh count.
func (st *State) checkSizes(h *history) {
	h.t.Helper()
	bytes := int64(0)
	for i := range st.tallies {
		t := &st.tallies[i]
		for e := range t.vals {
			bytes += itemBytes(&t.vals[e])
		}
		if t.win == nil {
			continue
		}
		for _, c := range t.win.chunks {
			own := int64(0)
			for e := range c.times {
				own += c.entryBytes(t.win.rule, e)
			}
			if own != c.bytes || len(c.times) == 0 {
				h.fatalf("bytes of a chunk of %d entries: got %d, want %d", len(c.times), c.bytes, own)
			}
			bytes += own
		}
	}
	if bytes != st.bytes {
		h.fatalf("bytes: got %d, want %d", st.bytes, bytes)
	}
}

func (h *history) compareChanges(got []codecs.FlagChange, want []mchange) {
	h.t.Helper()
	same := slices.EqualFunc(got, want, func(g codecs.FlagChange, w mchange) bool {
		return g.ID == "x" && g.Flag == w.flag && g.Raised == w.raised && g.Version == w.version &&
			g.Why == codecs.Why{TimeMs: w.why.ms, Topic: "in", Partition: 3, Offset: w.why.offset, Rules: h.rules.Schema().Digest}
	})
	if !same {
		h.fatalf("flag changes: got %v, want %v", got, want)
	}
}

// describe tells all that an answer shows.
func (st *State) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "count %d version %d late %d", st.count, st.version, st.late)
	if st.count > 0 {
		fmt.Fprintf(&b, " from %d to %d", st.firstMs, st.lastMs)
	}
	for i, v := range st.shown(nil) {
		fmt.Fprintf(&b, " %s=%s", st.rules.totals[i].name, describeValue(&v))
	}
	for i, f := range st.flags {
		if f.Raised {
			fmt.Fprintf(&b, " %s by %d at %d", st.rules.flags[i].name, f.Why.Offset, f.Why.TimeMs)
		}
	}
	return b.String()
}

func describeValue(v *codecs.Value) string {
	switch v.Kind {
	case codecs.Null:
		return "null"
	case codecs.Number:
		return v.Num.String()
	case codecs.String:
		return fmt.Sprintf("%q", v.Str)
	case codecs.Bool:
		return fmt.Sprint(v.Bool)
	}
	parts := make([]string, len(v.Items))
	for i := range v.Items {
		parts[i] = describeValue(&v.Items[i])
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func (m *model) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "count %d version %d late %d", len(m.events), len(m.events), m.late)
	if len(m.events) > 0 {
		fmt.Fprintf(&b, " from %d to %d", m.first, m.last)
	}
	for i, t := range m.totals {
		fmt.Fprintf(&b, " %s=%s", t.name, m.total(i, m.events, m.last).describe())
	}
	for _, f := range m.flags {
		if why, raised := m.raised[f.name]; raised {
			fmt.Fprintf(&b, " %s by %d at %d", f.name, why.offset, why.ms)
		}
	}
	return b.String()
}

func (v mval) describe() string {
	switch v.kind {
	case 0:
		return "null"
	case 'n':
		return describeRat(v.n)
	case 's':
		return fmt.Sprintf("%q", v.s)
	case 'b':
		return fmt.Sprint(v.b)
	}
	parts := make([]string, len(v.l))
	for i := range v.l {
		parts[i] = v.l[i].describe()
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func describeRat(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	return strings.TrimRight(r.FloatString(30), "0")
}
