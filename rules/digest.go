package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/tidemark/tidemark/codecs"
)

// canonicalVersion changes when the same job file comes to mean something else.
const canonicalVersion = "tidemark rules 1"

// digest is 16 bytes in hex of what the job file means. Comments, order, spelling, defaults that are written out,
// brokers and watch do not change it.
func (rs *RuleSet) digest() string {
	sum := sha256.Sum256([]byte(rs.canonical()))
	return hex.EncodeToString(sum[:16])
}

// canonical spells the job file in one way only.
func (rs *RuleSet) canonical() string {
	var b strings.Builder
	line := func(parts ...any) { fmt.Fprintln(&b, parts...) }
	in := rs.job.Input
	line(canonicalVersion)
	line("name", rs.job.Name, "topic", in.Topic, "format", in.Format)
	line("id", canonOf(rs.id))
	line("time", canonOf(rs.time))
	line("from", in.From.Latest, in.From.HasMs, in.From.Ms)
	line("max_ahead", in.MaxAheadMs, "state_bytes_max", rs.job.StateBytesMax)
	for i := range rs.totals {
		t := &rs.totals[i]
		line("total", t.name, t.kind, canonOf(t.value), "when", canonOf(t.when),
			"window", t.windowMs, t.latenessMs, t.grainMs, "max_items", t.maxItems)
	}
	for i := range rs.flags {
		f := &rs.flags[i]
		line("flag", f.name, "when", canonOf(f.when), "clear", canonOf(f.clear))
	}
	return b.String()
}

func canonOf(p *program) string {
	if p == nil {
		return "-"
	}
	return p.canon
}

// canonical spells a checked expression as a tree: constants by value, variables of macros by depth.
func (u *unit) canonical(e ast.Expr) string {
	if v, ok := u.constant(e); ok {
		return canonValue(v)
	}
	if root, names := rootAndNames(e); root != nil && root.AsIdent() == "event" {
		for i, name := range names {
			names[i] = strconv.Quote(name)
		}
		return "(event " + strings.Join(names, " ") + ")"
	}
	switch e.Kind() {
	case ast.IdentKind:
		for depth := len(u.vars) - 1; depth >= 0; depth-- {
			if u.vars[depth] == e.AsIdent() {
				return "$" + strconv.Itoa(depth)
			}
		}
		return e.AsIdent()
	case ast.SelectKind:
		return u.tree(operators.Index, e.AsSelect().Operand()) + "." + strconv.Quote(e.AsSelect().FieldName())
	case ast.ListKind:
		return u.tree("list", e.AsList().Elements()...)
	case ast.MapKind:
		var entries []string
		for _, one := range e.AsMap().Entries() {
			entries = append(entries, u.tree("entry", one.AsMapEntry().Key(), one.AsMapEntry().Value()))
		}
		slices.Sort(entries)
		return "(object " + strings.Join(entries, " ") + ")"
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		source := u.canonical(c.IterRange())
		u.vars = append(u.vars, c.IterVar())
		body := u.tree(c.AccuVar(), c.LoopCondition(), c.LoopStep())
		u.vars = u.vars[:len(u.vars)-1]
		return "(loop " + source + " " + body + ")"
	}
	call := e.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	return u.tree(call.FunctionName(), args...)
}

func (u *unit) tree(head string, parts ...ast.Expr) string {
	words := []string{head}
	for _, part := range parts {
		words = append(words, u.canonical(part))
	}
	return "(" + strings.Join(words, " ") + ")"
}

func canonValue(v *codecs.Value) string {
	switch v.Kind {
	case codecs.Bool:
		return strconv.FormatBool(v.Bool)
	case codecs.Number:
		return v.Num.String()
	case codecs.String:
		return strconv.Quote(v.Str)
	case codecs.Time:
		return "t" + strconv.FormatInt(v.Int, 10)
	case codecs.Duration:
		return "d" + strconv.FormatInt(v.Int, 10)
	case codecs.List:
		words := []string{"list"}
		for i := range v.Items {
			words = append(words, canonValue(&v.Items[i]))
		}
		return "(" + strings.Join(words, " ") + ")"
	}
	return "null"
}
