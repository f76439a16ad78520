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
