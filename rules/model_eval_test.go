package rules

import "math/big"

// eval is the model's own reading of an expression: unknown where an operand is null, an error where a type is wrong.
func (m *model) eval(x *mx) (mval, error) {
	switch x.op {
	case "lit":
		r, _ := new(big.Rat).SetString(x.text)
		return mnum(r), nil
	case "str":
		return mval{kind: 's', s: x.text}, nil
	case "event":
		return m.current.fields[x.text], nil
	case "total", "prior":
		return m.named(x), nil
	case "flag":
		_, raised := m.raised[x.text]
		return mbool(raised), nil
	case "count":
		return mint(int64(len(m.events))), nil
	case "gap":
		if len(m.events) == 0 {
			return mval{}, nil
		}
		return mbool(m.current.ms-m.last > x.ms), nil
	case "&&", "||":
		return m.logic(x)
	case "?":
		return m.choose(x)
	}
	args := make([]mval, len(x.args))
	for i, a := range x.args {
		v, err := m.eval(a)
		if err != nil {
			return mval{}, err
		}
		args[i] = v
	}
	switch x.op {
	case "isnull":
		return mbool(args[0].kind == 0), nil
	case "has":
		return mbool(args[0].kind != 0), nil
	}
	for _, a := range args {
		if a.kind == 0 {
			return mval{}, nil
		}
	}
	return m.operate(x.op, args)
}

func (m *model) named(x *mx) mval {
	for i, t := range m.totals {
		if t.name != x.text {
			continue
		}
		if t.window > 0 && m.tooLate[i] {
			return mval{}
		}
		if x.op == "total" {
			return m.total(i, m.with, m.end)
		}
		return m.total(i, m.events, m.end)
	}
	panic("no total " + x.text)
}

// logic is && and ||: what decides wins over errors, errors over unknown.
func (m *model) logic(x *mx) (mval, error) {
	decides := x.op == "||"
	var failed error
	open := false
	for _, a := range x.args {
		v, err := m.eval(a)
		switch {
		case err != nil:
			failed = err
		case v.kind == 0:
			open = true
		case v.kind != 'b':
			failed = errModel
		case v.b == decides:
			return mbool(decides), nil
		}
	}
	switch {
	case failed != nil:
		return mval{}, failed
	case open:
		return mval{}, nil
	}
	return mbool(!decides), nil
}

func (m *model) choose(x *mx) (mval, error) {
	v, err := m.eval(x.args[0])
	switch {
	case err != nil || v.kind == 0:
		return mval{}, err
	case v.kind != 'b':
		return mval{}, errModel
	case v.b:
		return m.eval(x.args[1])
	}
	return m.eval(x.args[2])
}

// operate has operands that are all known.
func (m *model) operate(op string, args []mval) (mval, error) {
	a := args[0]
	switch op {
	case "!":
		if a.kind != 'b' {
			return mval{}, errModel
		}
		return mbool(!a.b), nil
	case "size":
		switch a.kind {
		case 'l':
			return mint(int64(len(a.l))), nil
		case 's':
			return mint(int64(len([]rune(a.s)))), nil
		}
		return mval{}, errModel
	case "==", "!=":
		if a.kind != args[1].kind {
			return mval{}, errModel
		}
		same := a.s == args[1].s && a.b == args[1].b
		if a.kind == 'n' {
			same = a.n.Cmp(args[1].n) == 0
		}
		return mbool(same == (op == "==")), nil
	}
	b := args[1]
	if a.kind != 'n' || b.kind != 'n' {
		return mval{}, errModel
	}
	c := a.n.Cmp(b.n)
	switch op {
	case ">":
		return mbool(c > 0), nil
	case ">=":
		return mbool(c >= 0), nil
	case "<":
		return mbool(c < 0), nil
	case "<=":
		return mbool(c <= 0), nil
	case "+":
		return mnum(new(big.Rat).Add(a.n, b.n)), nil
	case "-":
		return mnum(new(big.Rat).Sub(a.n, b.n)), nil
	case "*":
		return mnum(new(big.Rat).Mul(a.n, b.n)), nil
	}
	panic("no operation " + op)
}
