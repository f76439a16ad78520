package rules

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/common/ast"

	"github.com/tidemark/tidemark/codecs"
)

// conversions are the functions of one value to another type. They write the result into z; x is not null.
var conversions = map[string]func(z, x *codecs.Value) error{
	"decimal":   toDecimal,
	"string":    toText,
	"duration":  toDuration,
	"timestamp": toTime,
}

func toDecimal(z, x *codecs.Value) error {
	switch x.Kind {
	case codecs.Number:
		*z = *x
		return nil
	case codecs.String:
		d, err := codecs.ParseDecimal([]byte(x.Str))
		if err != nil {
			return fmt.Errorf("decimal(%s): %w", quoted(x.Str), err)
		}
		z.Kind, z.Num = codecs.Number, d
		return nil
	}
	return &kindError{"decimal()", []codecs.Kind{x.Kind}}
}

func toText(z, x *codecs.Value) error {
	switch x.Kind {
	case codecs.String:
		z.Str = x.Str
	case codecs.Number:
		z.Str = x.Num.String()
	case codecs.Bool:
		z.Str = strconv.FormatBool(x.Bool)
	case codecs.Time:
		z.Str = string(codecs.AppendTime(nil, x.Int))
	default:
		return &kindError{"string()", []codecs.Kind{x.Kind}}
	}
	z.Kind = codecs.String
	return nil
}

func toDuration(z, x *codecs.Value) error {
	switch x.Kind {
	case codecs.Duration:
		z.Kind, z.Int = codecs.Duration, x.Int
		return nil
	case codecs.String:
		ms, err := parseDuration(x.Str)
		if err != nil {
			return err
		}
		z.Kind, z.Int = codecs.Duration, ms
		return nil
	}
	return &kindError{"duration()", []codecs.Kind{x.Kind}}
}

func toTime(z, x *codecs.Value) error {
	switch x.Kind {
	case codecs.Time:
		z.Kind, z.Int = codecs.Time, x.Int
		return nil
	case codecs.String:
		ms, err := codecs.ParseTime([]byte(x.Str))
		if err != nil {
			return fmt.Errorf("timestamp(%s): %w", quoted(x.Str), err)
		}
		return setTime(z, ms)
	}
	return &kindError{"timestamp()", []codecs.Kind{x.Kind}}
}

// quoted shortens text for a message.
func quoted(s string) string {
	if len(s) > 40 {
		cut := 40
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "..."
	}
	return strconv.Quote(s)
}

var durationUnits = []struct {
	name string
	ms   int64
}{{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {"d", 24 * 60 * 60 * 1000}}

// parseDuration reads a whole number and ms, s, m, h or d.
func parseDuration(text string) (ms int64, err error) {
	digits := strings.TrimRight(text, "mshd")
	for _, unit := range durationUnits {
		if text[len(digits):] != unit.name || strings.TrimLeft(digits, "0123456789") != "" {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > durationMsMax/unit.ms {
			break
		}
		return n * unit.ms, nil
	}
	return 0, fmt.Errorf("%s is no duration: a whole number and ms, s, m, h or d, such as 10m", quoted(text))
}

// timeParts are CEL's getters, in UTC alone: other zones depend on the machine's tables.
var timeParts = map[string]func(t time.Time) int{
	"getFullYear":     time.Time.Year,
	"getMonth":        func(t time.Time) int { return int(t.Month()) - 1 },
	"getDate":         time.Time.Day,
	"getDayOfMonth":   func(t time.Time) int { return t.Day() - 1 },
	"getDayOfWeek":    func(t time.Time) int { return int(t.Weekday()) },
	"getDayOfYear":    func(t time.Time) int { return t.YearDay() - 1 },
	"getHours":        time.Time.Hour,
	"getMinutes":      time.Time.Minute,
	"getSeconds":      time.Time.Second,
	"getMilliseconds": func(t time.Time) int { return t.Nanosecond() / 1e6 },
}

// durationParts are CEL's getters of a duration: all of it, in whole units.
var durationParts = map[string]int64{
	"getHours": 60 * 60 * 1000, "getMinutes": 60 * 1000, "getSeconds": 1000, "getMilliseconds": 1,
}

func timePart(z, x *codecs.Value, name string, part func(t time.Time) int) error {
	var n int64
	unit := durationParts[name]
	switch {
	case x.Kind == codecs.Time:
		n = int64(part(time.UnixMilli(x.Int).UTC()))
	case x.Kind == codecs.Duration && unit > 0:
		n = x.Int / unit
	default:
		return &kindError{name + "()", []codecs.Kind{x.Kind}}
	}
	z.Kind, z.Num = codecs.Number, codecs.DecimalFromInt64(n)
	return nil
}

// textTest compiles contains, startsWith and endsWith.
func (u *unit) textTest(name string, x, y ast.Expr) boolFunc {
	test := map[string]func(s, part string) bool{
		"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
	}[name]
	left, right := u.valueOf(x), u.valueOf(y)
	return func(e *env) truth {
		x, y, null := operands(e, left, right)
		switch {
		case x == nil:
			return failed
		case null:
			return unknown
		case x.Kind != codecs.String || y.Kind != codecs.String:
			return e.fail(&kindError{name + "()", []codecs.Kind{x.Kind, y.Kind}})
		case !e.chargeText(len(x.Str)):
			return failed
		}
		return truthOf(test(x.Str, y.Str))
	}
}

var errPattern = errors.New("the pattern of matches() must be a constant text of at most 1000 bytes")

// matches compiles a regular expression once.
func (u *unit) matches(x, y ast.Expr) boolFunc {
	c, ok := u.constant(y)
	if !ok || c.Kind != codecs.String || len(c.Str) > patternBytesMax {
		u.fault(y, "%v", errPattern)
		return failTruth
	}
	pattern, steps, err := compilePattern(c.Str)
	if err != nil {
		u.fault(y, "%v", err)
		return failTruth
	}
	value := u.valueOf(x)
	return func(e *env) truth {
		v := value(e)
		switch {
		case v == nil:
			return failed
		case v.Kind == codecs.Null:
			return unknown
		case v.Kind != codecs.String:
			return e.fail(&kindError{"matches()", []codecs.Kind{v.Kind}})
		case !e.charge(len(v.Str) * steps):
			return failed
		}
		return truthOf(pattern.MatchString(v.Str))
	}
}
