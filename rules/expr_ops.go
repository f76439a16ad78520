package rules

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/tidemark/tidemark/codecs"
)

// kindError is an operation on types it does not take.
type kindError struct {
	op    string
	kinds []codecs.Kind
}

var kindNames = map[codecs.Kind]string{
	codecs.Null: "null", codecs.Bool: "a boolean", codecs.Number: "a number", codecs.String: "text",
	codecs.List: "a list", codecs.Map: "an object", codecs.Time: "a time", codecs.Duration: "a duration",
}

func (k *kindError) Error() string {
	names := make([]string, len(k.kinds))
	for i, kind := range k.kinds {
		names[i] = kindNames[kind]
	}
	return fmt.Sprintf("%s cannot take %s", k.op, strings.Join(names, " and "))
}

var (
	errTimeRange     = errors.New("a time outside the years 0001 to 9999")
	errDurationRange = errors.New("a duration of more than 10000 years")
)

// Times lie in the years 0001 to 9999; durations may not be longer than that.
const (
	timeMsMin     = -62135596800000
	timeMsMax     = 253402300799999
	durationMsMax = 10000 * 366 * 24 * 60 * 60 * 1000
)

func (e *env) fail(err error) truth {
	e.err = err
	return failed
}

func (e *env) failValue(err error) *codecs.Value {
	e.err = err
	return nil
}

// charge spends steps; false when none are left.
func (e *env) charge(n int) bool {
	e.steps += n
	if e.steps > stepsMax {
		e.err = errSteps
		return false
	}
	return true
}

// chargeText spends the steps of a pass over long text.
func (e *env) chargeText(n int) bool { return n < 64 || e.charge(n/16) }

// operands evaluates both sides. An error on either side wins over null.
func operands(e *env, left, right valueFunc) (x, y *codecs.Value, null bool) {
	x = left(e)
	if x == nil {
		return nil, nil, false
	}
	y = right(e)
	if y == nil {
		return nil, nil, false
	}
	return x, y, x.Kind == codecs.Null || y.Kind == codecs.Null
}

var displays = map[string]string{
	operators.Less: "<", operators.LessEquals: "<=", operators.Greater: ">", operators.GreaterEquals: ">=",
	operators.Add: "+", operators.Subtract: "-", operators.Multiply: "*",
}

// accepts[op][c+1] says whether op holds when the comparison of its sides is c.
var accepts = map[string][3]truth{
	operators.Less:          {yes, no, no},
	operators.LessEquals:    {yes, yes, no},
	operators.Greater:       {no, no, yes},
	operators.GreaterEquals: {no, yes, yes},
}

func (u *unit) comparison(op string, x, y ast.Expr) boolFunc {
	accept, name := accepts[op], displays[op]
	if c, ok := u.constant(y); ok && c.Kind == codecs.Number {
		return compareNumber(u.valueOf(x), c, accept, name)
	}
	if c, ok := u.constant(x); ok && c.Kind == codecs.Number {
		accept[0], accept[2] = accept[2], accept[0]
		return compareNumber(u.valueOf(y), c, accept, name)
	}
	left, right := u.valueOf(x), u.valueOf(y)
	return func(e *env) truth {
		x, y, null := operands(e, left, right)
		switch {
		case x == nil:
			return failed
		case null:
			return unknown
		case x.Kind != y.Kind:
			return e.fail(&kindError{name, []codecs.Kind{x.Kind, y.Kind}})
		}
		switch x.Kind {
		case codecs.Number:
			return accept[x.Num.Cmp(&y.Num)+1]
		case codecs.Time, codecs.Duration:
			return accept[cmp.Compare(x.Int, y.Int)+1]
		case codecs.String:
			if !e.chargeText(min(len(x.Str), len(y.Str))) {
				return failed
			}
			return accept[strings.Compare(x.Str, y.Str)+1]
		case codecs.Bool:
			return accept[compareBool(x.Bool, y.Bool)+1]
		}
		return e.fail(&kindError{name, []codecs.Kind{x.Kind, y.Kind}})
	}
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
}

// compareNumber is the commonest comparison: with a constant.
func compareNumber(value valueFunc, c *codecs.Value, accept [3]truth, name string) boolFunc {
	return func(e *env) truth {
		v := value(e)
		if v == nil {
			return failed
		}
		switch v.Kind {
		case codecs.Number:
			return accept[v.Num.Cmp(&c.Num)+1]
		case codecs.Null:
			return unknown
		}
		return e.fail(&kindError{name, []codecs.Kind{v.Kind, c.Kind}})
	}
}

func isNullLiteral(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == nullIdent }

func (u *unit) equality(x, y ast.Expr) boolFunc {
	if isNullLiteral(x) {
		x, y = y, x
	}
	if isNullLiteral(y) {
		return isNull(u.valueOf(x), yes, no)
	}
	if _, ok := u.constant(x); ok {
		x, y = y, x
	}
	if c, ok := u.constant(y); ok && c.Kind == codecs.String {
		return u.equalsText(x, c)
	}
	left, right := u.valueOf(x), u.valueOf(y)
	return func(e *env) truth {
		x, y, _ := operands(e, left, right)
		if x == nil {
			return failed
		}
		return equals(e, x, y)
	}
}

func (u *unit) equalsText(x ast.Expr, c *codecs.Value) boolFunc {
	value, text := u.valueOf(x), c.Str
	return func(e *env) truth {
		v := value(e)
		if v == nil {
			return failed
		}
		switch v.Kind {
		case codecs.String:
			return truthOf(v.Str == text)
		case codecs.Null:
			return unknown
		}
		return e.fail(&kindError{"==", []codecs.Kind{v.Kind, codecs.String}})
	}
}

