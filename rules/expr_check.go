package rules

import (
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/containers"
	"cel.dev/cel-go/common/decls"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// typeOf is a type as the checker knows it.
type typeOf = *types.Type

// All numbers are one type to the checker.
var (
	number  = types.DoubleType
	anyType = types.DynType
	anyList = types.NewListType(types.DynType)
)

// functions are declared once; cel-go's own standard library is not used.
var functions = func() []*decls.FunctionDecl {
	a, b := types.NewTypeParamType("A"), types.NewTypeParamType("B")
	list, dict := types.NewListType(a), types.NewMapType(a, b)
	text, truth, instant, span := types.StringType, types.BoolType, types.TimestampType, types.DurationType
	type sig struct {
		result *types.Type
		args   []*types.Type
	}
	f := func(result *types.Type, args ...*types.Type) sig { return sig{result, args} }
	var all []*decls.FunctionDecl
	add := func(name string, member bool, sigs ...sig) {
		var opts []decls.FunctionOpt
		for i, s := range sigs {
			id := fmt.Sprintf("%s/%v/%d", name, member, i)
			if member {
				opts = append(opts, decls.MemberOverload(id, s.args, s.result))
			} else {
				opts = append(opts, decls.Overload(id, s.args, s.result))
			}
		}
		fn, err := decls.NewFunction(name, opts...)
		if err != nil {
			panic(err)
		}
		all = append(all, fn)
	}
	add(operators.Add, false, f(number, number, number), f(text, text, text), f(list, list, list),
		f(instant, instant, span), f(instant, span, instant), f(span, span, span))
	add(operators.Subtract, false, f(number, number, number), f(span, instant, instant), f(instant, instant, span), f(span, span, span))
	add(operators.Multiply, false, f(number, number, number))
	add(operators.Negate, false, f(number, number), f(span, span))
	for _, op := range []string{operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals} {
		add(op, false, f(truth, number, number), f(truth, text, text), f(truth, truth, truth), f(truth, instant, instant), f(truth, span, span))
	}
	add(operators.Equals, false, f(truth, a, a))
	add(operators.NotEquals, false, f(truth, a, a))
	add(operators.LogicalAnd, false, f(truth, truth, truth))
	add(operators.LogicalOr, false, f(truth, truth, truth))
	add(operators.LogicalNot, false, f(truth, truth))
	add(operators.Conditional, false, f(a, truth, a, a))
	add(operators.In, false, f(truth, a, list), f(truth, a, dict))
	add(operators.Index, false, f(a, list, number), f(b, dict, a))
	add(hasCall, false, f(truth, a))
	add("size", false, f(number, text), f(number, list), f(number, dict))
	add("size", true, f(number, text), f(number, list), f(number, dict))
	for _, name := range []string{"contains", "startsWith", "endsWith", "matches"} {
		add(name, true, f(truth, text, text))
	}
	add("matches", false, f(truth, text, text))
	add("decimal", false, f(number, number), f(number, text))
	add("string", false, f(text, text), f(text, number), f(text, truth), f(text, instant))
	add("duration", false, f(span, text), f(span, span))
	add("timestamp", false, f(instant, text), f(instant, instant))
	for name := range timeParts {
		if durationParts[name] > 0 {
			add(name, true, f(number, instant), f(number, span))
		} else {
			add(name, true, f(number, instant))
		}
	}
	return all
}()

// checkerEnv holds the functions and the scope's names. It is made once, for there may be thousands of either.
func (sc *scope) checkerEnv() *checker.Env {
	if sc.env != nil {
		return sc.env
	}
	registry, err := types.NewRegistry()
	if err != nil {
		panic(err)
	}
	env, err := checker.NewEnv(containers.DefaultContainer, registry)
	if err != nil {
		panic(err)
	}
	vars := []*decls.VariableDecl{
		decls.NewVariable("event", types.DynType),
		decls.NewVariable("time", types.TimestampType),
		decls.NewVariable("id", types.StringType),
		decls.NewVariable("prior.count", number),
		decls.NewVariable("prior.last_time", types.TimestampType),
		decls.NewVariable(nullIdent, types.DynType),
	}
	for name, t := range sc.totals {
		vars = append(vars, decls.NewVariable("totals."+name, t), decls.NewVariable("prior.totals."+name, t))
	}
	for name := range sc.flags {
		vars = append(vars, decls.NewVariable("flags."+name, types.BoolType), decls.NewVariable("prior.flags."+name, types.BoolType))
	}
	if err := env.AddFunctions(functions...); err != nil {
		panic(err)
	}
	if err := env.AddIdents(vars...); err != nil {
		panic(err)
	}
	sc.env = env
	return env
}

var (
	overloadMessage = regexp.MustCompile(`found no matching overload for '([^']*)' applied to '([^']*)'`)
	typeWords       = strings.NewReplacer("google.protobuf.Timestamp", "timestamp", "google.protobuf.Duration", "duration", "double", "number", "dyn", "any")
)

// celFaults words the faults of the parser and the checker.
func celFaults(text string, tree *ast.AST, errs *common.Errors, syntax bool) []exprFault {
	var faults []exprFault
	for _, err := range errs.GetErrors() {
		offset := 0
		if err.Location.Line() > 0 {
			offset = int(tree.SourceInfo().ComputeOffset(int32(err.Location.Line()), int32(err.Location.Column())))
		}
		message := strings.TrimPrefix(err.Message, "Syntax error: ")
		if strings.HasPrefix(message, "More than ") {
			continue
		}
		if m := overloadMessage.FindStringSubmatch(message); m != nil {
			name := m[1]
			if display, ok := operators.FindReverse(name); ok && display != "" {
				name = display
			}
			if name == operators.Conditional {
				name = "? :"
			}
			message = fmt.Sprintf("%s cannot take %s", name, typeWords.Replace(m[2]))
		} else if strings.HasPrefix(message, "invalid ") && strings.HasSuffix(message, " literal") {
			message = lostDigits(numberAt([]rune(text), offset))
		} else {
			message = strings.ReplaceAll(typeWords.Replace(message), " (in container '')", "")
			message = strings.Replace(message, "undeclared reference to", "unknown function", 1)
			message = syntaxWords(message)
		}
		faults = append(faults, exprFault{offset, message, syntax})
	}
	return faults
}

// syntaxWords words what the parser says about the text itself.
func syntaxWords(message string) string {
	message, _, _ = strings.Cut(message, " expecting {")
	if what, ok := strings.CutPrefix(message, "token recognition error at: "); ok {
		return what + " cannot be read"
	}
	for _, begin := range []string{"mismatched input ", "extraneous input ", "no viable alternative at input "} {
		what, ok := strings.CutPrefix(message, begin)
		if !ok {
			continue
		}
		if what, _, _ = strings.Cut(what, " expecting "); strings.HasSuffix(what, "<EOF>'") {
			return "the expression ends too early"
		}
		return what + " is not expected here"
	}
	return strings.ReplaceAll(message, "'<EOF>'", "the end")
}
