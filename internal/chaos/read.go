package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"github.com/twmb/franz-go/pkg/kgo"
)

// readCommitted hands every committed record of a topic to use, in the order of its partition.
func readCommitted(ctx context.Context, k *eos.Kafka, cl *kgo.Client, topic string, use func(*kgo.Record) error) error {
	ends, err := eos.Ends(ctx, cl, topic)
	if err != nil {
		return fmt.Errorf("ends of %s: %w", topic, err)
	}
	starts := map[int32]int64{}
	for p, span := range ends {
		starts[p] = span.Start
	}
	r, err := eos.NewReader(k, topic, starts)
	if err != nil {
		return err
	}
	defer r.Close()
	for len(ends) > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		for _, b := range batches {
			for _, rec := range b.Records {
				if err := use(rec); err != nil {
					return fmt.Errorf("%s/%d@%d: %w", topic, b.Partition, rec.Offset, err)
				}
			}
			if span, ok := ends[b.Partition]; ok && b.Next >= span.LSO {
				delete(ends, b.Partition)
			}
		}
	}
	return nil
}

// readFound reads what the subject holds of every ID.
func readFound(ctx context.Context, k *eos.Kafka, cl *kgo.Client, subject string, rs *rules.RuleSet) (map[string]*found, error) {
	names, all := eos.Names{Job: rs.Job().Name}, map[string]*found{}
	err := readCommitted(ctx, k, cl, names.Table(), func(r *kgo.Record) error {
		if !eos.IsUserKey(r.Key) {
			return nil
		}
		f, err := decodeState(r.Value, subject, rs.Schema())
		all[string(r.Key)] = f
		return err
	})
	if err != nil {
		return nil, err
	}
	type key struct {
		id      string
		version uint64
	}
	seen := map[key]bool{}
	err = readCommitted(ctx, k, cl, names.Flags(), func(r *kgo.Record) error {
		c, err := codecs.DecodeFlagChange(r.Value)
		if err != nil {
			return err
		}
		f := all[c.ID]
		if f == nil {
			f = &found{}
			all[c.ID] = f
		}
		if at := (key{c.ID, c.Version}); seen[at] {
			f.changesAgain++
		} else {
			seen[at] = true
		}
		f.changes = append(f.changes, change{c.Version, c.Raised})
		return nil
	})
	return all, err
}

// readCommits reads every commit of the table: how far in the input each was, by partition and number. The table keeps them for
// as long as a watch can be resumed (min.compaction.lag.ms), which is longer than a run.
func readCommits(ctx context.Context, k *eos.Kafka, cl *kgo.Client, rs *rules.RuleSet) (map[int32]map[uint64]int64, error) {
	all := map[int32]map[uint64]int64{}
	err := readCommitted(ctx, k, cl, (eos.Names{Job: rs.Job().Name}).Table(), func(r *kgo.Record) error {
		if !eos.IsPositionKey(r.Key) {
			return nil
		}
		pos, err := eos.ParsePosition(r.Value)
		if err != nil {
			return err
		}
		if all[pos.Partition] == nil {
			all[pos.Partition] = map[uint64]int64{}
		}
		all[pos.Partition][pos.Seq] = pos.Source(rs.Job().Input.Topic).Next
		return nil
	})
	return all, err
}

func decodeState(value []byte, subject string, sc *codecs.Schema) (*found, error) {
	if subject == Stock {
		var st stockState
		if err := json.Unmarshal(value, &st); err != nil {
			return nil, err
		}
		return st.found(), nil
	}
	var st codecs.State
	if err := st.UnmarshalBinary(value, sc); err != nil {
		return nil, err
	}
	total := func(name string) *codecs.Decimal { return &st.Totals[slices.Index(sc.Totals, name)].Num }
	recent, ok := total(totalRecent).Int64()
	if !ok {
		return nil, fmt.Errorf("%s is %v", totalRecent, total(totalRecent))
	}
	return &found{
		count: st.Count, sum: total(totalSum).String(), hash: total(totalHash).String(), max: total(totalMax).String(),
		recent: uint64(recent), busy: st.Flags[slices.Index(sc.Flags, flagBusy)].Raised,
	}, nil
}
