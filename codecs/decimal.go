package codecs

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"

	"github.com/cockroachdb/apd/v3"
)

// Limits of a number in an event, judged by value: trailing zeros do not count.
const (
	EventDigitsMax   = 34 // significant digits; the magnitude is below 1e34
	EventDecimalsMax = 40
)

// arithmeticDigits is what totals and arithmetic carry, so that no accepted event makes a later one fail.
const arithmeticDigits = 120

// Powers of ten beyond these are refused, so that the text of every result stays short and can be stored.
const (
	exponentMax = 9_999
	exponentMin = -exponentMax + arithmeticDigits
	storedMax   = exponentMax + 1 // digits before the point, and decimals
)

var (
	// ErrNumber says that a text is no number, or one beyond the limits of an event.
	ErrNumber = errors.New("not a number within the limits")

	exact = apd.Context{
		Precision: arithmeticDigits, MaxExponent: exponentMax, MinExponent: exponentMin,
		Traps: apd.DefaultTraps | apd.Inexact | apd.Rounded, Rounding: apd.RoundHalfEven,
	}
	// averaging rounds half-even to 16 significant digits.
	averaging = apd.Context{
		Precision: 16, MaxExponent: exponentMax, MinExponent: exponentMin,
		Traps: apd.DefaultTraps, Rounding: apd.RoundHalfEven,
	}
)

// Decimal is an exact decimal number. The zero value is 0. A Decimal is immutable by convention: methods
// with the receiver z set z to a new number and never change what another Decimal holds, so values
// may be copied by assignment.
//
// Nearly every number fits in an int64 coefficient and a power of ten; arithmetic on these is done here,
// overflow goes to apd, which does all the rest.
type Decimal struct {
	coef int64
	exp  int32
	big  *apd.Decimal // if not nil, the value; never changed
}

// DecimalFromInt64 is n.
func DecimalFromInt64(n int64) Decimal { return Decimal{coef: n} }

// ParseDecimal reads a finite decimal within the limits of an event, in plain or exponent notation.
// Everything else is ErrNumber; a huge exponent costs nothing.
func ParseDecimal(text []byte) (Decimal, error) {
	return parseDecimal(text, EventDigitsMax, EventDigitsMax, EventDecimalsMax)
}

// ParseStoredDecimal reads what AppendText wrote: up to 120 digits.
func ParseStoredDecimal(text []byte) (Decimal, error) {
	return parseDecimal(text, arithmeticDigits, storedMax, storedMax)
}

// decimalText is a number taken apart: digits without leading and trailing zeros, times 10^exp.
type decimalText struct {
	negative bool
	coef     uint64 // of the digits, if there are at most 18 of them
	digits   int
	exp      int64
	from, to int // the span of text that holds the digits
}

func parseDecimal(text []byte, digitsMax, magnitudeMax, decimalsMax int) (Decimal, error) {
	d, ok := scanDecimal(text)
	if !ok {
		return Decimal{}, fmt.Errorf("%w: %.40q is not a number", ErrNumber, text)
	}
	switch {
	case d.digits == 0:
		return Decimal{}, nil
	case d.digits > digitsMax:
		return Decimal{}, fmt.Errorf("%w: more than %d significant digits", ErrNumber, digitsMax)
	case int64(d.digits)+d.exp > int64(magnitudeMax):
		return Decimal{}, fmt.Errorf("%w: magnitude of 1e%d or more", ErrNumber, magnitudeMax)
	case -d.exp > int64(decimalsMax):
		return Decimal{}, fmt.Errorf("%w: more than %d decimals", ErrNumber, decimalsMax)
	}
	if d.digits <= 18 {
		coef := int64(d.coef)
		if d.negative {
			coef = -coef
		}
		return Decimal{coef: coef, exp: int32(d.exp)}, nil
	}
	plain := make([]byte, 0, d.digits+1)
	if d.negative {
		plain = append(plain, '-')
	}
	for _, c := range text[d.from:d.to] {
		if c != '.' {
			plain = append(plain, c)
		}
	}
	var big apd.Decimal
	if _, _, err := big.SetString(string(plain)); err != nil {
		return Decimal{}, fmt.Errorf("%w: %w", ErrNumber, err)
	}
	big.Exponent += int32(d.exp)
	return Decimal{big: &big}, nil
}

