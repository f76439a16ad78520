package rules

import (
	"slices"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"

	"github.com/tidemark/tidemark/codecs"
)

// member finds a member by name; nil when there is none, or no steps are left.
func member(e *env, members []codecs.Member, name string) *codecs.Value {
	if !e.charge(len(members) / 8) {
		return nil
	}
	for i := range members {
		if members[i].Name == name {
			return &members[i].Value
		}
	}
	return nil
}

// selectMember reads a member; one that is missing, or is asked of null, is null.
func selectMember(object valueFunc, name string) valueFunc {
	return func(e *env) *codecs.Value {
		v := object(e)
		if v == nil || v.Kind == codecs.Null {
			return v
		}
		if v.Kind != codecs.Map {
			return e.failValue(&kindError{"." + name, []codecs.Kind{v.Kind}})
		}
		if m := member(e, v.Members, name); m != nil {
			return m
		}
		return nullValue
	}
}

// index reads an element of a list or a member of an object; one that is missing is null.
func (u *unit) index(x, y ast.Expr) valueFunc {
	left, right := u.valueOf(x), u.valueOf(y)
	return func(e *env) *codecs.Value {
		x, y, null := operands(e, left, right)
		switch {
		case x == nil:
			return nil
		case null:
			return nullValue
		case x.Kind == codecs.Map && y.Kind == codecs.String:
			if m := member(e, x.Members, y.Str); m != nil {
				return m
			}
			return nullValue
		case x.Kind == codecs.List && y.Kind == codecs.Number:
			if i, ok := indexOf(&y.Num, len(x.Items)); ok {
				return &x.Items[i]
			}
			return nullValue
		}
		return e.failValue(&kindError{"[ ]", []codecs.Kind{x.Kind, y.Kind}})
	}
}

// indexOf reads a whole number in 0 <= i < limit.
func indexOf(d *codecs.Decimal, limit int) (int, bool) {
	i, ok := d.Int64()
	return int(i), ok && i >= 0 && i < int64(limit)
}

func size(e *env, z, x *codecs.Value) error {
	n := 0
	switch x.Kind {
	case codecs.String:
		if !e.chargeText(len(x.Str)) {
			return errSteps
		}
		n = utf8.RuneCountInString(x.Str)
	case codecs.List:
		n = len(x.Items)
	case codecs.Map:
		n = len(x.Members)
	default:
		return &kindError{"size()", []codecs.Kind{x.Kind}}
	}
	z.Kind, z.Num = codecs.Number, codecs.DecimalFromInt64(int64(n))
	return nil
}

func (u *unit) listLiteral(e ast.Expr) valueFunc {
	var items []valueFunc
	for _, item := range e.AsList().Elements() {
		items = append(items, u.valueOf(item))
	}
	s := u.newScratch()
	return func(e *env) *codecs.Value {
		if !e.charge(len(items)) {
			return nil
		}
		out := make([]codecs.Value, 0, len(items))
		for _, item := range items {
			v := item(e)
			if v == nil {
				return nil
			}
			out = append(out, *v)
		}
		z := &e.scratch[s]
		z.Kind, z.Items = codecs.List, out
		return z
	}
}

func (u *unit) mapLiteral(e ast.Expr) valueFunc {
	type entry struct {
		key   string
		value valueFunc
	}
	var entries []entry
	seen := map[string]bool{}
	for _, one := range e.AsMap().Entries() {
		key, ok := u.constant(one.AsMapEntry().Key())
		if !ok || key.Kind != codecs.String || seen[key.Str] {
			u.fault(one.AsMapEntry().Key(), "a key must be a constant text, and stand once")
			return failValue
		}
		seen[key.Str] = true
		entries = append(entries, entry{key.Str, u.valueOf(one.AsMapEntry().Value())})
	}
	s := u.newScratch()
	return func(e *env) *codecs.Value {
		if !e.charge(len(entries)) {
			return nil
		}
		members := make([]codecs.Member, len(entries))
		for i, one := range entries {
			v := one.value(e)
			if v == nil {
				return nil
			}
			members[i] = codecs.Member{Name: one.key, Value: *v}
		}
		z := &e.scratch[s]
		z.Kind, z.Members = codecs.Map, members
		return z
	}
}

// in compiles membership: of a list as the disjunction of equalities, of an object by key.
func (u *unit) in(x, y ast.Expr) boolFunc {
	if c, ok := u.constant(y); ok && len(c.Items) > 0 && !slices.ContainsFunc(c.Items, notText) {
		return u.inTexts(x, c.Items)
	}
	left, right := u.valueOf(x), u.valueOf(y)
	return func(e *env) truth {
		x, y, null := operands(e, left, right)
		switch {
		case x == nil:
			return failed
		case null:
			return unknown
		case y.Kind == codecs.List:
			return inList(e, x, y.Items)
		case y.Kind == codecs.Map && x.Kind == codecs.String:
			found := member(e, y.Members, x.Str) != nil
			return truthOf(found)
		}
		return e.fail(&kindError{"in", []codecs.Kind{x.Kind, y.Kind}})
	}
}

func notText(v codecs.Value) bool { return v.Kind != codecs.String }

