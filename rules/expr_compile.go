package rules

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/tidemark/tidemark/codecs"
)

// A compiler turns the checked expressions of one RuleSet into closures that share one env.
type compiler struct {
	totals, flags   map[string]int // index in the schema
	slots           map[string]int // env.event, by joined path
	paths           []codecs.Path
	scratch, locals int
}

// A unit is the compilation of one expression.
type unit struct {
	*compiler
	*parsed
	program *program
	vars    []string // variables of the macros around, outermost first
	faults  []exprFault
}

// compile turns a checked expression into a program.
func (c *compiler) compile(name, source string, p *parsed) (*program, []exprFault) {
	u := &unit{compiler: c, parsed: p, program: &program{name: name[strings.LastIndexByte(name, '.')+1:], source: source}}
	root := p.ast.Expr()
	switch {
	case p.root.Kind() == types.BoolKind:
		u.program.cond = u.boolOf(root)
		u.program.eval = truthValue(u.program.cond)
	case isDyn(p.root):
		u.program.eval = u.valueOf(root)
		u.program.cond = asTruth(u.program.eval)
	default:
		u.program.eval = u.valueOf(root)
	}
	u.program.steps = u.affordable(root)
	if len(u.faults) > 0 {
		return nil, u.faults
	}
	u.program.canon = u.canonical(root)
	sort.Ints(u.program.totals)
	u.program.totals = slices.Compact(u.program.totals)
	sort.Ints(u.program.priorTotals)
	u.program.priorTotals = slices.Compact(u.program.priorTotals)
	return u.program, nil
}

func isDyn(t *types.Type) bool {
	return t.Kind() == types.DynKind || t.Kind() == types.TypeParamKind
}

func (u *unit) fault(e ast.Expr, format string, args ...any) {
	at := 0
	if o, ok := u.ast.SourceInfo().GetOffsetRange(e.ID()); ok {
		at = int(o.Start)
	}
	f := exprFault{offset: at, message: fmt.Sprintf(format, args...)}
	if !slices.Contains(u.faults, f) { // a constant is looked at more than once
		u.faults = append(u.faults, f)
	}
}

func (u *unit) newScratch() int {
	u.scratch++
	return u.scratch - 1
}

// Values that every program shares. Nothing writes to them.
var (
	nullValue  = &codecs.Value{}
	trueValue  = &codecs.Value{Kind: codecs.Bool, Bool: true}
	falseValue = &codecs.Value{Kind: codecs.Bool}
)

// What stands in for a node that has a fault; it never runs.
func failValue(*env) *codecs.Value { return nil }
func failTruth(*env) truth         { return failed }

// valueOf compiles e for its value.
func (u *unit) valueOf(e ast.Expr) valueFunc {
	if v, ok := u.constant(e); ok {
		return func(*env) *codecs.Value { return v }
	}
	if slot, ok := u.slot(e); ok {
		return func(e *env) *codecs.Value { return &e.event[slot] }
	}
	switch e.Kind() {
	case ast.IdentKind:
		return u.ident(e)
	case ast.SelectKind:
		return selectMember(u.valueOf(e.AsSelect().Operand()), e.AsSelect().FieldName())
	case ast.CallKind:
		return u.call(e)
	case ast.ListKind:
		return u.listLiteral(e)
	case ast.MapKind:
		return u.mapLiteral(e)
	case ast.ComprehensionKind:
		if e.AsComprehension().AccuVar() == "@"+operators.Map {
			return u.mapLoop(e.AsComprehension())
		}
		return truthValue(u.boolOf(e))
	}
	u.fault(e, "this cannot be evaluated")
	return failValue
}

// boolOf compiles e for its truth.
func (u *unit) boolOf(e ast.Expr) boolFunc {
	switch e.Kind() {
	case ast.IdentKind:
		if name, ok := strings.CutPrefix(strings.TrimPrefix(e.AsIdent(), "prior."), "flags."); ok && !slices.Contains(u.vars, e.AsIdent()) {
			i := u.flags[name]
			return func(e *env) truth { return truthOf(e.flags[i]) }
		}
	case ast.CallKind:
		if f := u.condition(e); f != nil {
			return f
		}
	case ast.ComprehensionKind:
		if c := e.AsComprehension(); c.AccuVar() != "@"+operators.Map {
			return u.quantifier(c)
		}
	}
	return asTruth(u.valueOf(e))
}

