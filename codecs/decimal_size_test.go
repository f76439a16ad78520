package codecs

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

func TestDigitsIn_CountsWhatIsWritten(t *testing.T) {
	check := func(n uint64) {
		if got, want := digitsIn(n), len(strconv.FormatUint(n, 10)); got != want {
			t.Errorf("%d: got %d digits, want %d", n, got, want)
		}
	}
	for _, p := range powersOf10 {
		for d := uint64(0); d < 3; d++ {
			check(uint64(p) - 1 + d)
		}
	}
	for b := range 63 {
		check(1<<b - 1)
		check(1 << b)
	}
	check(math.MaxInt64)
	check(1 << 63)
}

func TestDecimal_TextLenIsThatOfTheText(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 20_000 {
		x := Decimal{coef: r.Int64() >> r.IntN(64), exp: r.Int32N(60) - 40}
		if x.TextLen() != len(x.String()) {
			t.Fatalf("%d times 10^%d: got %d, want %d", x.coef, x.exp, x.TextLen(), len(x.String()))
		}
	}
}

func TestDecimal_Floor(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"0", "0"},
		{"12", "12"},
		{"1e33", "1000000000000000000000000000000000"},
		{"1.5", "1"},
		{"-1.5", "-2"},
		{"-0.0000000000000000000000000000000000000001", "-1"},
		{"0.0000000000000000000000000000000000000001", "0"},
		{"-3e-18", "-1"},
		{"-1490620089123.456", "-1490620089124"},
		{"1490620089123.999999999999999999999", "1490620089123"},
		{"-99999999999999999999.99999999999999", "-100000000000000000000"},
		{"9999999999999999999999999999999999", "9999999999999999999999999999999999"},
	} {
		x := mustParse(t, c.text)
		for _, form := range []Decimal{x, slowForm(x)} {
			if got := form.Floor(); got.String() != c.want {
				t.Errorf("%s: got %s, want %s", c.text, got.String(), c.want)
			}
		}
	}
}

func BenchmarkDecimal_Within(b *testing.B) {
	x, err := ParseDecimal([]byte("98.76"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !x.Within(60, 40) || x.TextLen() != 5 {
			b.Fatal("wrong")
		}
	}
}
