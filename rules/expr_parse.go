package rules

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/parser"

	"github.com/tidemark/tidemark/codecs"
)

// Limits of one expression.
const (
	exprRunesMax = 16 << 10
	exprDepthMax = 100 // of parentheses and of the tree
	loopDepthMax = 3   // macros within macros
)

// Idents and calls that the rewriting puts in; no source text can spell them.
const (
	nullIdent = "@null"
	hasCall   = "@has"
)

// A scope says which names an expression may use.
type scope struct {
	totals map[string]typeOf // by name
	flags  map[string]bool
	inner  bool // a total's own expression: no totals.x
	input  bool // input.id and input.time: event alone

	env *checker.Env // of these names; made when it is first needed
}

// A parsed expression has passed the checker: names are resolved, every node has a type.
type parsed struct {
	ast     *ast.AST
	numbers map[int64]*codecs.Decimal // literals, by node
	root    *types.Type
}

// exprFault is a fault at a place within an expression: runes from its start.
type exprFault struct {
	offset  int
	message string
	syntax  bool
}

var celParser = func() *parser.Parser {
	p, err := parser.NewParser(
		parser.Macros(loopMacros()...),
		parser.MaxRecursionDepth(exprDepthMax),
		parser.ExpressionSizeCodePointLimit(exprRunesMax),
		parser.MaxExpressionNodeCount(exprRunesMax),
		parser.ErrorReportingLimit(1),
	)
	if err != nil {
		panic(err)
	}
	return p
}()

// parseExpr parses and type-checks one expression.
func parseExpr(text string, sc *scope) (*parsed, []exprFault) {
	if n := utf8.RuneCountInString(text); n > exprRunesMax {
		return nil, []exprFault{{message: fmt.Sprintf("an expression has at most %d characters, this one has %d", exprRunesMax, n)}}
	}
	source := common.NewTextSource(text)
	tree, errs := celParser.Parse(source)
	if len(errs.GetErrors()) > 0 {
		return nil, celFaults(text, tree, errs, true)
	}
	r := &rewriter{scope: sc, text: []rune(text), info: tree.SourceInfo(), factory: ast.NewExprFactory(), numbers: map[int64]*codecs.Decimal{}}
	r.walk(tree.Expr(), 0)
	if len(r.faults) > 0 {
		return nil, r.faults
	}
	checked, errs := checker.Check(tree, source, sc.checkerEnv())
	if len(errs.GetErrors()) > 0 {
		return nil, celFaults(text, tree, errs, false)
	}
	return &parsed{ast: checked, numbers: r.numbers, root: checked.GetType(checked.Expr().ID())}, nil
}

// rewriter resolves names and literals before the check, and finds the faults that the checker would word badly.
type rewriter struct {
	*scope
	text    []rune
	info    *ast.SourceInfo
	factory ast.ExprFactory
	numbers map[int64]*codecs.Decimal
	locals  []string
	loops   int
	faults  []exprFault
}

func (r *rewriter) fault(e ast.Expr, format string, args ...any) {
	at := 0
	if o, ok := r.info.GetOffsetRange(e.ID()); ok {
		at = int(o.Start)
	}
	r.faults = append(r.faults, exprFault{offset: at, message: fmt.Sprintf(format, args...)})
}

func (r *rewriter) walk(e ast.Expr, depth int) {
	if len(r.faults) > faultsMax {
		return
	}
	if depth > 4*exprDepthMax {
		r.fault(e, "the expression is nested too deeply")
		return
	}
	switch e.Kind() {
	case ast.LiteralKind:
		r.literal(e)
	case ast.IdentKind:
		r.ident(e, e, nil)
	case ast.SelectKind:
		if root, names := rootAndNames(e); root != nil && !r.isLocal(root.AsIdent()) && root.AsIdent() != "event" {
			r.ident(e, root, names)
			return
		}
		r.walk(e.AsSelect().Operand(), depth+1)
	case ast.CallKind:
		r.call(e, depth)
	case ast.ListKind:
		for _, item := range e.AsList().Elements() {
			r.walk(item, depth+1)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			r.walk(entry.AsMapEntry().Key(), depth+1)
			r.walk(entry.AsMapEntry().Value(), depth+1)
		}
	case ast.ComprehensionKind:
		r.loop(e, depth)
	default:
		r.fault(e, "messages cannot be built here")
	}
}

