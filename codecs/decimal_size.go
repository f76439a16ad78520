package codecs

import (
	"math/bits"

	"github.com/cockroachdb/apd/v3"
)

// Within tells whether the number has at most digits digits before the point and decimals behind it.
func (z *Decimal) Within(digits, decimals int) bool {
	if z.big == nil && z.coef == 0 {
		return true
	}
	if z.big == nil && digitsIn(magnitude(z.coef))+int(z.exp) <= digits && -int(z.exp) <= decimals {
		return true // trailing zeros change the first side not at all, and the second only for the better
	}
	r := z.reduced()
	if r.big != nil {
		return int(r.big.NumDigits())+int(r.big.Exponent) <= digits && -int(r.big.Exponent) <= decimals
	}
	return digitsIn(magnitude(r.coef))+int(r.exp) <= digits && -int(r.exp) <= decimals
}

// Floor is the greatest whole number that is not above the number.
func (z *Decimal) Floor() Decimal {
	r := z.reduced()
	if r.big == nil {
		if r.exp >= 0 {
			return r
		}
		if scale := -r.exp; scale < int32(len(powersOf10)) {
			whole := r.coef / powersOf10[scale]
			if r.coef < 0 { // r is reduced: something is left over
				whole--
			}
			return Decimal{coef: whole}
		}
		return Decimal{coef: r.coef >> 63} // between -1 and 1
	}
	if r.big.Exponent >= 0 {
		return r
	}
	var whole apd.Decimal
	if _, err := exact.Floor(&whole, r.big); err != nil {
		panic("codecs: a whole number needs more digits than what it was cut from: " + err.Error())
	}
	var f Decimal
	f.keep(&whole)
	return f
}

// TextLen is the length of AppendText's text.
func (z *Decimal) TextLen() int {
	r := z.reduced()
	if r.big != nil {
		var buf [160]byte
		return len(r.AppendText(buf[:0]))
	}
	n, sign := digitsIn(magnitude(r.coef)), 0
	if r.coef < 0 {
		sign = 1
	}
	switch point := n + int(r.exp); {
	case r.exp >= 0:
		return sign + point
	case point > 0:
		return sign + n + 1
	default:
		return sign + 2 - point + n
	}
}

// digitsIn counts the decimal digits of n <= 1<<63; 0 has one. 1233/4096 is log10(2), rounded down far enough for 64 bits.
func digitsIn(n uint64) int {
	n |= 1 // no other digit becomes more by it
	below := bits.Len64(n) * 1233 >> 12
	if below >= len(powersOf10) || n >= uint64(powersOf10[below]) {
		return min(below+1, len(powersOf10))
	}
	return below
}