// scanDecimal checks [-+]digits[.digits][(e|E)[-+]digits] and finds the significant digits.
func scanDecimal(text []byte) (d decimalText, ok bool) {
	i := 0
	if i < len(text) && (text[i] == '-' || text[i] == '+') {
		d.negative = text[i] == '-'
		i++
	}
	seen, point, fraction, zeros := false, false, int64(0), 0
	d.from = -1
	for ; i < len(text); i++ {
		c := text[i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		seen = true
		if point {
			fraction++
		}
		switch {
		case c != '0':
			if d.from < 0 {
				d.from = i
			}
			for ; zeros > 0; zeros-- {
				d.push(0)
			}
			d.push(c - '0')
			d.to = i + 1
		case d.digits > 0:
			zeros++
		}
	}
	if !seen || text[i-1] == '.' {
		return d, false
	}
	exp, ok := scanExponent(text[i:])
	d.exp = exp - fraction + int64(zeros)
	return d, ok
}

func (d *decimalText) push(digit byte) {
	if d.digits < 18 {
		d.coef = d.coef*10 + uint64(digit)
	}
	d.digits++
}

// scanExponent reads an exponent and the end of the text; it saturates far outside every limit.
func scanExponent(text []byte) (exp int64, ok bool) {
	if len(text) == 0 {
		return 0, true
	}
	if text[0] != 'e' && text[0] != 'E' {
		return 0, false
	}
	text = text[1:]
	negative := false
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		negative, text = text[0] == '-', text[1:]
	}
	if len(text) == 0 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		if exp < 1<<40 {
			exp = exp*10 + int64(c-'0')
		}
	}
	if negative {
		exp = -exp
	}
	return exp, true
}

// Add sets z to x+y. An error (more than 120 digits, or a power of ten beyond some 10,000) leaves z as it was.
func (z *Decimal) Add(x, y *Decimal) error {
	if a, b, exp, ok := align(x, y); ok {
		if sum := a + b; (sum > a) == (b > 0) {
			*z = Decimal{coef: sum, exp: exp}
			return nil
		}
	}
	return z.slow(exact.Add, x, y)
}

// Sub sets z to x-y; errors as Add's.
func (z *Decimal) Sub(x, y *Decimal) error {
	if a, b, exp, ok := align(x, y); ok {
		if diff := a - b; (diff < a) == (b > 0) {
			*z = Decimal{coef: diff, exp: exp}
			return nil
		}
	}
	return z.slow(exact.Sub, x, y)
}

// Mul sets z to x*y; errors as Add's.
func (z *Decimal) Mul(x, y *Decimal) error {
	if exp := x.exp + y.exp; x.big == nil && y.big == nil && exp >= exponentMin && exp <= exponentMax-18 {
		hi, lo := bits.Mul64(magnitude(x.coef), magnitude(y.coef))
		if hi == 0 && lo <= math.MaxInt64 {
			coef := int64(lo)
			if (x.coef < 0) != (y.coef < 0) {
				coef = -coef
			}
			*z = Decimal{coef: coef, exp: exp}
			if coef == 0 {
				z.exp = 0
			}
			return nil
		}
	}
	return z.slow(exact.Mul, x, y)
}

// Avg sets z to sum/n, rounded half-even to 16 significant digits. n must not be 0.
func (z *Decimal) Avg(sum *Decimal, n uint64) error {
	var count apd.Decimal
	count.Coeff.SetUint64(n)
	var quotient apd.Decimal
	if _, err := averaging.Quo(&quotient, sum.apd(), &count); err != nil {
		return fmt.Errorf("average: %w", err)
	}
	z.keep(&quotient)
	return nil
}

func (z *Decimal) slow(op func(d, x, y *apd.Decimal) (apd.Condition, error), x, y *Decimal) error {
	var result apd.Decimal
	if _, err := op(&result, x.apd(), y.apd()); err != nil {
		return fmt.Errorf("decimal arithmetic beyond %d digits: %w", arithmeticDigits, err)
	}
	z.keep(&result)
	return nil
}

