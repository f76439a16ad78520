package codecs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/apd/v3"
)

// referenceEvent reads a document by encoding/json's tokens and finds every fault that an event may have.
// The value means something only without faults.
func referenceEvent(data []byte) (v Value, faults map[string]bool) {
	faults = map[string]bool{}
	if !utf8.Valid(data) {
		faults[ReasonUTF8] = true
	}
	if !json.Valid(data) {
		faults[ReasonJSON] = true
		return Value{}, faults
	}
	if halfSurrogate(data) {
		faults[ReasonUTF8] = true
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v = referenceValue(dec, 0, faults)
	if v.Kind != Map {
		faults[ReasonJSON] = true
	}
	return v, faults
}

func referenceValue(dec *json.Decoder, depth int, faults map[string]bool) Value {
	token, err := dec.Token()
	if err != nil {
		faults[ReasonJSON] = true
		return Value{}
	}
	if _, opens := token.(json.Delim); opens {
		if depth++; depth > 128 {
			faults[ReasonDepth] = true
		}
	}
	switch token := token.(type) {
	case bool:
		return Value{Kind: Bool, Bool: token}
	case string:
		return Value{Kind: String, Str: token}
	case json.Number:
		return referenceNumber(string(token), faults)
	case json.Delim:
		if token == '[' {
			v := Value{Kind: List}
			for dec.More() {
				v.Items = append(v.Items, referenceValue(dec, depth, faults))
			}
			_, _ = dec.Token()
			return v
		}
		v, seen := Value{Kind: Map}, map[string]bool{}
		for dec.More() {
			key, _ := dec.Token()
			name, _ := key.(string)
			if seen[name] {
				faults[ReasonDuplicateKey] = true
			}
			seen[name] = true
			v.Members = append(v.Members, Member{name, referenceValue(dec, depth, faults)})
		}
		_, _ = dec.Token()
		return v
	}
	return Value{}
}

// referenceNumber judges by the text: digits without zeros around them, and where the point is.
func referenceNumber(text string, faults map[string]bool) Value {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(text, "-")), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return Value{Kind: Number}
	}
	exp := int64(0)
	if exponent != "" {
		var err error
		if exp, err = strconv.ParseInt(exponent, 10, 32); err != nil {
			faults[ReasonNumber] = true
			return Value{}
		}
	}
	exp -= int64(len(fraction))
	short := strings.TrimRight(digits, "0")
	exp += int64(len(digits) - len(short))
	if len(short) > 34 || int64(len(short))+exp > 34 || exp < -40 {
		faults[ReasonNumber] = true
		return Value{}
	}
	d, _, err := apd.NewFromString(short)
	if err != nil {
		panic(err)
	}
	d.Exponent, d.Negative = int32(exp), text[0] == '-'
	return Value{Kind: Number, Num: Decimal{big: d}}
}

// halfSurrogate looks for \uD800 to \uDFFF that are not pairs, in a valid document.
func halfSurrogate(data []byte) bool {
	unit := func(at int) rune {
		if at+6 > len(data) || data[at] != '\\' || data[at+1] != 'u' {
			return 0
		}
		n, err := strconv.ParseUint(string(data[at+2:at+6]), 16, 16)
		if err != nil {
			return 0
		}
		return rune(n)
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		switch r := unit(i); {
		case r >= 0xD800 && r < 0xDC00:
			if low := unit(i + 6); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 11
		case r >= 0xDC00 && r <= 0xDFFF:
			return true
		default:
			i++
		}
	}
	return false
}

func sameValue(got, want *Value) error {
	if got.Kind != want.Kind {
		return fmt.Errorf("got a %s, want a %s", got.Kind, want.Kind)
	}
	switch got.Kind {
	case Bool:
		if got.Bool != want.Bool {
			return fmt.Errorf("got %v, want %v", got.Bool, want.Bool)
		}
	case Number:
		if got.Num.Cmp(&want.Num) != 0 || got.Num.String() != want.Num.String() {
			return fmt.Errorf("got %s, want %s", got.Num.String(), want.Num.String())
		}
	case String:
		if got.Str != want.Str {
			return fmt.Errorf("got %.60q, want %.60q", got.Str, want.Str)
		}
	case List:
		if len(got.Items) != len(want.Items) {
			return fmt.Errorf("got %d items, want %d", len(got.Items), len(want.Items))
		}
		for i := range got.Items {
			if err := sameValue(&got.Items[i], &want.Items[i]); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
		}
	case Map:
		if len(got.Members) != len(want.Members) {
			return fmt.Errorf("got %d members, want %d", len(got.Members), len(want.Members))
		}
		for i := range got.Members {
			if got.Members[i].Name != want.Members[i].Name {
				return fmt.Errorf("member %d: got %.60q, want %.60q", i, got.Members[i].Name, want.Members[i].Name)
			}
			if err := sameValue(&got.Members[i].Value, &want.Members[i].Value); err != nil {
				return fmt.Errorf("member %.60q: %w", got.Members[i].Name, err)
			}
		}
	}
	return nil
}

// at follows a path in the reference's value.
func at(v *Value, path Path) *Value {
	for _, name := range path {
		var next *Value
		if v.Kind == Map {
			for i := range v.Members {
				if v.Members[i].Name == name {
					next = &v.Members[i].Value
				}
			}
		}
		if next == nil {
			return &Value{}
		}
		v = next
	}
	return v
}