func (r *rewriter) call(e ast.Expr, depth int) {
	call := e.AsCall()
	if root, names := rootAndNames(e); root != nil && !r.isLocal(root.AsIdent()) && root.AsIdent() != "event" {
		r.ident(e, root, names)
		return
	}
	switch name := call.FunctionName(); name {
	case operators.Divide, operators.Modulo:
		r.fault(e, "there is no division: multiply out (a / b > c is a > b * c)")
	case "int", "uint", "double":
		r.fault(e, "there is no %s(): numbers are exact decimals, and decimal(...) reads one from text", name)
	case "dyn", "type", "bytes", "bool":
		r.fault(e, "there is no %s()", name)
	}
	if call.IsMemberFunction() {
		r.walk(call.Target(), depth+1)
	}
	for _, arg := range call.Args() {
		r.walk(arg, depth+1)
	}
}

func (r *rewriter) loop(e ast.Expr, depth int) {
	c := e.AsComprehension()
	r.walk(c.IterRange(), depth+1)
	if scopeNames[c.IterVar()] {
		r.fault(e, "%s cannot be the variable of a macro: it has a meaning already", c.IterVar())
	}
	r.locals = append(r.locals, c.IterVar())
	r.loops++
	if r.loops > loopDepthMax {
		r.fault(e, "macros are nested more than %d deep", loopDepthMax)
	} else {
		r.walk(c.LoopCondition(), depth+1)
		r.walk(c.LoopStep(), depth+1)
	}
	r.loops--
	r.locals = r.locals[:len(r.locals)-1]
}

func (r *rewriter) isLocal(name string) bool {
	for _, l := range r.locals {
		if l == name {
			return true
		}
	}
	return false
}

var scopeNames = map[string]bool{"event": true, "time": true, "id": true, "totals": true, "flags": true, "prior": true}

// ident resolves a name and the members below it. What is not the event becomes one ident, such as prior.totals.sum.
func (r *rewriter) ident(e, root ast.Expr, below []string) {
	name := root.AsIdent()
	if len(below) == 0 && r.isLocal(name) {
		return
	}
	if !scopeNames[name] {
		r.fault(root, "unknown name %s%s; an expression knows event, time, id, totals, flags and prior", name, suggest(name, maps.Keys(scopeNames)))
		return
	}
	if r.input && name != "event" {
		r.fault(root, "%s cannot be used here: the ID and the time come from event alone", name)
		return
	}
	full, used := name, 0
	switch {
	case name == "event" && len(below) == 0, name == "time" || name == "id":
	case name == "totals" && r.inner:
		r.fault(root, "a total's own expressions cannot use totals; prior.totals holds them without this event")
		return
	case name == "totals", name == "flags":
		full, used = r.member(root, name, name, below)
	case name == "prior" && len(below) > 0 && (below[0] == "count" || below[0] == "last_time"):
		full, used = "prior."+below[0], 1
	case name == "prior" && len(below) > 0 && (below[0] == "totals" || below[0] == "flags"):
		full, used = r.member(root, below[0], "prior."+below[0], below[1:])
		used++
	case name == "prior":
		r.fault(root, "prior has totals, flags, count and last_time: name one of them")
		return
	}
	if full == "" {
		return
	}
	if used < len(below) {
		r.fault(root, "%s has no members", full)
		return
	}
	e.SetKindCase(r.factory.NewIdent(e.ID(), full))
}

func (r *rewriter) member(root ast.Expr, kind, prefix string, below []string) (full string, used int) {
	one := strings.TrimSuffix(kind, "s")
	if len(below) == 0 {
		r.fault(root, "name a %s: %s.NAME", one, prefix)
		return "", 0
	}
	name := below[0]
	known := maps.Keys(r.flags)
	there := r.flags[name]
	if kind == "totals" {
		known = maps.Keys(r.totals)
		_, there = r.totals[name]
	}
	if !there {
		r.fault(root, "there is no %s named %s%s", one, name, suggest(name, known))
		return "", 0
	}
	return prefix + "." + name, 1
}

// rootAndNames takes a chain of members, x.a["b"].c, apart; root is nil when e is no such chain.
func rootAndNames(e ast.Expr) (root ast.Expr, names []string) {
	for {
		switch e.Kind() {
		case ast.IdentKind:
			for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
				names[i], names[j] = names[j], names[i]
			}
			return e, names
		case ast.SelectKind:
			names = append(names, e.AsSelect().FieldName())
			e = e.AsSelect().Operand()
		case ast.CallKind:
			call := e.AsCall()
			if call.FunctionName() != operators.Index || len(call.Args()) != 2 || call.Args()[1].Kind() != ast.LiteralKind {
				return nil, nil
			}
			s, ok := call.Args()[1].AsLiteral().(types.String)
			if !ok {
				return nil, nil
			}
			names = append(names, string(s))
			e = call.Args()[0]
		default:
			return nil, nil
		}
	}
}

