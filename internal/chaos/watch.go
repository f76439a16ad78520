package chaos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tidemark/tidemark/internal/history"
)

const (
	// beginWithin is the patience with views that are to tell where a watch begins.
	beginWithin = time.Minute
	// toldWithin is the patience with what is left to be told when everything is processed.
	toldWithin = 30 * time.Second
)

// Watches are what those were told who watched through the whole run.
type Watches struct {
	Watchers int
	Told     int            // changes
	Resumed  map[string]int // by the reason
	Faults   int            // what was missed, or told twice, out of order or differently from what was committed
}

// subjects are what is watched.
func subjects() []history.Watch {
	return []history.Watch{{}, {Prefix: "e-000"}, {ID: "e-00007"}, {Flag: flagBusy}}
}

// makeWatchers makes so many watchers of each subject. They begin on different views.
func (r *run) makeWatchers(each int) {
	for n, what := range subjects() {
		for i := range each {
			w := &watcher{
				what: what, sse: i%2 == 0, rng: rand.New(rand.NewPCG(r.cfg.Seed, uint64(1000+10*n+i))), begun: make(chan struct{}), resumed: map[string]int{},
			}
			for k := range r.clients {
				w.clients = append(w.clients, r.clients[(i+k)%len(r.clients)])
			}
			over := overGRPC
			if w.sse {
				over = overREST
			}
			w.what.Name = fmt.Sprintf("watcher %d of %s, over %s", i, subject(&what), over)
			r.watches = append(r.watches, w)
		}
	}
}

func subject(w *history.Watch) string {
	switch {
	case w.ID != "":
		return "ID " + w.ID
	case w.Prefix != "":
		return "prefix " + w.Prefix
	case w.Flag != "":
		return "flag " + w.Flag
	}
	return "everything"
}

// watch starts the watchers, and returns when each of them knows where it begins: before the first event.
func (r *run) watch(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	stop = func() {
		cancel()
		watching.Wait()
	}
	for _, w := range r.watches {
		watching.Go(func() { w.run(ctx) })
	}
	patience := time.NewTimer(beginWithin)
	defer patience.Stop()
	for _, w := range r.watches {
		select {
		case <-w.begun:
		case <-ctx.Done():
			return stop, ctx.Err()
		case <-patience.C:
			stop()
			return stop, fmt.Errorf("%s did not begin within %v: %v", w.what.Name, beginWithin, w.wrong)
		}
	}
	return stop, nil
}

// awaitWatches reads the order of commits, and returns when everything was told that has to be, or after a while.
func (r *run) awaitWatches(ctx context.Context) (*history.Truth, error) {
	if len(r.watches) == 0 {
		return nil, nil
	}
	truth, err := history.FromTable(ctx, r.kafka, r.names, r.rules.Schema())
	if err != nil {
		return nil, err
	}
	for _, w := range r.watches {
		owed := truth.LastOwed(&w.what)
		if !waitFor(ctx, toldWithin, func() bool { return w.reached(owed) }) {
			r.say("%s was not told everything within %v", w.what.Name, toldWithin)
		}
	}
	return truth, ctx.Err()
}

// reached tells whether the watcher was told of each of these commits, or of a later one.
func (w *watcher) reached(owed map[int32]uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	missing := len(owed)
	for partition, commit := range owed {
		for _, d := range slices.Backward(w.told) {
			if d.Partition == partition {
				if d.Commit >= commit {
					missing--
				}
				break
			}
		}
	}
	return missing == 0
}

// judgeWatches holds each watcher to the order of commits, to what its fellows were told on other views, and to what the producer knows.
func (r *run) judgeWatches(truth *history.Truth, o *oracle, l *ledger) {
	all := &Watches{Watchers: len(r.watches), Resumed: map[string]int{}}
	fellows := map[string]*watcher{}
	for _, w := range r.watches {
		faults := w.faults(truth, r.cfg.Partitions)
		if first := fellows[subject(&w.what)]; first == nil {
			fellows[subject(&w.what)] = w
		} else if why := w.differs(first); why != "" {
			faults = append(faults, why)
		}
		if subject(&w.what) == "everything" {
			faults = append(faults, w.ends(o)...)
		}
		for _, f := range faults {
			r.blame(fmt.Errorf("%s", f))
		}
		l.judge(w.answers)
		all.Faults += len(faults)
		all.Told += len(w.told)
		for why, n := range w.resumed {
			all.Resumed[why] += n
		}
	}
	r.report.Watches = all
}

// faults compares what was told with the order of commits.
func (w *watcher) faults(truth *history.Truth, partitions int) []string {
	all := slices.Clone(w.wrong)
	what := w.what
	what.Events, what.Begin, what.Through = w.told, map[int32][2]uint64{}, map[int32]uint64{}
	for p := range int32(partitions) {
		what.Begin[p], what.Through[p] = [2]uint64{}, truth.Last(p) // it began before there was an event
	}
	return append(all, truth.CheckWatch(&what)...)
}

// differs names the first change of a partition that two watchers of one subject were told differently.
func (w *watcher) differs(other *watcher) string {
	mine, others := byPartition(w.told), byPartition(other.told)
	for p := range mine {
		for i := range min(len(mine[p]), len(others[p])) {
			if mine[p][i] != others[p][i] {
				return fmt.Sprintf("%s was told %v as number %d of partition %d, and %s %v", w.what.Name, &mine[p][i], i, p, other.what.Name, &others[p][i])
			}
		}
		if len(mine[p]) != len(others[p]) {
			return fmt.Sprintf("%s was told %d changes of partition %d, and %s %d", w.what.Name, len(mine[p]), p, other.what.Name, len(others[p]))
		}
	}
	return ""
}

// byPartition sorts what was told by partition, without content, which not every transport gives alike.
func byPartition(told []history.Delivery) map[int32][]history.Delivery {
	all := map[int32][]history.Delivery{}
	for _, d := range told {
		d.Content = ""
		all[d.Partition] = append(all[d.Partition], d)
	}
	return all
}

// ends compares the last version that was told of each ID with what the producer knows.
func (w *watcher) ends(o *oracle) (wrong []string) {
	last := map[string]*answer{}
	for i := range w.answers {
		last[w.answers[i].id] = &w.answers[i]
	}
	for id, x := range o.ids {
		a := last[id]
		if a == nil {
			wrong = append(wrong, fmt.Sprintf("%s was never told of %s", w.what.Name, id))
			continue
		}
		a.holds.changes = x.changes // a watch does not tell them
		if faults, _, _ := x.faults(&a.holds); len(faults) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s was told of %s last: %v", w.what.Name, id, faults))
		}
	}
	return wrong
}

func (w *Watches) print(out io.Writer) {
	fmt.Fprintf(out, "  watches       %d watchers were told %d changes, %d faults; went on elsewhere %d times %v\n",
		w.Watchers, w.Told, w.Faults, sum(w.Resumed), w.Resumed)
}
