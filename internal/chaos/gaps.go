package chaos

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	pollEvery = 100 * time.Millisecond
	// gapMin is what counts as a gap in the commits of a partition; stock Goka commits but once a second anyway.
	gapMin      = 500 * time.Millisecond
	gapMinStock = 1500 * time.Millisecond
	// gapSlack is how much earlier than a fault the last commit may have been seen that came after it.
	gapSlack = 2 * pollEvery

	overlapping = "several at once"
)

// mark is a fault, or what follows one, at its time.
type mark struct {
	at   time.Time
	kind string
}

// gap is a time without a commit of a partition.
type gap struct {
	partition  int32
	begin, end time.Time
}

// Gaps are the times without a commit that one kind of fault has cost.
type Gaps struct {
	N        int
	P50, Max time.Duration
}

func (r *run) mark(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks = append(r.marks, mark{time.Now(), kind})
	if !follows(kind) {
		r.report.Faults[kind]++
	}
}

// follows tells marks that are the end of a fault.
func follows(kind string) bool { return kind == markRestart || kind == markThaw || kind == markBroker }

// watchCommits looks at the group's offsets until ctx ends. Events come all the time, so commits should.
func (r *run) watchCommits(ctx context.Context) {
	type seen struct {
		offset int64
		at     time.Time
	}
	adm, topic, last := kadm.NewClient(r.client), r.rules.Job().Input.Topic, map[int32]seen{}
	least := gapMin
	if r.cfg.Subject == Stock {
		least = gapMinStock
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		offsets, err := adm.FetchOffsets(ctx, r.names.Group())
		now := time.Now()
		for partition, o := range offsets[topic] {
			before, known := last[partition]
			if err != nil || o.Err != nil || known && o.At == before.offset {
				continue
			}
			last[partition] = seen{o.At, now}
			r.mu.Lock()
			r.commits[partition] = now
			r.mu.Unlock()
			if known {
				r.committed.Add(o.At - before.offset)
			}
			if known && now.Sub(before.at) >= least {
				r.say("  partition %d commits again after %.1fs", partition, now.Sub(before.at).Seconds())
				r.mu.Lock()
				r.gaps = append(r.gaps, gap{partition, before.at, now})
				r.mu.Unlock()
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// settled waits until every partition has seen a commit since the last mark.
func (r *run) settled(ctx context.Context) error {
	for {
		r.mu.Lock()
		all := len(r.commits) == r.cfg.Partitions
		for _, at := range r.commits {
			all = all && (len(r.marks) == 0 || at.After(r.marks[len(r.marks)-1].at))
		}
		r.mu.Unlock()
		if all {
			return nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// explain gives each gap to the fault that it followed.
func explain(marks []mark, gaps []gap) map[string]Gaps {
	lengths := map[string][]time.Duration{}
	for _, g := range gaps {
		kind := "none"
		for _, m := range marks {
			switch {
			case m.at.After(g.end):
			case !m.at.After(g.begin.Add(gapSlack)):
				kind = m.kind
			case !follows(m.kind) && kind != overlapping:
				kind = overlapping
			}
		}
		lengths[kind] = append(lengths[kind], g.end.Sub(g.begin))
	}
	out := map[string]Gaps{}
	for kind, all := range lengths {
		slices.Sort(all)
		out[kind] = Gaps{N: len(all), P50: all[len(all)/2], Max: all[len(all)-1]}
	}
	return out
}
