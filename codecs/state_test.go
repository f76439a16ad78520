package codecs

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

var testSchema = &Schema{
	Job: "test", InputTopic: "test-events", Digest: "9f2c51", Generation: 1,
	Totals: []string{"a", "b", "c", "d", "e"}, Flags: []string{"x", "y", "z"},
}

func randomValue(r *rand.Rand, depth int) Value {
	switch kind := r.IntN(7); {
	case kind == 0:
		return Value{}
	case kind == 1:
		return Value{Kind: Bool, Bool: r.IntN(2) == 0}
	case kind == 2:
		texts := []string{"", "x", "日本\x00\"", strings.Repeat("long ", 60)}
		return Value{Kind: String, Str: texts[r.IntN(len(texts))]}
	case kind < 5 || depth > 2:
		d, err := ParseStoredDecimal([]byte(randomNumber(r)))
		if err != nil {
			panic(err)
		}
		if r.IntN(4) == 0 { // a number that arithmetic made
			other := DecimalFromInt64(r.Int64())
			if err := d.Mul(&d, &other); err != nil {
				panic(err)
			}
		}
		return Value{Kind: Number, Num: d}
	}
	v := Value{Kind: List}
	for range r.IntN(4) {
		v.Items = append(v.Items, randomValue(r, depth+1))
	}
	return v
}

func randomInt64(r *rand.Rand) int64 {
	edges := []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 1 << 31, -1 << 31, 127, 128}
	if r.IntN(2) == 0 {
		return edges[r.IntN(len(edges))]
	}
	return int64(r.Uint64() >> r.IntN(64))
}

func randomWhy(r *rand.Rand) Why {
	topics, digests := []string{"test-events", "other", ""}, []string{"9f2c51", "00", ""}
	return Why{
		TimeMs: randomInt64(r), Topic: topics[r.IntN(3)], Partition: int32(randomInt64(r)), Offset: randomInt64(r), Rules: digests[r.IntN(3)],
	}
}

func randomState(r *rand.Rand) *State {
	s := &State{
		Version: uint64(randomInt64(r)), Count: uint64(randomInt64(r)), Late: uint64(randomInt64(r)),
		FirstMs: randomInt64(r), LastMs: randomInt64(r),
		Totals: make([]Value, len(testSchema.Totals)), Flags: make([]Flag, len(testSchema.Flags)),
	}
	for i := range s.Totals {
		s.Totals[i] = randomValue(r, 0)
	}
	for i := range s.Flags {
		if r.IntN(2) == 0 {
			s.Flags[i] = Flag{Raised: true, Why: randomWhy(r)}
		}
	}
	if n := r.IntN(300); n > 100 {
		s.Working = make([]byte, n)
		for i := range s.Working {
			s.Working[i] = byte(r.Uint32())
		}
	}
	return s
}

// stateDiff is empty for equal states. Numbers are compared by value, for they may be held in two ways.
func stateDiff(want, got *State) string {
	same := want.Version == got.Version && want.Count == got.Count && want.Late == got.Late && want.FirstMs == got.FirstMs &&
		want.LastMs == got.LastMs && bytes.Equal(want.Working, got.Working) && slices.Equal(want.Flags, got.Flags) &&
		sameValue(&Value{Kind: List, Items: got.Totals}, &Value{Kind: List, Items: want.Totals}) == nil
	if same {
		return ""
	}
	return fmt.Sprintf("got  %+v\nwant %+v", got, want)
}

func TestState_ComesBackAndIsOneEncoding(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 6))
	var got State // used again, as a reader does
	for range 2_000 {
		want := randomState(r)
		prefix := []byte("before")
		b := want.AppendBinary(prefix, testSchema)
		if !bytes.HasPrefix(b, prefix) {
			t.Fatal("what stood before is gone")
		}
		b = b[len(prefix):]
		if err := got.UnmarshalBinary(b, testSchema); err != nil {
			t.Fatalf("seed %d: %x: %v", seed, b, err)
		}
		if diff := stateDiff(want, &got); diff != "" {
			t.Fatalf("seed %d: the state comes back changed:\n%s", seed, diff)
		}
		if again := got.AppendBinary(nil, testSchema); !bytes.Equal(again, b) {
			t.Fatalf("seed %d: got other bytes:\n%x\nwant\n%x", seed, again, b)
		}
		slow := slowNumbers(got.Totals)
		got.Totals = slow
		if again := got.AppendBinary(nil, testSchema); !bytes.Equal(again, b) {
			t.Fatalf("seed %d: equal numbers held otherwise give other bytes:\n%x\nwant\n%x", seed, again, b)
		}
	}
}

