package codecs

import (
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tidemark/tidemark/internal/prototest"
)

// get reads a field by its name in tidemark.proto.
func get(m protoreflect.Message, name string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

func has(m protoreflect.Message, name string) bool {
	return m.Has(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

// stateOf makes a state of what the definition says, by nothing of this package's reading.
func stateOf(t *testing.T, m protoreflect.Message, sc *Schema) *State {
	t.Helper()
	s := &State{
		Version: get(m, "version").Uint(), Count: get(m, "count").Uint(), Late: get(m, "late").Uint(),
		FirstMs: get(m, "first_time_ms").Int(), LastMs: get(m, "last_time_ms").Int(),
		Totals: []Value{}, Flags: make([]Flag, len(sc.Flags)), Working: get(m, "working").Bytes(),
	}
	totals, flags := get(m, "totals").List(), get(m, "flags").List()
	for i := range totals.Len() {
		s.Totals = append(s.Totals, valueOf(t, totals.Get(i).Message()))
	}
	for i := range flags.Len() {
		f := flags.Get(i).Message()
		w := Why{
			TimeMs: get(f, "time_ms").Int(), Topic: sc.InputTopic, Partition: int32(get(f, "partition").Int()),
			Offset: get(f, "offset").Int(), Rules: sc.Digest,
		}
		if has(f, "topic") {
			w.Topic = get(f, "topic").String()
		}
		if has(f, "rules") {
			w.Rules = get(f, "rules").String()
		}
		s.Flags[get(f, "index").Uint()] = Flag{Raised: true, Why: w}
	}
	return s
}

func valueOf(t *testing.T, m protoreflect.Message) Value {
	t.Helper()
	switch {
	case has(m, "bool"):
		return Value{Kind: Bool, Bool: get(m, "bool").Bool()}
	case has(m, "coefficient"):
		return Value{Kind: Number, Num: Decimal{coef: get(m, "coefficient").Int(), exp: int32(get(m, "exponent").Int())}}
	case has(m, "number"):
		d, err := ParseStoredDecimal([]byte(get(m, "number").String()))
		if err != nil {
			t.Fatal(err)
		}
		return Value{Kind: Number, Num: d}
	case has(m, "text"):
		return Value{Kind: String, Str: get(m, "text").String()}
	case has(m, "list"):
		v, items := Value{Kind: List}, get(get(m, "list").Message(), "items").List()
		for i := range items.Len() {
			v.Items = append(v.Items, valueOf(t, items.Get(i).Message()))
		}
		return v
	}
	return Value{}
}

func TestState_IsTheMessageOfTheDefinition(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 8))
	md := prototest.Message(t, prototest.Load(t, "tidemark.proto"), "State")
	for range 600 {
		want := randomState(r)
		b := want.AppendBinary(nil, testSchema)
		m := prototest.Same(t, md, b)
		if get(m, "format").Uint() != stateFormat {
			t.Fatalf("format %d, want %d", get(m, "format").Uint(), stateFormat)
		}
		if diff := stateDiff(want, stateOf(t, m, testSchema)); diff != "" {
			t.Fatalf("seed %d: the definition reads another state (-want +got):\n%s", seed, diff)
		}
		var got State
		if err := got.UnmarshalBinary(prototest.Encode(t, m), testSchema); err != nil {
			t.Fatalf("seed %d: what Protobuf wrote is refused: %v", seed, err)
		}
		if diff := stateDiff(want, &got); diff != "" {
			t.Fatalf("seed %d: what Protobuf wrote reads as another state (-want +got):\n%s", seed, diff)
		}
	}
}

// Control: a definition in which a field is missing is found out.
func TestState_TheDefinitionNeedsEachField(t *testing.T) {
	file := prototest.Load(t, "tidemark.proto")
	fields := map[string]int{
		"State": 9, "Value": 6, "ValueList": 1, "Flag": 6, "Working": 1, "WorkingTotal": 7, "WorkingChunk": 6, "WorkingValue": 3,
		"Position": 10, "Source": 4,
	}
	for i := range file.Messages().Len() {
		md := file.Messages().Get(i)
		if got := md.Fields().Len(); got != fields[string(md.Name())] {
			t.Errorf("%s has %d fields, the tests know %d", md.Name(), got, fields[string(md.Name())])
		}
		delete(fields, string(md.Name()))
	}
	if len(fields) > 0 {
		t.Errorf("messages without a definition: %v", fields)
	}
	s := State{Totals: make([]Value, 5), Flags: make([]Flag, 3), Working: []byte{1}}
	b := s.AppendBinary(nil, testSchema)
	failed := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		prototest.Parse(failed, prototest.Message(t, file, "Position"), b)
	}()
	if !failed.failed {
		t.Error("a State passed for a Position")
	}
}

// recorder notes a failure instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Fatalf(string, ...any) {
	r.failed = true
	panic("failed")
}
