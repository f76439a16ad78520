package rules

import (
	"fmt"

	"github.com/tidemark/tidemark/codecs"
)

// Bounds of a number that a total takes. Every number of an event is inside, and the square of one below 1e25 with at most 25
// decimals; not every product is. With them no sum, of however many and in whatever order they come and go, needs
// more digits than arithmetic carries: 50 before the point, 50 after it, and 19 for as many events as can be counted.
const (
	takenDigitsMax   = 50
	takenDecimalsMax = 50
)

// set takes the value of a total's expression.
func (c *contribution) set(kind totalKind, v *codecs.Value) error {
	if kind.hasVals() {
		switch v.Kind {
		case codecs.Bool, codecs.String:
			c.val = codecs.Value{Kind: v.Kind, Bool: v.Bool, Str: v.Str} // what is kept is copied by retain
		case codecs.Number:
			if !v.Num.Within(takenDigitsMax, takenDecimalsMax) {
				return errTaken(kind)
			}
			c.val = codecs.Value{Kind: v.Kind, Num: v.Num}
		default:
			return fmt.Errorf("%s takes numbers, text and booleans, not %s", kind, kindNames[v.Kind])
		}
		return nil
	}
	if v.Kind != codecs.Number {
		return fmt.Errorf("%s takes numbers, not %s", kind, kindNames[v.Kind])
	}
	if !v.Num.Within(takenDigitsMax, takenDecimalsMax) {
		return errTaken(kind)
	}
	c.num = v.Num
	return nil
}

func errTaken(kind totalKind) error {
	return fmt.Errorf("%s takes numbers below 1e%d with at most %d decimals", kind, takenDigitsMax, takenDecimalsMax)
}