// wantedSets are the ways to want things: all, nothing, leaves, and values together with what is in them.
var wantedSets = [][]Path{
	{{}},
	{},
	{{"a"}, {"b"}, {"long_name", "a"}},
	{{"a", "b"}, {"a"}, {"a", "b", "c"}, {"b", "a", "a"}, {""}},
	{{"b", "a"}, {}, {"b"}, {"é"}},
}

// checkEvent compares the decoder with the reference on one document.
func checkEvent(data []byte) error {
	want, faults := referenceEvent(data)
	for _, paths := range wantedSets {
		out := make([]Value, len(paths))
		for i := range out {
			out[i] = Value{Kind: String, Str: "left over", Bool: true, Items: make([]Value, 3), Members: make([]Member, 2)}
		}
		err := NewEventDecoder(paths).Decode(data, out)
		if err == nil {
			if len(faults) > 0 {
				return fmt.Errorf("paths %q: accepted, want one of %v", paths, faults)
			}
			for i, path := range paths {
				if err := sameValue(&out[i], at(&want, path)); err != nil {
					return fmt.Errorf("paths %q: path %q: %w", paths, path, err)
				}
			}
			continue
		}
		var refusal *EventError
		if !errors.As(err, &refusal) || refusal.Detail == "" {
			return fmt.Errorf("paths %q: error %v is no EventError with a detail", paths, err)
		}
		// In a document that is not JSON anything may be found before the place where it breaks.
		if !faults[refusal.Reason] && !(faults[ReasonJSON] && refusal.Reason != ReasonJSON) {
			return fmt.Errorf("paths %q: refused: %w; want one of %v", paths, err, faults)
		}
	}
	return nil
}

func randomDocument(r *rand.Rand, b []byte, depth int) []byte {
	space := func() {
		if r.IntN(8) == 0 {
			b = append(b, []string{" ", "\n\t", "\r "}[r.IntN(3)]...)
		}
	}
	text := func(all []string) { b = append(b, all[r.IntN(len(all))]...) }
	keys := []string{`"a"`, `"b"`, `"c"`, `"long_name"`, `"\u0061"`, `""`, `"é"`, `"\u00e9"`, `"k1"`, `"k2"`, `"k3"`, `"k4"`, `"k5"`}
	kind := r.IntN(10)
	if depth == 0 {
		kind = 0
	}
	switch {
	case kind < 3 && depth < 6:
		b = append(b, '{')
		for i := range r.IntN(5) {
			if i > 0 {
				b = append(b, ',')
			}
			space()
			text(keys)
			space()
			b = append(b, ':')
			b = randomDocument(r, b, depth+1)
		}
		b = append(b, '}')
	case kind < 5 && depth < 6:
		b = append(b, '[')
		for i := range r.IntN(4) {
			if i > 0 {
				b = append(b, ',')
			}
			space()
			b = randomDocument(r, b, depth+1)
		}
		b = append(b, ']')
	case kind < 7:
		text([]string{`"x"`, `""`, `"a\"b\\\/\b\f\n\r\t"`, `"\uD83D\uDE00"`, `"日本"`, `"\u0000"`, `"\uFFFF"`, `"` + strings.Repeat("z", 300) + `"`})
	case kind < 9:
		if r.IntN(25) == 0 {
			text([]string{"1e34", "-1e-41", "1E999999999"})
			break
		}
		text([]string{"0", "-0", "1.50", "-12e3", "1E+2", "9223372036854775808", "1e33", "1e-40", "0.1e-39", strings.Repeat("1", 34) + ".0"})
	default:
		text([]string{"true", "false", "null"})
	}
	space()
	return b
}

func mutate(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	parts := []string{`"`, `\`, `{`, `}`, `[`, `]`, `,`, `:`, `0`, `1`, `.`, `e`, `-`, " ", "\x00", "\xff", "\x80", `\ud800`, `\udc00`, `\u12`, "tru", "null", "1e34", `"a":1,`, `"\u0062":1,`, "NaN", "/*", "\x1f", "\xef\xbb\xbf"}
	for range 1 + r.IntN(3) {
		i := r.IntN(len(b) + 1)
		j := min(len(b), i+r.IntN(4))
		part := parts[r.IntN(len(parts))]
		if r.IntN(3) == 0 {
			part = ""
		}
		b = append(b[:i:i], append([]byte(part), b[j:]...)...)
	}
	return b
}

func TestEventDecoder_AgreesWithEncodingJSONOnDocumentsAndMutations(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 5))
	accepted, refused := 0, map[string]int{}
	for range 3_000 {
		data := randomDocument(r, nil, 0)
		for range 3 {
			if err := checkEvent(data); err != nil {
				t.Fatalf("seed %d: %q: %v", seed, data, err)
			}
			_, faults := referenceEvent(data)
			for fault := range faults {
				refused[fault]++
			}
			if len(faults) == 0 {
				accepted++
			}
			data = mutate(r, data)
		}
	}
	if accepted < 1000 || refused[ReasonJSON] < 1000 || refused[ReasonDuplicateKey] < 100 || refused[ReasonUTF8] < 100 || refused[ReasonNumber] < 20 {
		t.Errorf("the documents show too little: %d accepted, refused %v", accepted, refused)
	}
}