func inList(e *env, x *codecs.Value, items []codecs.Value) truth {
	any, err := no, error(nil)
	for i := range items {
		if !e.charge(1) {
			return failed
		}
		one := equals(e, x, &items[i])
		if one == failed && err == nil {
			err = e.err
		}
		if any = disjoin(any, one); any == yes {
			return yes
		}
	}
	if any == failed {
		e.err = err
	}
	return any
}

// disjoin folds one more truth into any, which is not yes.
func disjoin(any, one truth) truth {
	switch {
	case one == yes:
		return yes
	case any == failed || one == failed:
		return failed
	case any == unknown || one == unknown:
		return unknown
	}
	return no
}

// inTexts is membership in a constant list of texts.
func (u *unit) inTexts(x ast.Expr, items []codecs.Value) boolFunc {
	value := u.valueOf(x)
	var few []string
	many := map[string]bool{}
	for i := range items {
		few = append(few, items[i].Str)
		many[items[i].Str] = true
	}
	return func(e *env) truth {
		v := value(e)
		switch {
		case v == nil:
			return failed
		case v.Kind == codecs.Null:
			return unknown
		case v.Kind != codecs.String:
			return e.fail(&kindError{"==", []codecs.Kind{v.Kind, codecs.String}})
		case len(few) > 8:
			return truthOf(many[v.Str])
		}
		for _, s := range few {
			if s == v.Str {
				return yes
			}
		}
		return no
	}
}

// elements lists what a macro runs over: the items of a list, or the keys of an object in byte order.
func elements(e *env, v *codecs.Value, name string) ([]codecs.Value, bool) {
	switch v.Kind {
	case codecs.List:
		return v.Items, true
	case codecs.Map:
		if !e.charge(len(v.Members)) {
			return nil, false
		}
		keys := make([]codecs.Value, len(v.Members))
		for i := range v.Members {
			keys[i] = codecs.Value{Kind: codecs.String, Str: v.Members[i].Name}
		}
		slices.SortFunc(keys, func(a, b codecs.Value) int { return strings.Compare(a.Str, b.Str) })
		return keys, true
	}
	e.err = &kindError{name + "()", []codecs.Kind{v.Kind}}
	return nil, false
}

// enter opens the scope of a macro's variable and returns its depth.
func (u *unit) enter(name string) int {
	u.vars = append(u.vars, name)
	u.locals = max(u.locals, len(u.vars))
	return len(u.vars) - 1
}

func (u *unit) leave() { u.vars = u.vars[:len(u.vars)-1] }

// quantifier compiles all, exists and exists_one: the conjunction, the disjunction, and the count of the certain ones.
func (u *unit) quantifier(c ast.ComprehensionExpr) boolFunc {
	name := strings.TrimPrefix(c.AccuVar(), "@")
	source := u.valueOf(c.IterRange())
	depth := u.enter(c.IterVar())
	test, steps := u.boolOf(c.LoopStep()), itemSteps(c)
	u.leave()
	fold, start := conjoin, yes
	if name == operators.Exists {
		fold, start = disjoin, no
	}
	return func(e *env) truth {
		v := source(e)
		switch {
		case v == nil:
			return failed
		case v.Kind == codecs.Null:
			return unknown
		}
		items, ok := elements(e, v, name)
		if !ok {
			return failed
		}
		if name == operators.ExistsOne {
			return existsOne(e, items, depth, steps, test)
		}
		result, err := start, error(nil)
		for i := range items {
			if !e.charge(steps) {
				return failed
			}
			e.locals[depth] = &items[i]
			one := test(e)
			if one == failed && err == nil {
				err = e.err
			}
			if result = fold(result, one); result != start && result <= yes {
				return result
			}
		}
		if result == failed {
			e.err = err
		}
		return result
	}
}

func existsOne(e *env, items []codecs.Value, depth, steps int, test boolFunc) truth {
	n := 0
	for i := range items {
		if !e.charge(steps) {
			return failed
		}
		e.locals[depth] = &items[i]
		switch test(e) {
		case yes:
			n++
		case failed:
			return failed
		}
	}
	return truthOf(n == 1)
}

// mapLoop compiles map and filter: of the elements whose condition is certain, the transformed ones.
func (u *unit) mapLoop(c ast.ComprehensionExpr) valueFunc {
	source := u.valueOf(c.IterRange())
	depth := u.enter(c.IterVar())
	keep, transform := u.boolOf(c.LoopCondition()), u.valueOf(c.LoopStep().AsList().Elements()[0])
	u.leave()
	s, steps := u.newScratch(), itemSteps(c)
	return func(e *env) *codecs.Value {
		v := source(e)
		if v == nil || v.Kind == codecs.Null {
			return v
		}
		items, ok := elements(e, v, "map")
		if !ok {
			return nil
		}
		var out []codecs.Value
		for i := range items {
			if !e.charge(steps) {
				return nil
			}
			e.locals[depth] = &items[i]
			switch keep(e) {
			case failed:
				return nil
			case yes:
				one := transform(e)
				if one == nil {
					return nil
				}
				out = append(out, *one)
			}
		}
		z := &e.scratch[s]
		z.Kind, z.Items = codecs.List, out
		return z
	}
}
