package codecs

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/apd/v3"
)

// reference computes with 120 digits and refuses to round, by the library alone.
var reference = apd.Context{
	Precision: 120, MaxExponent: 10_000, MinExponent: -10_000,
	Traps: apd.DefaultTraps | apd.Inexact | apd.Rounded, Rounding: apd.RoundHalfEven,
}

// randomNumber is a text within the limits of an event, often at one of the edges: of int64, of 18 and
// 34 digits, with trailing zeros, with exponents that cancel the point.
func randomNumber(r *rand.Rand) string {
	edges := []string{
		"0", "-0", "0.000", "-0e5", "1", "-1", "9223372036854775807", "-9223372036854775808",
		"9223372036854775808", "-9223372036854775809", "4611686018427387904", "-4611686018427387904",
		"999999999999999999", "1000000000000000000", "9999999999999999999999999999999999", "1e33", "1e-40",
		"-3037000500", "3037000499", "0.5", "-0.05", "922337203685477580.7", "-922337203685477580.8",
	}
	if r.IntN(4) == 0 {
		return edges[r.IntN(len(edges))]
	}
	var b strings.Builder
	if r.IntN(2) == 0 {
		b.WriteByte('-')
	}
	digits := 1 + r.IntN([]int{3, 19, 34}[r.IntN(3)])
	for i := range digits {
		switch {
		case i == 0:
			b.WriteByte(byte('1' + r.IntN(9)))
		case i > digits/2 && r.IntN(3) == 0:
			b.WriteByte('0')
		default:
			b.WriteByte(byte('0' + r.IntN(10)))
		}
	}
	lowest, highest := -40, 34-digits
	fmt.Fprintf(&b, "e%d", lowest+r.IntN(highest-lowest+1))
	return b.String()
}

func mustParse(t testing.TB, text string) Decimal {
	t.Helper()
	d, err := ParseDecimal([]byte(text))
	if err != nil {
		t.Fatalf("ParseDecimal(%q): %v", text, err)
	}
	return d
}

func mustAPD(t testing.TB, text string) *apd.Decimal {
	t.Helper()
	d, _, err := apd.NewFromString(text)
	if err != nil {
		t.Fatalf("apd of %q: %v", text, err)
	}
	return d
}

// plainText is the reference's plain notation without trailing zeros.
func plainText(d *apd.Decimal) string {
	var r apd.Decimal
	r.Reduce(d)
	if r.IsZero() {
		return "0"
	}
	return r.Text('f')
}

// slowForm is the same number on the path beside int64.
func slowForm(d Decimal) Decimal {
	return Decimal{big: new(apd.Decimal).Set(d.apd())}
}

func TestDecimal_ArithmeticAgreesWithTheReferenceOnBothPathsAndInBothOrders(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	ops := []struct {
		name string
		ours func(z, x, y *Decimal) error
		ref  func(d, x, y *apd.Decimal) (apd.Condition, error)
		sign int // of the exchange of the operands
	}{
		{"add", (*Decimal).Add, reference.Add, 1},
		{"sub", (*Decimal).Sub, reference.Sub, -1},
		{"mul", (*Decimal).Mul, reference.Mul, 1},
	}
	minus := DecimalFromInt64(-1)
	for range 5_000 {
		xt, yt := randomNumber(r), randomNumber(r)
		x, y := mustParse(t, xt), mustParse(t, yt)
		refX, refY := mustAPD(t, xt), mustAPD(t, yt)
		for _, op := range ops {
			var want apd.Decimal
			if _, err := op.ref(&want, refX, refY); err != nil {
				t.Fatalf("seed %d: reference %s %s %s: %v", seed, xt, op.name, yt, err)
			}
			for _, form := range [][2]Decimal{{x, y}, {slowForm(x), y}, {x, slowForm(y)}, {slowForm(x), slowForm(y)}} {
				var got, swapped Decimal
				if err := op.ours(&got, &form[0], &form[1]); err != nil {
					t.Fatalf("seed %d: %s %s %s: %v", seed, xt, op.name, yt, err)
				}
				if got.String() != plainText(&want) {
					t.Fatalf("seed %d: %s %s %s: got %s, want %s", seed, xt, op.name, yt, got.String(), plainText(&want))
				}
				err := op.ours(&swapped, &form[1], &form[0])
				if err == nil && op.sign < 0 {
					err = swapped.Mul(&swapped, &minus)
				}
				if err != nil || swapped.Cmp(&got) != 0 || swapped.String() != got.String() {
					t.Fatalf("seed %d: %s %s %s exchanged: %s, not %s (%v)", seed, xt, op.name, yt, swapped.String(), got.String(), err)
				}
			}
		}
		checkCompare(t, seed, x, y, refX.Cmp(refY))
	}
}

func checkCompare(t *testing.T, seed uint64, x, y Decimal, want int) {
	t.Helper()
	slowX, slowY := slowForm(x), slowForm(y)
	for _, pair := range [][2]*Decimal{{&x, &y}, {&slowX, &y}, {&x, &slowY}} {
		if got, back := pair[0].Cmp(pair[1]), pair[1].Cmp(pair[0]); got != want || back != -want {
			t.Fatalf("seed %d: %s cmp %s: got %d and %d, want %d and %d", seed, x.String(), y.String(), got, back, want, -want)
		}
	}
	if x.Sign() != slowX.Sign() || x.IsZero() != slowX.IsZero() {
		t.Fatalf("seed %d: sign of %s: got %d, want %d", seed, x.String(), x.Sign(), slowX.Sign())
	}
}

