package rules

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/prototest"
)

// definition is codecs/tidemark.proto, and which of its fields the states of a test have used.
type definition struct {
	state, working, chunk protoreflect.MessageDescriptor
	used                  map[protoreflect.FullName]int
}

func mustDefinition(t testing.TB) *definition {
	t.Helper()
	file := prototest.Load(t, "../codecs/tidemark.proto")
	return &definition{
		state: prototest.Message(t, file, "State"), working: prototest.Message(t, file, "Working"),
		chunk: prototest.Message(t, file, "WorkingChunk"), used: map[protoreflect.FullName]int{},
	}
}

func get(m protoreflect.Message, name string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

// each visits a message and those in it.
func each(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				each(v.List().Get(i).Message(), visit)
			}
		default:
			each(v.Message(), visit)
		}
		return true
	})
}

func (d *definition) note(m protoreflect.Message) {
	each(m, func(m protoreflect.Message) {
		m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			d.used[fd.FullName()]++
			return true
		})
	})
}

// randomStates makes states of random rules by random events.
func randomStates(t *testing.T, n int, use func(seed uint64, st *State, table records)) {
	t.Helper()
	for i := range n {
		seed := uint64(7_000_000 + i)
		g, rs := mustLoadRandom(t, seed/historiesPerJob)
		g.Rand = rand.New(rand.NewPCG(seed, 19))
		a, st, table := rs.NewApplier(), rs.NewState(), records{}
		for offset := range int64(60) {
			ev, text := g.event(1_500_000_000_000+offset*300, offset)
			rec := &Record{Topic: pick(g, "in", "other"), Partition: 3, Offset: ev.offset, TimestampMs: ev.ms, Key: []byte("x"), Value: []byte(text)}
			if _, refusal := a.Read(rec); refusal != nil {
				t.Fatalf("seed %d: %v", seed, refusal)
			}
			_, _ = a.Apply(st) // a refusal leaves the state as it was
			if g.IntN(20) == 0 {
				st.Encode("x", table.write)
			}
		}
		st.Encode("x", table.write)
		use(seed, st, table)
	}
}

func TestState_RecordsAreTheMessagesOfTheDefinition(t *testing.T) {
	smallChunks(t)
	def := mustDefinition(t)
	randomStates(t, 1200, func(seed uint64, st *State, table records) {
		for key, value := range table {
			if key == "x" {
				m := prototest.Same(t, def.state, value)
				def.note(m)
				def.note(prototest.Same(t, def.working, get(m, "working").Bytes()))
				continue
			}
			def.note(prototest.Same(t, def.chunk, value))
		}
		if err := def.compare(t, st, table); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	})
	messages := def.chunk.ParentFile().Messages()
	for _, name := range []protoreflect.Name{"Working", "WorkingTotal", "WorkingChunk", "WorkingValue"} {
		fields := messages.ByName(name).Fields()
		for i := range fields.Len() {
			if full := fields.Get(i).FullName(); def.used[full] == 0 {
				t.Errorf("no state has used %s, so nothing is shown of it", full)
			}
		}
	}
}

// compare reads the totals by the definition and compares them with the state in memory.
func (d *definition) compare(t *testing.T, st *State, table records) error {
	t.Helper()
	state := prototest.Parse(t, d.state, table["x"])
	working := get(prototest.Parse(t, d.working, get(state, "working").Bytes()), "totals").List()
	for k := range working.Len() {
		m := working.Get(k).Message()
		i := int(get(m, "index").Uint())
		tally, rule := &st.tallies[i], &st.rules.totals[i]
		if tally.win == nil {
			times, at := []int64(nil), int64(0)
			for k := range get(m, "times_ms").List().Len() {
				at += get(m, "times_ms").List().Get(k).Int()
				times = append(times, at)
			}
			if !slices.Equal(times, tally.times) {
				return fmt.Errorf("total %d: times %v, want %v", i, times, tally.times)
			}
			if rule.kind == kindAvg && (get(m, "n").Uint() != tally.n || get(m, "sum").String() != tally.num.String()) {
				return fmt.Errorf("total %d: %v, want %d values, sum %s", i, m, tally.n, tally.num.String())
			}
			continue
		}
		var chunks []protoreflect.Message
		runs := get(m, "chunks").List()
		for k := 0; k < runs.Len(); k += 2 {
			for n := range runs.Get(k + 1).Uint() {
				chunks = append(chunks, prototest.Parse(t, d.chunk, table[string(chunkKey("x", i, runs.Get(k).Uint()+n))]))
			}
		}
		chunks = append(chunks, get(m, "tail").Message())
		if len(tally.win.chunks) == 0 {
			chunks = nil
		}
		if len(chunks) != len(tally.win.chunks) {
			return fmt.Errorf("total %d: %d chunks, want %d", i, len(chunks), len(tally.win.chunks))
		}
		for k, c := range tally.win.chunks {
			if got, want := chunkText(chunks[k]), c.text(); got != want {
				return fmt.Errorf("total %d, chunk %d: got %s, want %s", i, k, got, want)
			}
		}
	}
	return nil
}

