package codecs

import (
	"testing"
)

const benchEvent = `{"id":"85.245.107.41","time":"2017-03-27T13:08:09Z","ok":false,"attempts":3,"user":"root","method":"password"}`

func BenchmarkEventDecode(b *testing.B) {
	for _, c := range []struct {
		name  string
		paths []Path
	}{
		{"3Paths", []Path{{"id"}, {"time"}, {"attempts"}}},
		{"Whole", []Path{{}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			d, data, out := NewEventDecoder(c.paths), []byte(benchEvent), make([]Value, len(c.paths))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(data, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchState(b *testing.B) *State {
	num := func(text string) Value { return Value{Kind: Number, Num: mustParse(b, text)} }
	return &State{
		Version: 574, Count: 574, FirstMs: 1_490_620_089_000, LastMs: 1_492_698_869_000,
		Totals: []Value{num("574"), num("12.25"), {}, num("-3"), {Kind: String, Str: "root"}},
		Flags:  []Flag{{Raised: true, Why: Why{TimeMs: 1_491_040_800_000, Topic: "test-events", Partition: 2, Offset: 1042, Rules: "9f2c51"}}, {}, {}},
	}
}

func BenchmarkStateAppend(b *testing.B) {
	s, buf := benchState(b), []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		buf = s.AppendBinary(buf[:0], testSchema)
	}
	b.ReportMetric(float64(len(buf)), "bytes")
}

func BenchmarkStateUnmarshal(b *testing.B) {
	data := benchState(b).AppendBinary(nil, testSchema)
	var s State
	b.ReportAllocs()
	for b.Loop() {
		if err := s.UnmarshalBinary(data, testSchema); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecimalAdd(b *testing.B) {
	for _, c := range []struct{ name, x, y string }{
		{"Small", "12.25", "3"},
		{"Overflow", "9223372036854775807", "9223372036854775807"},
		{"34Digits", "1234567890123456789012345678901234", "0.5"},
	} {
		b.Run(c.name, func(b *testing.B) {
			x, y := mustParse(b, c.x), mustParse(b, c.y)
			var z Decimal
			b.ReportAllocs()
			for b.Loop() {
				if err := z.Add(&x, &y); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecimalParseAndText(b *testing.B) {
	text, buf := []byte("-1234567.25"), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		d, err := ParseDecimal(text)
		if err != nil {
			b.Fatal(err)
		}
		buf = d.AppendText(buf[:0])
	}
}

func BenchmarkParseTime(b *testing.B) {
	text := []byte("2017-03-27T13:08:09.5Z")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseTime(text); err != nil {
			b.Fatal(err)
		}
	}
}