// equals is strict equality of two values of one type. Lists and objects compare as the conjunction of their parts.
func equals(e *env, x, y *codecs.Value) truth {
	if x.Kind == codecs.Null || y.Kind == codecs.Null {
		return unknown
	}
	if x.Kind != y.Kind {
		return e.fail(&kindError{"==", []codecs.Kind{x.Kind, y.Kind}})
	}
	switch x.Kind {
	case codecs.Bool:
		return truthOf(x.Bool == y.Bool)
	case codecs.Number:
		return truthOf(x.Num.Cmp(&y.Num) == 0)
	case codecs.Time, codecs.Duration:
		return truthOf(x.Int == y.Int)
	case codecs.String:
		if len(x.Str) == len(y.Str) && !e.chargeText(len(x.Str)) {
			return failed
		}
		return truthOf(x.Str == y.Str)
	case codecs.List:
		return equalLists(e, x.Items, y.Items)
	}
	return equalMaps(e, x.Members, y.Members)
}

func equalLists(e *env, x, y []codecs.Value) truth {
	if len(x) != len(y) {
		return no
	}
	all := yes
	for i := range x {
		if !e.charge(1) {
			return failed
		}
		if all = conjoin(all, equals(e, &x[i], &y[i])); all == no {
			return no
		}
	}
	return all
}

func equalMaps(e *env, x, y []codecs.Member) truth {
	if len(x) != len(y) {
		return no
	}
	all := yes
	for i := range x {
		other := member(e, y, x[i].Name)
		if other == nil {
			return no
		}
		if !e.charge(1) {
			return failed
		}
		if all = conjoin(all, equals(e, &x[i].Value, other)); all == no {
			return no
		}
	}
	return all
}

// conjoin folds one more truth into all, which is not no.
func conjoin(all, one truth) truth {
	switch {
	case one == no:
		return no
	case all == failed || one == failed:
		return failed
	case all == unknown || one == unknown:
		return unknown
	}
	return yes
}

func (u *unit) arithmetic(op string, x, y ast.Expr) valueFunc {
	left, right, s, name := u.valueOf(x), u.valueOf(y), u.newScratch(), displays[op]
	var numbers func(z, x, y *codecs.Decimal) error
	switch op {
	case operators.Add:
		numbers = (*codecs.Decimal).Add
	case operators.Subtract:
		numbers = (*codecs.Decimal).Sub
	case operators.Multiply:
		numbers = (*codecs.Decimal).Mul
	}
	return func(e *env) *codecs.Value {
		x, y, null := operands(e, left, right)
		switch {
		case x == nil:
			return nil
		case null:
			return nullValue
		}
		z := &e.scratch[s]
		if x.Kind == codecs.Number && y.Kind == codecs.Number {
			z.Kind = codecs.Number
			if err := numbers(&z.Num, &x.Num, &y.Num); err != nil {
				return e.failValue(err)
			}
			return z
		}
		var err error
		switch op {
		case operators.Add:
			err = addOther(e, z, x, y)
		case operators.Subtract:
			err = subtractOther(z, x, y)
		default:
			err = &kindError{name, []codecs.Kind{x.Kind, y.Kind}}
		}
		if err != nil {
			return e.failValue(err)
		}
		return z
	}
}

// addOther adds what are not two numbers.
func addOther(e *env, z, x, y *codecs.Value) error {
	switch {
	case x.Kind == codecs.Time && y.Kind == codecs.Duration, x.Kind == codecs.Duration && y.Kind == codecs.Time:
		return setTime(z, x.Int+y.Int)
	case x.Kind == codecs.Duration && y.Kind == codecs.Duration:
		return setDuration(z, x.Int+y.Int)
	case x.Kind == codecs.String && y.Kind == codecs.String:
		if !e.chargeText(len(x.Str) + len(y.Str)) {
			return errSteps
		}
		z.Kind, z.Str = codecs.String, x.Str+y.Str
		return nil
	case x.Kind == codecs.List && y.Kind == codecs.List:
		if !e.charge(len(x.Items) + len(y.Items)) {
			return errSteps
		}
		items := make([]codecs.Value, 0, len(x.Items)+len(y.Items))
		z.Kind, z.Items = codecs.List, append(append(items, x.Items...), y.Items...)
		return nil
	}
	return &kindError{"+", []codecs.Kind{x.Kind, y.Kind}}
}

func subtractOther(z, x, y *codecs.Value) error {
	switch {
	case x.Kind == codecs.Time && y.Kind == codecs.Time, x.Kind == codecs.Duration && y.Kind == codecs.Duration:
		return setDuration(z, x.Int-y.Int)
	case x.Kind == codecs.Time && y.Kind == codecs.Duration:
		return setTime(z, x.Int-y.Int)
	}
	return &kindError{"-", []codecs.Kind{x.Kind, y.Kind}}
}

func setTime(z *codecs.Value, ms int64) error {
	if ms < timeMsMin || ms > timeMsMax {
		return errTimeRange
	}
	z.Kind, z.Int = codecs.Time, ms
	return nil
}

func setDuration(z *codecs.Value, ms int64) error {
	if ms < -durationMsMax || ms > durationMsMax {
		return errDurationRange
	}
	z.Kind, z.Int = codecs.Duration, ms
	return nil
}

func negate(_ *env, z, x *codecs.Value) error {
	switch x.Kind {
	case codecs.Number:
		var zero codecs.Decimal
		z.Kind = codecs.Number
		return z.Num.Sub(&zero, &x.Num)
	case codecs.Duration:
		z.Kind, z.Int = codecs.Duration, -x.Int
		return nil
	}
	return &kindError{"-", []codecs.Kind{x.Kind}}
}
