package chaos

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/tidemark/tidemark/eos"
)

// fact is an event and what its producer was told of it.
type fact struct {
	event
	offset  int64
	acked   time.Time
	rekeyed bool
}

// partitionOf is where an ID lives.
func partitionOf(id string, partitions int) int32 { return eos.Place([]byte(id), int32(partitions)) }

// ledger judges answers of views. It knows what was acknowledged, from the producer, and where the commits of the table lie: it
// knows nothing of how a view comes to its answers.
type ledger struct {
	partitions int
	facts      map[string][]*fact         // of each ID, as they were produced
	commits    map[int32]map[uint64]int64 // of each partition: how far in the input each commit was
	versions   map[[2]string]uint64       // the last one that a view told of an ID
	reports    map[string]int             // wrong answers by what is wrong
	blame      func(*answer, string)
}

// The ways in which an answer is wrong.
const (
	wentBack    = "version went back"
	uncommitted = "not committed"
	incomplete  = "incomplete"
	stale       = "staler than it says"
	wrongValue  = "wrong value"
)

func newLedger(o *oracle, commits map[int32]map[uint64]int64, partitions int, blame func(*answer, string)) *ledger {
	return &ledger{
		partitions: partitions, facts: o.facts, commits: commits, versions: map[[2]string]uint64{}, reports: map[string]int{}, blame: blame,
	}
}

// judge takes the answers of one view in the order in which they were given.
func (l *ledger) judge(answers []answer) {
	byID := map[string][]*answer{}
	for i := range answers {
		a := &answers[i]
		l.sequence(a)
		l.commit(a)
		l.fresh(a)
		byID[a.id] = append(byID[a.id], a)
	}
	for id, of := range byID {
		l.values(l.facts[id], of)
	}
}

func (l *ledger) wrong(a *answer, kind, format string, args ...any) {
	l.reports[kind]++
	l.blame(a, kind+": "+fmt.Sprintf(format, args...))
}

// sequence: versions of an ID never go back, for a reader of one view.
func (l *ledger) sequence(a *answer) {
	at := [2]string{a.view, a.id}
	if a.version < l.versions[at] {
		l.wrong(a, wentBack, "%d after %d", a.version, l.versions[at])
	}
	l.versions[at] = max(l.versions[at], a.version)
}

// commit: what is shown stands in a commit of the ID's partition.
func (l *ledger) commit(a *answer) {
	if want := partitionOf(a.id, l.partitions); a.asOf.partition != want {
		l.wrong(a, uncommitted, "as of partition %d, the ID lives on %d", a.asOf.partition, want)
		return
	}
	if position, ok := l.commits[a.asOf.partition][a.asOf.commit]; !ok || position != a.asOf.position {
		l.wrong(a, uncommitted, "as of commit %d at %d; there is one: %t, at %d", a.asOf.commit, a.asOf.position, ok, position)
	}
}

// fresh: everything that was acknowledged before the age that an answer states is in it.
func (l *ledger) fresh(a *answer) {
	if a.age < 0 {
		return
	}
	least, level := uint64(0), a.asked.Add(-a.age)
	for _, f := range l.facts[a.id] {
		if f.acked.Before(level) {
			least++
		}
	}
	if a.version < least {
		l.wrong(a, stale, "version %d, %v old; %d events were acknowledged before that", a.version, a.age, least)
	}
}

// values: an answer has exactly the events before its position, in their order. Of an ID whose events come under other keys too
// neither position nor order are known.
func (l *ledger) values(facts []*fact, answers []*answer) {
	if slices.ContainsFunc(facts, func(f *fact) bool { return f.rekeyed }) {
		for _, a := range answers {
			if a.version > uint64(len(facts)) {
				l.wrong(a, wrongValue, "version %d of an ID with %d events", a.version, len(facts))
			}
		}
		return
	}
	answers = slices.Clone(answers)
	slices.SortStableFunc(answers, func(a, b *answer) int { return int(int64(a.version) - int64(b.version)) })
	o, folded := newOracle(), uint64(0)
	for _, a := range answers {
		before := uint64(sort.Search(len(facts), func(i int) bool { return facts[i].offset >= a.asOf.position }))
		if a.version != before {
			l.wrong(a, incomplete, "version %d as of position %d, before which there are %d events", a.version, a.asOf.position, before)
			continue
		}
		for ; folded < a.version; folded++ {
			o.fold(&facts[folded].event, false)
		}
		if a.version == 0 {
			continue
		}
		x := o.ids[a.id]
		a.holds.changes = x.changes // a view does not tell them
		if faults, _, _ := x.faults(&a.holds); len(faults) > 0 {
			l.wrong(a, wrongValue, "at version %d: %v", a.version, faults)
		}
	}
}