// asTruth takes a value of a type that is known only now as a condition.
func asTruth(value valueFunc) boolFunc {
	return func(e *env) truth {
		v := value(e)
		if v == nil {
			return failed
		}
		switch v.Kind {
		case codecs.Bool:
			return truthOf(v.Bool)
		case codecs.Null:
			return unknown
		}
		return e.fail(&kindError{"a condition", []codecs.Kind{v.Kind}})
	}
}

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func truthValue(cond boolFunc) valueFunc {
	return func(e *env) *codecs.Value {
		switch cond(e) {
		case yes:
			return trueValue
		case no:
			return falseValue
		case unknown:
			return nullValue
		}
		return nil
	}
}

// slot finds the place of a path below event whose names are all constant. Event alone is the empty path.
func (u *unit) slot(e ast.Expr) (int, bool) {
	root, names := rootAndNames(e)
	if root == nil || root.AsIdent() != "event" {
		return 0, false
	}
	key := fmt.Sprintf("%q", names)
	i, ok := u.slots[key]
	if !ok {
		i = len(u.paths)
		u.slots[key] = i
		u.paths = append(u.paths, codecs.Path(names))
	}
	return i, true
}

func (u *unit) ident(e ast.Expr) valueFunc {
	name := e.AsIdent()
	for depth := len(u.vars) - 1; depth >= 0; depth-- {
		if u.vars[depth] == name {
			return func(e *env) *codecs.Value { return e.locals[depth] }
		}
	}
	if name, ok := strings.CutPrefix(name, "totals."); ok {
		i := u.totals[name]
		u.program.totals = append(u.program.totals, i)
		return func(e *env) *codecs.Value { return &e.totals[i] }
	}
	if name, ok := strings.CutPrefix(name, "prior.totals."); ok {
		i := u.totals[name]
		u.program.priorTotals = append(u.program.priorTotals, i)
		return func(e *env) *codecs.Value { return &e.prior.totals[i] }
	}
	if strings.HasPrefix(strings.TrimPrefix(name, "prior."), "flags.") {
		return truthValue(u.boolOf(e))
	}
	s := u.newScratch()
	switch name {
	case nullIdent:
		return func(*env) *codecs.Value { return nullValue }
	case "time":
		return func(e *env) *codecs.Value {
			z := &e.scratch[s]
			z.Kind, z.Int = codecs.Time, e.timeMs
			return z
		}
	case "id":
		return func(e *env) *codecs.Value {
			z := &e.scratch[s]
			z.Kind, z.Str = codecs.String, e.id
			return z
		}
	case "prior.count":
		return func(e *env) *codecs.Value {
			z := &e.scratch[s]
			z.Kind, z.Num = codecs.Number, codecs.DecimalFromInt64(int64(e.prior.count))
			return z
		}
	case "prior.last_time":
		return func(e *env) *codecs.Value {
			z := &e.scratch[s]
			if z.Kind, z.Int = codecs.Null, 0; e.prior.hasLast {
				z.Kind, z.Int = codecs.Time, e.prior.lastMs
			}
			return z
		}
	}
	u.fault(e, "unknown name %s", name)
	return failValue
}

// constant folds literals, conversions of literals, and lists of them.
func (u *unit) constant(e ast.Expr) (*codecs.Value, bool) {
	switch e.Kind() {
	case ast.LiteralKind:
		switch v := e.AsLiteral().(type) {
		case types.Bool:
			return &codecs.Value{Kind: codecs.Bool, Bool: bool(v)}, true
		case types.String:
			return &codecs.Value{Kind: codecs.String, Str: string(v)}, true
		case types.Double:
			return &codecs.Value{Kind: codecs.Number, Num: *u.numbers[e.ID()]}, true
		}
	case ast.ListKind:
		out := &codecs.Value{Kind: codecs.List}
		for _, item := range e.AsList().Elements() {
			v, ok := u.constant(item)
			if !ok {
				return nil, false
			}
			out.Items = append(out.Items, *v)
		}
		return out, true
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() || len(call.Args()) != 1 || call.Args()[0].Kind() != ast.LiteralKind {
			return nil, false
		}
		convert := conversions[call.FunctionName()]
		if convert == nil {
			return nil, false
		}
		arg, _ := u.constant(call.Args()[0])
		var out codecs.Value
		if err := convert(&out, arg); err != nil {
			u.fault(call.Args()[0], "%v", err)
		}
		return &out, true
	}
	return nil, false
}