// slowNumbers are equal values with all numbers in the large form.
func slowNumbers(values []Value) []Value {
	out := make([]Value, len(values))
	for i, v := range values {
		if out[i] = v; v.Kind == Number {
			out[i].Num = slowForm(v.Num)
		}
		if v.Items != nil {
			out[i].Items = slowNumbers(v.Items)
		}
	}
	return out
}

func TestState_KeepsNothingOfTheBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		want := randomState(r)
		b := want.AppendBinary(nil, testSchema)
		var got State
		if err := got.UnmarshalBinary(b, testSchema); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 0xAA
		}
		if diff := stateDiff(want, &got); diff != "" {
			t.Fatalf("the state changes with the bytes:\n%s", diff)
		}
	}
}

func TestState_UnknownFormatsAndBrokenBytes(t *testing.T) {
	field := func(num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
	}
	message := func(num protowire.Number, body []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), body)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	nulls := bytes.Repeat(message(6, nil), 5)
	good := join(field(1, 1), nulls)
	deep := []byte{}
	for range 200 {
		deep = message(6, message(1, deep))
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"the least state", good, nil},
		{"unknown fields", join(good, field(12, 7), message(200, []byte("later")), protowire.AppendFixed64(protowire.AppendTag(nil, 13, protowire.Fixed64Type), 1)), nil},
		{"unknown field in a total", join(field(1, 1), message(6, field(99, 1)), bytes.Repeat(message(6, nil), 4)), nil},
		{"format 2", join(field(1, 2), nulls), ErrFormat},
		{"format 2 with another layout", join(field(1, 2), message(2, []byte("x"))), ErrFormat},
		{"format 0", join(field(1, 0), nulls), ErrFormat},
		{"nothing", nil, ErrMalformed},
		{"no format", nulls, ErrMalformed},
		{"not Protobuf", []byte("{}"), ErrMalformed},
		{"cut", good[:len(good)-1], ErrMalformed},
		{"a total missing", good[:len(good)-2], ErrMalformed},
		{"a total too many", join(good, message(6, nil)), ErrMalformed},
		{"version as text", join(good, message(2, []byte("x"))), ErrMalformed},
		{"total as varint", join(field(1, 1), field(6, 1)), ErrMalformed},
		{"flag out of the schema", join(good, message(7, field(1, 3))), ErrMalformed},
		{"partition beyond 32 bits", join(good, message(7, field(4, 1<<31))), ErrMalformed},
		{"number that is none", join(good, message(6, message(4, []byte("1x")))), ErrMalformed},
		{"exponent out of range", join(good, message(6, join(field(2, 2), field(3, 50_000)))), ErrMalformed},
		{"text that is not UTF-8", join(good, message(6, message(5, []byte{0xff}))), ErrMalformed},
		{"deep lists", join(good, message(6, deep)), ErrMalformed},
	} {
		var s State
		err := s.UnmarshalBinary(c.b, testSchema)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if errors.Is(err, ErrFormat) && errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v is both", c.name, err)
		}
	}
}

func TestState_JSONShape(t *testing.T) {
	num := func(text string) Value { return Value{Kind: Number, Num: mustParse(t, text)} }
	s := State{
		Version: math.MaxUint64, Count: 2, FirstMs: -1, LastMs: 1_700_000_000_000,
		Totals: []Value{num("-0.50"), {}, {Kind: List, Items: []Value{num("1e3"), {Kind: String, Str: "a\"\n\x01é"}}}, {Kind: Bool, Bool: true}, num("0")},
		Flags:  []Flag{{}, {Raised: true, Why: Why{TimeMs: 1, Topic: "t", Partition: 3, Offset: 9, Rules: "ab"}}, {}},
	}
	want := `{"id":"i\\d","version":"18446744073709551615","count":"2","first_time":"1969-12-31T23:59:59.999Z","last_time":"2023-11-14T22:13:20Z",` +
		`"totals":{"a":"-0.5","b":null,"c":["1000","a\"\n\u0001é"],"d":true,"e":"0"},` +
		`"flags":{"y":{"time":"1970-01-01T00:00:00.001Z","topic":"t","partition":3,"offset":"9","rules":"ab"}}}`
	if got := string(s.AppendJSON(nil, `i\d`, testSchema)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestState_PanicsOnAnotherSchema(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a state of other totals was encoded")
		}
	}()
	s := State{Totals: make([]Value, 1)}
	s.AppendBinary(nil, testSchema)
}

func TestValue_KindsHaveNames(t *testing.T) {
	var names []string
	for k := Null; k <= Duration+1; k++ {
		names = append(names, k.String())
	}
	want := []string{"null", "bool", "number", "string", "list", "map", "time", "duration", "kind 8"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}
