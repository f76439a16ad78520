package rules

import (
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"strings"

	"cel.dev/cel-go/common/ast"
)

// What an expression may cost. The work of one run is counted in steps, see env.charge; loops pay for each element, and
// for what their body holds besides. The estimate at load is of the loops' steps, over lists of listItemsAssumed items: a
// job file that loads has room for such lists in every expression.
const (
	stepsMax         = 1 << 20 // of one run of one expression
	eventStepsMax    = 1 << 24 // of all runs of all expressions for one event, and of one run of each by estimate
	listItemsAssumed = 100     // in a list whose length only an event tells
	nodesPerStep     = 8       // of a loop's body: they take as long as one step
)

// nodes counts what one evaluation of e evaluates, loops within it left out: they pay for themselves.
func nodes(e ast.Expr) int {
	n := 1
	for _, child := range operandsOf(e) {
		n += nodes(child)
	}
	return n
}

// operandsOf lists what is evaluated once whenever e is.
func operandsOf(e ast.Expr) []ast.Expr {
	switch e.Kind() {
	case ast.SelectKind:
		return []ast.Expr{e.AsSelect().Operand()}
	case ast.CallKind:
		if call := e.AsCall(); call.IsMemberFunction() {
			return append([]ast.Expr{call.Target()}, call.Args()...)
		}
		return e.AsCall().Args()
	case ast.ListKind:
		return e.AsList().Elements()
	case ast.MapKind:
		var values []ast.Expr
		for _, entry := range e.AsMap().Entries() {
			values = append(values, entry.AsMapEntry().Value())
		}
		return values
	case ast.ComprehensionKind:
		return []ast.Expr{e.AsComprehension().IterRange()}
	}
	return nil
}

// itemSteps is what a loop pays for each element.
func itemSteps(c ast.ComprehensionExpr) int {
	return 1 + (nodes(c.LoopCondition())+nodes(c.LoopStep()))/nodesPerStep
}

// estimate counts the steps of one run of e.
func estimate(e ast.Expr) float64 {
	steps := 1.0 / nodesPerStep
	for _, child := range operandsOf(e) {
		steps += estimate(child)
	}
	if e.Kind() == ast.ComprehensionKind {
		c := e.AsComprehension()
		items := float64(listItemsAssumed)
		if c.IterRange().Kind() == ast.ListKind {
			items = float64(c.IterRange().AsList().Size())
		}
		inner := loopsIn(c.LoopCondition()) + loopsIn(c.LoopStep())
		steps += items * (float64(itemSteps(c)) + inner)
	}
	return steps
}

// loopsIn is the part of the estimate that loops within e pay for themselves.
func loopsIn(e ast.Expr) float64 { return estimate(e) - float64(nodes(e))/nodesPerStep }

// affordable refuses an expression whose estimate is beyond stepsMax, and answers the estimate.
func (u *unit) affordable(root ast.Expr) float64 {
	steps := estimate(root)
	if steps > stepsMax {
		u.fault(root, "this would take about %s steps on an event with lists of %d items, more than %d: put less into macros, or fewer into one another",
			about(steps), listItemsAssumed, stepsMax)
	}
	return steps
}

// about is a number without digits that mean nothing.
func about(x float64) string {
	unit := math.Pow(10, max(0, math.Floor(math.Log10(x))-1))
	return fmt.Sprintf("%.0f", math.Round(x/unit)*unit)
}

// Limits of a pattern of matches(). RE2's time is linear in the text, but also in the size of the program that a pattern
// unfolds to: "(x?){1000}" is ten characters.
const (
	patternBytesMax  = 1000
	patternInstsMax  = 2000
	patternInstsStep = 32 // instructions that take as long for a byte as one step
)

// compilePattern compiles a pattern, and answers what a byte of text costs in steps.
func compilePattern(text string) (*regexp.Regexp, int, error) {
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, 0, patternFault(err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, 0, patternFault(err)
	}
	if n := len(prog.Inst); n > patternInstsMax {
		return nil, 0, fmt.Errorf("pattern: its repetitions unfold to %d instructions, more than %d", n, patternInstsMax)
	}
	pattern, err := regexp.Compile(text)
	if err != nil {
		return nil, 0, patternFault(err)
	}
	return pattern, 1 + len(prog.Inst)/patternInstsStep, nil
}

func patternFault(err error) error {
	return fmt.Errorf("pattern: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
}