// call compiles the functions that answer a value other than a truth.
func (u *unit) call(e ast.Expr) valueFunc {
	call := e.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	switch name := call.FunctionName(); name {
	case operators.Add, operators.Subtract, operators.Multiply:
		return u.arithmetic(name, args[0], args[1])
	case operators.Negate:
		return u.unary(args[0], negate)
	case operators.Conditional:
		return u.ternary(args)
	case operators.Index:
		return u.index(args[0], args[1])
	case "size":
		return u.unary(args[0], size)
	default:
		if convert := conversions[name]; convert != nil {
			return u.unary(args[0], func(e *env, z, x *codecs.Value) error { return convert(z, x) })
		}
		if part := timeParts[name]; part != nil {
			return u.unary(args[0], func(e *env, z, x *codecs.Value) error { return timePart(z, x, name, part) })
		}
	}
	if cond := u.condition(e); cond != nil {
		return truthValue(cond)
	}
	u.fault(e, "%s cannot be evaluated", call.FunctionName())
	return failValue
}

// condition compiles the functions that answer a truth; nil for the others.
func (u *unit) condition(e ast.Expr) boolFunc {
	call := e.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	switch name := call.FunctionName(); name {
	case operators.LogicalAnd:
		return and(u.boolOf(args[0]), u.boolOf(args[1]))
	case operators.LogicalOr:
		return or(u.boolOf(args[0]), u.boolOf(args[1]))
	case operators.LogicalNot:
		return not(u.boolOf(args[0]))
	case operators.Conditional:
		return ternaryTruth(u.boolOf(args[0]), u.boolOf(args[1]), u.boolOf(args[2]))
	case operators.Equals:
		return u.equality(args[0], args[1])
	case operators.NotEquals:
		return not(u.equality(args[0], args[1]))
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return u.comparison(name, args[0], args[1])
	case operators.In:
		return u.in(args[0], args[1])
	case hasCall:
		return isNull(u.valueOf(args[0]), no, yes)
	case "contains", "startsWith", "endsWith":
		return u.textTest(name, args[0], args[1])
	case "matches":
		return u.matches(args[0], args[1])
	}
	return nil
}

// and is SQL's: false absorbs all else, an error wins over unknown.
func and(left, right boolFunc) boolFunc {
	return func(e *env) truth {
		l := left(e)
		if l == no {
			return no
		}
		err := e.err
		r := right(e)
		switch {
		case r == no || l == yes:
			return r
		case l == failed:
			e.err = err
			return failed
		case r == failed:
			return failed
		}
		return unknown
	}
}

// or is SQL's: true absorbs all else, an error wins over unknown.
func or(left, right boolFunc) boolFunc {
	return func(e *env) truth {
		l := left(e)
		if l == yes {
			return yes
		}
		err := e.err
		r := right(e)
		switch {
		case r == yes || l == no:
			return r
		case l == failed:
			e.err = err
			return failed
		case r == failed:
			return failed
		}
		return unknown
	}
}

func not(cond boolFunc) boolFunc {
	return func(e *env) truth {
		switch t := cond(e); t {
		case yes:
			return no
		case no:
			return yes
		default:
			return t
		}
	}
}

func ternaryTruth(cond, a, b boolFunc) boolFunc {
	return func(e *env) truth {
		switch t := cond(e); t {
		case yes:
			return a(e)
		case no:
			return b(e)
		default:
			return t
		}
	}
}

func (u *unit) ternary(args []ast.Expr) valueFunc {
	cond, a, b := u.boolOf(args[0]), u.valueOf(args[1]), u.valueOf(args[2])
	return func(e *env) *codecs.Value {
		switch cond(e) {
		case yes:
			return a(e)
		case no:
			return b(e)
		case unknown:
			return nullValue
		}
		return nil
	}
}

// isNull asks for null itself: it is never unknown.
func isNull(value valueFunc, null, other truth) boolFunc {
	return func(e *env) truth {
		v := value(e)
		switch {
		case v == nil:
			return failed
		case v.Kind == codecs.Null:
			return null
		}
		return other
	}
}

// unary compiles a strict function of one operand.
func (u *unit) unary(x ast.Expr, op func(e *env, z, x *codecs.Value) error) valueFunc {
	value, s := u.valueOf(x), u.newScratch()
	return func(e *env) *codecs.Value {
		v := value(e)
		if v == nil || v.Kind == codecs.Null {
			return v
		}
		z := &e.scratch[s]
		if err := op(e, z, v); err != nil {
			e.err = err
			return nil
		}
		return z
	}
}
