package rules

import (
	"errors"
	"fmt"

	"github.com/tidemark/tidemark/codecs"
)

// A program is one compiled expression. It is immutable and may be shared by goroutines; all that changes while
// it runs lies in the env.
type program struct {
	name   string  // its key in the job file, such as when
	source string  // as written in the job file
	canon  string  // canonical form: what the digest is built from
	steps  float64 // of one run, as estimated at load

	cond boolFunc  // nil when the expression cannot be a condition
	eval valueFunc // never nil

	totals      []int // indexes of the totals named as totals.x, ascending
	priorTotals []int // indexes of the totals named as prior.totals.x, ascending
}

// boolFunc and valueFunc are the two shapes of a compiled node. A boolFunc that answers failed, and a valueFunc that
// answers nil, have left the cause in env.err. A value of kind Null is unknown.
type (
	boolFunc  func(e *env) truth
	valueFunc func(e *env) *codecs.Value
)

// truth is SQL's truth value, and failed for an operation on a wrong type.
type truth uint8

const (
	no truth = iota
	yes
	unknown
	failed
)

// test runs a condition: unknown counts as false. An error is an error of the event.
func (p *program) test(e *env) (bool, error) {
	e.steps = 0
	t := p.cond(e)
	if e.spend(); t == failed || e.exhausted() {
		return false, p.failure(e)
	}
	return t == yes, nil
}

// value runs an expression. The result is never nil without an error; kind Null is unknown. It may lie in the env, in
// the event or in the program: copy it to keep it past the next run of any program on this env, and never write to it.
func (p *program) value(e *env) (*codecs.Value, error) {
	e.steps = 0
	v := p.eval(e)
	if e.spend(); v == nil || e.exhausted() {
		return nil, p.failure(e)
	}
	return v, nil
}

func (p *program) failure(e *env) error {
	if e.exhausted() {
		e.err = errSteps
	}
	return fmt.Errorf("%s: %w", p.name, e.err)
}

// An env is what the programs of one RuleSet read, and their scratch space. One per goroutine, made by newEnv.
// The slices of totals and flags are indexed as the schema's.
type env struct {
	event  []codecs.Value // by slot: values at RuleSet.paths
	timeMs int64
	id     string
	totals []codecs.Value // with this event; only the indexes a program names are read. avg already rounded
	flags  []bool         // before this event
	prior  struct {
		totals  []codecs.Value
		flags   []bool // the same as env.flags
		count   uint64
		lastMs  int64
		hasLast bool
	}

	scratch []codecs.Value  // results of arithmetic, one per node
	locals  []*codecs.Value // variables of macros, by depth
	steps   int             // spent by loops and by long strings in this run, bounded by stepsMax
	spent   int             // the same in all runs for this event, bounded by eventStepsMax
	err     error           // cause of the last failed
}

// spend adds the steps of a run to those of the event.
func (e *env) spend() { e.spent += e.steps }

func (e *env) exhausted() bool { return e.steps > stepsMax || e.spent > eventStepsMax }

var errSteps = errors.New("the expression takes too many steps on this event")

// totalKind is what a total keeps.
type totalKind uint8

const (
	kindCount totalKind = iota
	kindSum
	kindMin
	kindMax
	kindAvg
	kindLast
	kindList
)

var totalKinds = [...]string{"count", "sum", "min", "max", "avg", "last", "list"}

func (k totalKind) String() string { return totalKinds[k] }

// A total as the job file declares it, in schema order.
type total struct {
	name       string
	kind       totalKind
	value      *program // nil for count
	when       *program // nil: always
	windowMs   int64    // 0: no window
	latenessMs int64    // how late an event may enter the window; 0 without a window
	grainMs    int64    // 0: exact times
	maxItems   int      // of a list; 0: no limit
}

// A flag as the job file declares it, in schema order.
type flag struct {
	name  string
	when  *program
	clear *program // nil: stays raised

	// Indexes of the windowed totals that when and clear name, under totals or prior.totals, ascending.
	whenWindows, clearWindows []int
}

// RuleSet is a checked job file. It is immutable and may be shared by goroutines.
type RuleSet struct {
	job    *Job
	schema *codecs.Schema

	paths  []codecs.Path // of env.event
	id     *program      // nil: the record's key
	time   *program      // nil: the record's timestamp
	totals []total
	flags  []flag

	usedTotals, usedPrior []int // indexes of the totals that any program names, under totals and under prior.totals

	scratch, locals int // sizes in an env
}

// newEnv makes an env of the right sizes for the programs of rs.
func (rs *RuleSet) newEnv() *env {
	e := &env{
		event:   make([]codecs.Value, len(rs.paths)),
		totals:  make([]codecs.Value, len(rs.totals)),
		flags:   make([]bool, len(rs.flags)),
		scratch: make([]codecs.Value, rs.scratch),
		locals:  make([]*codecs.Value, rs.locals),
	}
	e.prior.totals = make([]codecs.Value, len(rs.totals))
	e.prior.flags = e.flags
	return e
}