var doubleText = regexp.MustCompile(`^-?\s*[0-9]*(\.[0-9]+)?([eE][+-]?[0-9]+)?`)

// numberAt is the number that is written there.
func numberAt(text []rune, offset int) string {
	return strings.Join(strings.Fields(doubleText.FindString(string(text[min(offset, len(text)):]))), "")
}

// lostDigits says what to do about a number of which CEL's parser has lost digits.
func lostDigits(written string) string {
	if _, err := parseDecimal(written); err != nil {
		return fmt.Sprintf("%s: %v", written, err)
	}
	return fmt.Sprintf("this number loses digits as it is read: write decimal(%q)", written)
}

// literal makes every number a double for the checker, and keeps the decimal that was written.
func (r *rewriter) literal(e ast.Expr) {
	switch v := e.AsLiteral().(type) {
	case types.Bool, types.String:
	case types.Null:
		e.SetKindCase(r.factory.NewIdent(e.ID(), nullIdent))
	case types.Int:
		r.number(e, strconv.FormatInt(int64(v), 10), float64(v))
	case types.Uint:
		r.number(e, strconv.FormatUint(uint64(v), 10), float64(v))
	case types.Double:
		written := ""
		if o, ok := r.info.GetOffsetRange(e.ID()); ok && int(o.Start) < len(r.text) {
			written = numberAt(r.text, int(o.Start))
		}
		f := float64(v)
		exact, err1 := parseDecimal(written)
		kept, err2 := parseDecimal(strconv.FormatFloat(f, 'g', -1, 64))
		if math.IsInf(f, 0) || err1 != nil || err2 != nil || exact.Cmp(kept) != 0 {
			r.fault(e, "%s", lostDigits(written))
			return
		}
		r.number(e, written, f)
	default:
		r.fault(e, "bytes have no meaning here")
	}
}

func (r *rewriter) number(e ast.Expr, text string, f float64) {
	d, err := parseDecimal(text)
	if err != nil {
		r.fault(e, "number %s: %v", text, err)
		return
	}
	r.numbers[e.ID()] = d
	e.SetKindCase(r.factory.NewLiteral(e.ID(), types.Double(f)))
}

func parseDecimal(text string) (*codecs.Decimal, error) {
	d, err := codecs.ParseDecimal([]byte(text))
	if err != nil {
		return nil, err
	}
	return &d, nil
}

// loopMacros are CEL's macros in a shape of our own: the accumulator's name says which loop it is, the condition and the
// step hold the user's parts as they stand.
func loopMacros() []parser.Macro {
	condition := func(name string) parser.Macro {
		return parser.NewReceiverMacro(name, 2, func(h parser.ExprHelper, target ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			return newLoop(h, name, target, args[0], h.NewLiteral(types.True), h.NewLiteral(types.True), args[1])
		})
	}
	return []parser.Macro{
		condition(operators.All), condition(operators.Exists), condition(operators.ExistsOne),
		parser.NewReceiverMacro(operators.Filter, 2, func(h parser.ExprHelper, target ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			if args[0].Kind() != ast.IdentKind {
				return nil, h.NewError(args[0].ID(), "the first argument must be a plain name")
			}
			item := h.NewList(h.NewIdent(args[0].AsIdent()))
			return newLoop(h, operators.Map, target, args[0], h.NewList(), args[1], item)
		}),
		parser.NewReceiverMacro(operators.Map, 2, func(h parser.ExprHelper, target ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			return newLoop(h, operators.Map, target, args[0], h.NewList(), h.NewLiteral(types.True), h.NewList(args[1]))
		}),
		parser.NewReceiverMacro(operators.Map, 3, func(h parser.ExprHelper, target ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			return newLoop(h, operators.Map, target, args[0], h.NewList(), args[1], h.NewList(args[2]))
		}),
		parser.NewGlobalMacro(operators.Has, 1, func(h parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
			if args[0].Kind() != ast.SelectKind && (args[0].Kind() != ast.CallKind || args[0].AsCall().FunctionName() != operators.Index) {
				return nil, h.NewError(args[0].ID(), "has() asks for a field, such as has(event.x)")
			}
			return h.NewCall(hasCall, args[0]), nil
		}),
	}
}

func newLoop(h parser.ExprHelper, name string, target, variable, init, condition, step ast.Expr) (ast.Expr, *common.Error) {
	if variable.Kind() != ast.IdentKind {
		return nil, h.NewError(variable.ID(), "the first argument must be a plain name")
	}
	accu := "@" + name
	return h.NewComprehension(target, variable.AsIdent(), accu, init, condition, step, h.NewIdent(accu)), nil
}