// keep takes d over, in the small form where it fits.
func (z *Decimal) keep(d *apd.Decimal) {
	var reduced apd.Decimal
	reduced.Reduce(d)
	var coef apd.BigInt
	if reduced.Negative {
		coef.Neg(&reduced.Coeff)
	} else {
		coef.Set(&reduced.Coeff)
	}
	if coef.IsInt64() { // one form for each number, the least int64 included
		*z = Decimal{coef: coef.Int64(), exp: reduced.Exponent}
		return
	}
	*z = Decimal{big: &reduced}
}

func (z *Decimal) apd() *apd.Decimal {
	if z.big != nil {
		return z.big
	}
	return apd.New(z.coef, z.exp)
}

// align brings two small numbers to one exponent, if that overflows nowhere.
func align(x, y *Decimal) (a, b int64, exp int32, ok bool) {
	if x.big != nil || y.big != nil {
		return 0, 0, 0, false
	}
	switch {
	case x.exp == y.exp:
		return x.coef, y.coef, x.exp, true
	case x.coef == 0:
		return 0, y.coef, y.exp, true
	case y.coef == 0:
		return x.coef, 0, x.exp, true
	case x.exp > y.exp:
		a, ok = scaleUp(x.coef, x.exp-y.exp)
		return a, y.coef, y.exp, ok
	default:
		b, ok = scaleUp(y.coef, y.exp-x.exp)
		return x.coef, b, x.exp, ok
	}
}

var powersOf10 = func() (p [19]int64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

func scaleUp(coef int64, by int32) (int64, bool) {
	if by >= int32(len(powersOf10)) {
		return 0, false
	}
	hi, lo := bits.Mul64(magnitude(coef), uint64(powersOf10[by]))
	if coef < 0 && hi == 0 && lo <= 1<<63 {
		return int64(-lo), true
	}
	if hi != 0 || lo > math.MaxInt64 {
		return 0, false
	}
	return int64(lo), true
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return uint64(-n)
	}
	return uint64(n)
}

// Cmp compares by value: -1, 0, 1.
func (z *Decimal) Cmp(y *Decimal) int {
	if a, b, _, ok := align(z, y); ok {
		switch {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	}
	return z.apd().Cmp(y.apd())
}

// Sign is -1, 0 or 1.
func (z *Decimal) Sign() int {
	switch {
	case z.big != nil:
		return z.big.Sign()
	case z.coef < 0:
		return -1
	case z.coef > 0:
		return 1
	}
	return 0
}

// IsZero tells whether the number is 0.
func (z *Decimal) IsZero() bool { return z.Sign() == 0 }

// Set makes z the number x.
func (z *Decimal) Set(x *Decimal) { *z = *x }

// Clone answers the number again; assignment does the same.
func (z *Decimal) Clone() Decimal { return *z }

// reduced is the form without trailing zeros; zero is 0 times 10^0.
func (z *Decimal) reduced() Decimal {
	r := *z
	if r.big != nil {
		r.keep(r.big)
		return r
	}
	if r.coef == 0 {
		return Decimal{}
	}
	for r.coef%10 == 0 {
		r.coef /= 10
		r.exp++
	}
	return r
}

// Int64 answers the number if it is an integer that fits.
func (z *Decimal) Int64() (int64, bool) {
	r := z.reduced()
	if r.big != nil || r.exp < 0 {
		return 0, false
	}
	return scaleUp(r.coef, r.exp)
}

// AppendText appends the number in plain notation, without trailing zeros and without -0.
func (z *Decimal) AppendText(dst []byte) []byte {
	r := z.reduced()
	if r.big != nil {
		return r.big.Append(dst, 'f')
	}
	if r.coef < 0 {
		dst = append(dst, '-')
	}
	var buf [20]byte
	digits := strconv.AppendUint(buf[:0], magnitude(r.coef), 10)
	switch point := len(digits) + int(r.exp); {
	case r.exp >= 0:
		dst = append(dst, digits...)
		return appendZeros(dst, int(r.exp))
	case point > 0:
		dst = append(dst, digits[:point]...)
		dst = append(dst, '.')
		return append(dst, digits[point:]...)
	default:
		dst = appendZeros(append(dst, '0', '.'), -point)
		return append(dst, digits...)
	}
}

func appendZeros(dst []byte, n int) []byte {
	for ; n > 0; n-- {
		dst = append(dst, '0')
	}
	return dst
}

// String is AppendText's text.
func (z *Decimal) String() string { return string(z.AppendText(nil)) }