func TestDecimal_ASumOfManyIsExactAndIndependentOfTheOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 2))
	texts := make([]string, 3_000)
	for i := range texts {
		texts[i] = randomNumber(r)
	}
	total := func() string {
		var sum Decimal
		for _, text := range texts {
			x := mustParse(t, text)
			if err := sum.Add(&sum, &x); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		return sum.String()
	}
	want := new(big.Rat)
	for _, text := range texts {
		x, _ := new(big.Rat).SetString(text)
		want.Add(want, x)
	}
	first := total()
	if got, _ := new(big.Rat).SetString(first); got.Cmp(want) != 0 {
		t.Errorf("seed %d: sum is %s, want %s", seed, first, want.FloatString(40))
	}
	r.Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
	if again := total(); again != first {
		t.Errorf("seed %d: in another order %s, want %s", seed, again, first)
	}
}

func TestDecimal_AvgRoundsHalfEvenTo16Digits(t *testing.T) {
	for _, c := range []struct {
		sum  string
		n    uint64
		want string
	}{
		{"1", 3, "0.3333333333333333"},
		{"2", 3, "0.6666666666666667"},
		{"-2", 3, "-0.6666666666666667"},
		{"0", 7, "0"},
		{"10", 4, "2.5"},
		{"10000000000000005", 10, "1000000000000000"}, // 1000000000000000.5, a tie to the even digit
		{"10000000000000015", 10, "1000000000000002"},
		{"-10000000000000005", 10, "-1000000000000000"},
		{"10000000000000005000000000000000001", 1, "10000000000000010000000000000000000"},
		{"99999999999999995", 1, "100000000000000000"},
		{"1", math.MaxUint64, "0.00000000000000000005421010862427522"},
	} {
		sum, err := ParseStoredDecimal([]byte(c.sum))
		if err != nil {
			t.Fatal(err)
		}
		var got Decimal
		if err := got.Avg(&sum, c.n); err != nil || got.String() != c.want {
			t.Errorf("%s / %d: got %s (%v), want %s", c.sum, c.n, got.String(), err, c.want)
		}
	}
}

func TestDecimal_AvgAgreesWithExactDivision(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 3))
	for range 2_000 {
		text, n := randomNumber(r), uint64(1+r.IntN(1000))
		if r.IntN(4) == 0 {
			n = r.Uint64() | 1
		}
		sum := mustParse(t, text)
		var got Decimal
		if err := got.Avg(&sum, n); err != nil {
			t.Fatalf("seed %d: %s / %d: %v", seed, text, n, err)
		}
		exactly, _ := new(big.Rat).SetString(text)
		exactly.Quo(exactly, new(big.Rat).SetInt(new(big.Int).SetUint64(n)))
		if want := halfEven(exactly, 16); want != got.String() {
			t.Fatalf("seed %d: %s / %d: got %s, want %s", seed, text, n, got.String(), want)
		}
	}
}

// halfEven rounds by the definition, in whole numbers.
func halfEven(x *big.Rat, digits int) string {
	if x.Sign() == 0 {
		return "0"
	}
	abs, ten, exp := new(big.Rat).Abs(x), big.NewRat(10, 1), 0
	low := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits-1)), nil))
	high := new(big.Rat).Mul(low, ten)
	for ; abs.Cmp(low) < 0; exp-- {
		abs.Mul(abs, ten)
	}
	for ; abs.Cmp(high) >= 0; exp++ {
		abs.Quo(abs, ten)
	}
	whole, rest := new(big.Int).QuoRem(abs.Num(), abs.Denom(), new(big.Int))
	switch rest.Lsh(rest, 1).Cmp(abs.Denom()) {
	case 1:
		whole.Add(whole, big.NewInt(1))
	case 0:
		whole.Add(whole, new(big.Int).And(whole, big.NewInt(1)))
	}
	d := apd.NewWithBigInt(new(apd.BigInt).SetMathBigInt(whole), int32(exp))
	d.Negative = x.Sign() < 0
	return plainText(d)
}

func TestDecimal_AFailedOperationLeavesTheReceiver(t *testing.T) {
	huge, err := ParseStoredDecimal([]byte("1" + strings.Repeat("0", 119) + "e1"))
	if err != nil {
		t.Fatal(err)
	}
	one := DecimalFromInt64(1)
	z := DecimalFromInt64(42)
	if err := z.Add(&huge, &one); err == nil {
		t.Error("1e120 + 1 has 121 digits and was not refused")
	}
	if z.String() != "42" {
		t.Errorf("the receiver became %s, want 42", z.String())
	}
	wide, err := ParseStoredDecimal([]byte(strings.Repeat("7", 120)))
	if err != nil {
		t.Fatal(err)
	}
	if err := z.Mul(&wide, &wide); err == nil || errors.Is(err, ErrNumber) || z.String() != "42" {
		t.Errorf("a product of 240 digits: error %v, receiver %s", err, z.String())
	}
	if err := z.Add(&wide, &z); err != nil {
		t.Errorf("120 digits + 42: %v", err)
	}
}

// Control: a sum on int64 alone, without the way out on overflow, is found out by the edges above.
func TestDecimal_TheEdgesOfInt64NeedTheSlowPath(t *testing.T) {
	for _, c := range []struct {
		x, y, want string
		a, b       int64
	}{
		{"9223372036854775807", "1", "9223372036854775808", math.MaxInt64, 1},
		{"-9223372036854775808", "-1", "-9223372036854775809", math.MinInt64, -1},
	} {
		x, y := mustParse(t, c.x), mustParse(t, c.y)
		var got Decimal
		if err := got.Add(&x, &y); err != nil || got.String() != c.want {
			t.Errorf("%s + %s: got %s (%v), want %s", c.x, c.y, got.String(), err, c.want)
		}
		if wrapped := DecimalFromInt64(c.a + c.b); wrapped.String() == c.want {
			t.Errorf("%s + %s does not overflow int64, so it shows nothing", c.x, c.y)
		}
	}
}