func chunkText(m protoreflect.Message) string {
	times, counts, nums, vals := []int64{get(m, "first_ms").Int()}, []uint64(nil), []string(nil), []string(nil)
	for i := range get(m, "steps_ms").List().Len() {
		times = append(times, times[i]+int64(get(m, "steps_ms").List().Get(i).Uint()))
	}
	for i := range get(m, "counts").List().Len() {
		counts = append(counts, get(m, "counts").List().Get(i).Uint())
	}
	for i := range get(m, "nums").List().Len() {
		nums = append(nums, get(m, "nums").List().Get(i).String())
	}
	for i := range get(m, "vals").List().Len() {
		get(m, "vals").List().Get(i).Message().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			vals = append(vals, fmt.Sprint(fd.Name(), v.Interface()))
			return true
		})
	}
	return fmt.Sprintf("%d %d %q %q", times, counts, nums, vals)
}

func (c *chunk) text() string {
	var nums, vals []string
	for i := range c.nums {
		nums = append(nums, c.nums[i].String())
	}
	for i := range c.vals {
		switch v := &c.vals[i]; v.Kind {
		case codecs.Bool:
			vals = append(vals, fmt.Sprint("bool", v.Bool))
		case codecs.Number:
			vals = append(vals, fmt.Sprint("number", v.Num.String()))
		default:
			vals = append(vals, fmt.Sprint("text", v.Str))
		}
	}
	return fmt.Sprintf("%d %d %q %q", c.times, c.counts, nums, vals)
}

func TestState_PassesOverFieldsOfLaterVersions(t *testing.T) {
	smallChunks(t)
	def := mustDefinition(t)
	later := protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), []byte("later"))
	later = protowire.AppendFixed64(protowire.AppendTag(later, 1001, protowire.Fixed64Type), 1)
	later = protowire.AppendVarint(protowire.AppendTag(later, 1002, protowire.VarintType), 1)
	grow := func(md protoreflect.MessageDescriptor, b []byte) []byte {
		m := prototest.Parse(t, md, b)
		var all []protoreflect.Message
		each(m, func(m protoreflect.Message) { all = append(all, m) })
		for _, m := range all {
			m.SetUnknown(later)
		}
		if md == def.state {
			inner := prototest.Parse(t, def.working, get(m, "working").Bytes())
			each(inner, func(m protoreflect.Message) { m.SetUnknown(later) })
			m.Set(md.Fields().ByName("working"), protoreflect.ValueOfBytes(prototest.Encode(t, inner)))
		}
		return prototest.Encode(t, m)
	}
	randomStates(t, 300, func(seed uint64, st *State, table records) {
		grown := records{}
		for key, value := range table {
			md := def.chunk
			if key == "x" {
				md = def.state
			}
			grown[key] = grow(md, value)
			if len(grown[key]) < len(value)+len(later) {
				t.Fatalf("seed %d: %d bytes grew to %d, so nothing is shown", seed, len(value), len(grown[key]))
			}
		}
		again, err := st.rules.DecodeState("x", grown["x"], grown.read)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		again.Encode("x", grown.write)
		if !slices.Equal(grown["x"], table["x"]) {
			t.Fatalf("seed %d: with fields of later versions the state reads as\n%x, want\n%x", seed, grown["x"], table["x"])
		}
	})
}

func TestDecodeState_NamesAnUnknownFormatOfStateOrChunk(t *testing.T) {
	rs := mustLoad(t, fmt.Sprintf(windowJob, ""))
	a, st, table := rs.NewApplier(), rs.NewState(), records{}
	fillWindow(t, a, st, 1000)
	st.Encode("a", table.write)
	def := mustDefinition(t)
	for key := range table {
		md := def.chunk
		if key == "a" {
			md = def.state
		}
		m := prototest.Parse(t, md, table[key])
		m.Set(md.Fields().ByName("format"), protoreflect.ValueOfUint32(2))
		changed := maps.Clone(table)
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
		if err != nil {
			t.Fatal(err)
		}
		changed[key] = b
		if _, err := rs.DecodeState("a", changed["a"], changed.read); !errors.Is(err, codecs.ErrFormat) || errors.Is(err, ErrStateCorrupt) {
			t.Errorf("format 2 under %.8q: got %v, want %v", key, err, codecs.ErrFormat)
		}
	}
	if len(table) < 2 {
		t.Error("the state has no chunks")
	}
}
