package codecs

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestParseDecimal_LimitsGoByValue(t *testing.T) {
	nines, zeros := strings.Repeat("9", 34), strings.Repeat("0", 400)
	for _, c := range []struct{ text, want string }{
		{"0", "0"},
		{"-0", "0"},
		{"-0.00e7", "0"},
		{"0e999999999", "0"},
		{"0e-999999999", "0"},
		{"0." + zeros, "0"},
		{"1.50", "1.5"},
		{"1." + zeros, "1"},
		{"-100", "-100"},
		{"1e2", "100"},
		{"1E+2", "100"},
		{"+5", "5"},
		{"007", "7"},
		{"12.50e-1", "1.25"},
		{nines, nines},
		{"-" + nines, "-" + nines},
		{nines + ".000", nines},
		{nines + "0e-1", nines},
		{"0." + strings.Repeat("0", 6) + nines, "0." + strings.Repeat("0", 6) + nines},
		{"1e33", "1" + strings.Repeat("0", 33)},
		{"1" + zeros + "e-400", "1"},
		{"1e-40", "0." + strings.Repeat("0", 39) + "1"},
		{"10e-41", "0." + strings.Repeat("0", 39) + "1"},
		{"0." + zeros + "1e401", "1"},
		{"1e00000000000000000000000000000001", "10"},
		{"9223372036854775807", "9223372036854775807"},
		{"-9223372036854775808", "-9223372036854775808"},
	} {
		d, err := ParseDecimal([]byte(c.text))
		if err != nil || d.String() != c.want {
			t.Errorf("%.60q: got %s (%v), want %s", c.text, d.String(), err, c.want)
		}
		if d.TextLen() != len(d.String()) {
			t.Errorf("%.60q: TextLen %d, want %d", c.text, d.TextLen(), len(d.String()))
		}
	}
	for _, text := range []string{
		"", "-", "+", ".", "-.", "1.", ".e1", "e1", "1e", "1e+", "1e-", "1e1.5", "--1", "+-1", "1-", "1 ", " 1", "1,5",
		"1..2", "1.2.3", "NaN", "Infinity", "-Inf", "0x10", "1_000", "１", "1\x00",
		nines + "1", "1" + nines, nines + ".1", "0." + strings.Repeat("1", 35), "1e34", "-1e34", "10e33", "1e-41",
		"1e999999999", "1e-999999999", "-1e9223372036854775807", "1e99999999999999999999999999999999", strings.Repeat("1", 400),
		"1" + zeros, "0." + zeros + "1",
	} {
		if d, err := ParseDecimal([]byte(text)); !errors.Is(err, ErrNumber) {
			t.Errorf("%.60q: got %s (%v), want ErrNumber", text, d.String(), err)
		}
	}
}

func TestParseDecimal_RefusesAHugeExponentWithoutBuildingIt(t *testing.T) {
	text := []byte("1e999999999")
	allocated := testing.AllocsPerRun(100, func() {
		if _, err := ParseDecimal(text); err == nil {
			t.Fatal("accepted")
		}
	})
	if allocated > 12 {
		t.Errorf("%v allocations for a refusal, want a few for the error alone", allocated)
	}
}

func TestDecimal_TextComesBackAsTheSameNumber(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 4))
	for range 8_000 {
		text := randomNumber(r)
		x := mustParse(t, text)
		got := x.String()
		if want := plainText(mustAPD(t, text)); got != want {
			t.Fatalf("seed %d: %s: got %s, want %s", seed, text, got, want)
		}
		again := mustParse(t, got)
		if again.Cmp(&x) != 0 || again.String() != got {
			t.Fatalf("seed %d: %s read again is %s", seed, got, again.String())
		}
		if slow := slowForm(x); slow.String() != got || slow.TextLen() != len(got) {
			t.Fatalf("seed %d: %s on the slow path reads %s", seed, got, slow.String())
		}
		point := strings.IndexByte(got+".", '.')
		before := len(strings.TrimLeft(strings.TrimPrefix(got[:point], "-"), "0"))
		behind := len(got) - min(len(got), point+1)
		if !x.Within(before, behind) || before > 0 && x.Within(before-1, behind) || behind > 0 && x.Within(before, behind-1) {
			t.Fatalf("seed %d: %s is not within just (%d, %d)", seed, got, before, behind)
		}
	}
}

func TestDecimal_Int64(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		ok   bool
	}{
		{"0", 0, true},
		{"1.0", 1, true},
		{"1.5", 0, false},
		{"12e3", 12_000, true},
		{"9223372036854775807", math.MaxInt64, true},
		{"9223372036854775808", 0, false},
		{"-9223372036854775808", math.MinInt64, true},
		{"-9223372036854775809", 0, false},
		{"1e19", 0, false},
		{"1e33", 0, false},
	} {
		x := mustParse(t, c.text)
		for _, form := range []Decimal{x, slowForm(x)} {
			if got, ok := form.Int64(); ok != c.ok || ok && got != c.want {
				t.Errorf("%s: got %d, %v, want %d, %v", c.text, got, ok, c.want, c.ok)
			}
		}
	}
	least, one := DecimalFromInt64(math.MinInt64), DecimalFromInt64(1)
	if got, ok := least.Int64(); !ok || got != math.MinInt64 {
		t.Errorf("the least int64: got %d, %v", got, ok)
	}
	if big := slowForm(least); big.reduced().big != nil {
		t.Error("the least int64 has two forms, so equal states could be unequal bytes")
	}
	var z Decimal
	if err := z.Sub(&least, &one); err != nil || z.String() != "-9223372036854775809" {
		t.Errorf("the least int64 less 1: got %s (%v)", z.String(), err)
	}
}

func TestDecimal_ExponentsStayWithinWhatAStateCanHold(t *testing.T) {
	grow := func(start string) (Decimal, error) {
		x, err := ParseStoredDecimal([]byte(start))
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			if err := x.Mul(&x, &x); err != nil {
				return x, err
			}
		}
		return x, nil
	}
	for _, start := range []string{"1e33", "1e-40", "7e12", "-3e-9"} {
		x, err := grow(start)
		if err == nil {
			t.Errorf("squares of %s grew without an end", start)
		}
		text := x.AppendText(nil)
		back, err := ParseStoredDecimal(text)
		if err != nil || back.Cmp(&x) != 0 {
			t.Errorf("squares of %s: the last one, of %d bytes, does not come back: %v", start, len(text), err)
		}
	}
}
