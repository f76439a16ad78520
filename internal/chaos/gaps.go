package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	pollEvery = 100 * time.Millisecond
	// gapMin is what counts as a gap in the commits of a partition; stock Goka commits but once a second anyway.
	gapMin      = 500 * time.Millisecond
	gapMinStock = 1500 * time.Millisecond
	// betweenCommits has a fault come in the middle of what stock Goka has not committed yet, which it does once a second, and not
	// upon the very commit that was waited for.
	betweenCommits = 600 * time.Millisecond
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
func follows(kind string) bool {
	return kind == markRestart || kind == markThaw || kind == markBroker || kind == markNetwork
}

// watchCommits sees the commits of the run until ctx ends. Events come all the time, so commits should.
func (r *run) watchCommits(ctx context.Context) error {
	if r.cfg.Subject == Stock {
		return r.watchOffsets(ctx)
	}
	return r.watchPositions(ctx)
}

// watchPositions takes a commit's time from the position record in the table, so that what this reader itself suffers from a
// broker's death counts for nothing.
func (r *run) watchPositions(ctx context.Context) error {
	starts := map[int32]int64{}
	if err := r.await(ctx, func(ctx context.Context) bool {
		ends, err := eos.Ends(ctx, r.client, r.names.Table())
		for p := range ends {
			starts[p] = 0
		}
		return err == nil
	}); err != nil {
		return notEnded(ctx, fmt.Errorf("wait for the table: %w", err))
	}
	reader, err := eos.NewReader(r.kafka, r.names.Table(), starts)
	if err != nil {
		return err
	}
	defer reader.Close()
	for last := map[int32]*eos.Position{}; ; {
		batches, err := reader.Poll(ctx)
		if err != nil {
			return notEnded(ctx, fmt.Errorf("follow the table: %w", err))
		}
		for _, b := range batches {
			for _, rec := range b.Records {
				if !eos.IsPositionKey(rec.Key) {
					continue
				}
				pos, err := eos.ParsePosition(rec.Value)
				if err != nil {
					return fmt.Errorf("position record at %d@%d: %w", b.Partition, rec.Offset, err)
				}
				r.takePosition(last[b.Partition], pos)
				last[b.Partition] = pos
			}
		}
	}
}

func (r *run) takePosition(before, pos *eos.Position) {
	input, from := r.rules.Job().Input.Topic, int64(0)
	if before != nil {
		from = before.Source(input).Next
		// Compaction may have taken records before the reader came, never put them in another order.
		if pos.Seq <= before.Seq || pos.Source(input).Next < from {
			r.blame(fmt.Errorf("partition %d: commit %d to %d after commit %d to %d", pos.Partition, pos.Seq, pos.Source(input).Next, before.Seq, from))
		}
	}
	r.mu.Lock()
	r.owners[pos.Partition] = pos.Owner
	r.mu.Unlock()
	r.took(pos.Partition, time.UnixMilli(pos.CommittedMs), pos.Source(input).Next-from, gapMin)
}

// watchOffsets asks for the group's offsets.
func (r *run) watchOffsets(ctx context.Context) error {
	adm, topic, last := kadm.NewClient(r.client), r.rules.Job().Input.Topic, map[int32]int64{}
	for {
		if offsets, err := adm.FetchOffsets(ctx, r.names.Group()); err == nil {
			for partition, o := range offsets[topic] {
				if o.Err == nil && o.At >= 0 && o.At != last[partition] {
					r.took(partition, time.Now(), o.At-last[partition], gapMinStock)
					last[partition] = o.At
				}
			}
		}
		if pause(ctx, pollEvery) != nil {
			return nil
		}
	}
}

// took notes a commit of n input records.
func (r *run) took(partition int32, at time.Time, n int64, least time.Duration) {
	r.committed.Add(n)
	r.mu.Lock()
	before, known := r.commits[partition]
	r.commits[partition] = at
	long := known && at.Sub(before) >= least
	if long {
		r.gaps = append(r.gaps, gap{partition, before, at})
	}
	r.mu.Unlock()
	if long {
		r.say("  partition %d commits again after %.1fs", partition, at.Sub(before).Seconds())
	}
}

// notEnded drops an error that is only the end of the run.
func notEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// settled waits, where the configuration says so, until every partition has seen a commit since the last mark, and the group
// consists of the processes that run. One that is killed while it still joins costs the group a second session timeout; that
// is a fault upon a fault, which runs without Settle have.
func (r *run) settled(ctx context.Context) error {
	for r.cfg.Settle {
		r.mu.Lock()
		all := len(r.commits) == r.cfg.Partitions
		for _, at := range r.commits {
			all = all && (len(r.marks) == 0 || at.After(r.marks[len(r.marks)-1].at))
		}
		r.mu.Unlock()
		if all && r.cfg.Subject == Stock { // of which a process may stay out of the group for good
			return pause(ctx, betweenCommits)
		}
		if all && r.joined(ctx) {
			return nil
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// joined tells whether the members of the group are as many as the processes that run, and all have their partitions.
func (r *run) joined(ctx context.Context) bool {
	groups, err := kadm.NewClient(r.client).DescribeGroups(ctx, r.names.Group())
	if err != nil {
		return false
	}
	up := 0
	for _, s := range r.slots {
		if s.pid() != 0 {
			up++
		}
	}
	g := groups[r.names.Group()]
	return g.Err == nil && g.State == "Stable" && len(g.Members) == up
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
