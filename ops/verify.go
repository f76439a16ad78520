package ops

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
)

// VerifyReport is what Verify found.
type VerifyReport struct {
	// Events were folded again; of these Refused went to the dead letters and Rekeyed came over the loop.
	Events, Refused, Rekeyed int64
	// IDs were compared: Whole in every byte, OrderFree in what does not depend on the order of events, because some came
	// over the loop. NotCompared have had such events refused by a rule, so that nothing about them is sure.
	IDs, Whole, OrderFree, NotCompared int64
	// Differ counts the IDs that differ; First is the first of them in byte order.
	Differ int64
	First  *Difference
	Places []Place
}

// Difference is where a committed state is not what the input gives.
type Difference struct {
	ID        string
	Partition int32
	// Field is what differs, such as "totals.sum".
	Field              string
	Committed, Expects string
}

func (d *Difference) String() string {
	return fmt.Sprintf("ID %q on partition %d: %s is %s, the input gives %s", d.ID, d.Partition, d.Field, d.Committed, d.Expects)
}

// VerifyProgress is told of each of the two phases: "table", then "input".
type VerifyProgress func(phase string, done, total int64)

// Verify folds the input again, from where the job began up to the committed positions, and compares every ID with the
// committed state. The job may run meanwhile. Memory is bounded; the temporary directory holds the table twice. Its
// error says that it could not tell.
func (j *Job) Verify(ctx context.Context, rs *rules.RuleSet, tell VerifyProgress) (*VerifyReport, error) {
	if tell == nil {
		tell = func(string, int64, int64) {}
	}
	t, err := j.openTable(ctx, nil, nil, func(done, total int64) { tell("table", done, total) })
	if err != nil {
		return nil, err
	}
	v := &verification{job: j, rules: rs, table: t, report: &VerifyReport{Places: t.Places(j.Input)}}
	err = v.run(ctx, func(done, total int64) { tell("input", done, total) })
	return v.report, closing(t, err)
}

// verification is one Verify under way.
type verification struct {
	job    *Job
	rules  *rules.RuleSet
	table  *Table
	fold   *fold
	report *VerifyReport

	nexts   []int64         // by partition: the input offset up to which is folded
	pending map[origin]bool // re-keyed events that the home partition had not counted yet
	extra   []rules.Record  // re-keyed events that it had counted, of input behind nexts
}

// origin is the place of an input record.
type origin struct {
	partition int32
	offset    int64
}

func (v *verification) run(ctx context.Context, tell Progress) (err error) {
	if v.fold, err = openFold(v.rules, v.job.TempDir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.fold.close()) }()
	starts, topicID, err := v.starts(ctx)
	if err != nil {
		return err
	}
	if err := v.readLoop(ctx); err != nil {
		return err
	}
	if err := v.readInput(ctx, starts, topicID, tell); err != nil {
		return err
	}
	for i := range v.extra {
		if err := v.count(&v.extra[i], v.extra[i].Partition); err != nil {
			return err
		}
	}
	if err := v.fold.spill(); err != nil {
		return err
	}
	return v.compare(ctx)
}

// starts finds where the job began in each input partition, and how far it came.
func (v *verification) starts(ctx context.Context) (map[int32]int64, [16]byte, error) {
	var topicID [16]byte
	spans, err := v.job.ends(ctx, v.job.Input)
	if err != nil {
		return nil, topicID, err
	}
	starts := map[int32]int64{}
	v.nexts = make([]int64, v.table.Partitions)
	for i := range v.table.Read {
		p := &v.table.Read[i]
		if p.Position == nil {
			continue
		}
		src := p.Position.Source(v.job.Input)
		if src == nil {
			return nil, topicID, eos.Stop(nil, "use the job file that the state was made with", "the position record of partition %d does not name the input %s", p.Partition, v.job.Input)
		}
		topicID, v.nexts[p.Partition] = src.TopicID, src.Next
		start, err := v.start(ctx, p, spans[p.Partition])
		if err != nil {
			return nil, topicID, err
		}
		if start < src.Next {
			starts[p.Partition] = start
		}
	}
	return starts, topicID, nil
}

func (v *verification) start(ctx context.Context, p *TablePartition, span eos.Span) (int64, error) {
	from := v.rules.Job().Input.From
	lost := func(what string) error {
		return &Problem{
			What: fmt.Sprintf("%s/%d cannot be folded again: %s", v.job.Input, p.Partition, what),
			Mend: "keep the whole input (retention.ms=-1) for jobs that are to be verified",
		}
	}
	if p.Opening != nil && p.Opening.Records == 1 {
		start := p.Opening.Source(v.job.Input).Next
		if start < span.Start {
			return 0, lost(fmt.Sprintf("the job began at offset %d, the topic now begins at %d", start, span.Start))
		}
		return start, nil
	}
	switch {
	case from.Latest:
		return 0, lost("the job began at the input's end of that time, whose record is compacted away")
	case from.HasMs:
		return v.offsetAt(ctx, p.Partition, from.Ms)
	case span.Start > 0:
		return 0, lost(fmt.Sprintf("it begins at offset %d, and where the job began is not recorded any more", span.Start))
	}
	return 0, nil
}

func (v *verification) offsetAt(ctx context.Context, partition int32, ms int64) (int64, error) {
	cl, err := kgo.NewClient(v.job.Kafka.Franz()...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListOffsetsAfterMilli(ctx, ms, v.job.Input)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("find the start in %s/%d: %w", v.job.Input, partition, err)
	}
	o, _ := listed.Lookup(v.job.Input, partition)
	return o.Offset, nil
}

// readLoop finds the re-keyed events between two commits: table partitions are not as of one moment, and what the source
// partition has sent on may not have been counted at home.
func (v *verification) readLoop(ctx context.Context) error {
	v.pending = map[origin]bool{}
	loop := v.job.Names.Loop()
	spans, err := v.job.ends(ctx, loop)
	if errors.Is(err, eos.ErrUnknownTopic) {
		return nil
	} else if err != nil {
		return err
	}
	counted, starts, open := map[int32]int64{}, map[int32]int64{}, map[int32]bool{}
	for i := range v.table.Read {
		p := &v.table.Read[i]
		if p.Position == nil {
			continue
		}
		if src := p.Position.Source(loop); src != nil {
			counted[p.Partition] = src.Next
		}
		span := spans[p.Partition]
		if span.Start > counted[p.Partition] {
			return fmt.Errorf("%s/%d was trimmed while the table was being read; verify once more", loop, p.Partition)
		}
		if span.Start < span.LSO {
			starts[p.Partition], open[p.Partition] = span.Start, true
		}
	}
	if len(open) == 0 {
		return nil
	}
	r, err := eos.NewReader(v.job.Kafka, loop, starts)
	if err != nil {
		return err
	}
	defer r.Close()
	for len(open) > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			return fmt.Errorf("read %s: %w", loop, err)
		}
		for i := range batches {
			b := &batches[i]
			for _, rec := range b.Records {
				if err := v.rekeyed(rec, counted[b.Partition]); err != nil {
					return err
				}
			}
			if b.Next >= spans[b.Partition].LSO {
				delete(open, b.Partition)
			}
		}
	}
	return nil
}

func (v *verification) rekeyed(rec *kgo.Record, counted int64) error {
	headers := make([]codecs.Header, len(rec.Headers))
	for i, h := range rec.Headers {
		headers[i] = codecs.Header{Key: h.Key, Value: h.Value}
	}
	o, err := codecs.DecodeRekeyed(rec.Key, rec.Value, headers)
	if err != nil {
		return nil // such a record is refused, not counted
	}
	folded := o.Offset < v.nexts[o.Partition]
	switch {
	case rec.Offset >= counted && folded:
		v.pending[origin{o.Partition, o.Offset}] = true
	case rec.Offset < counted && !folded:
		v.extra = append(v.extra, rules.Record{
			Topic: o.Topic, Partition: o.Partition, Offset: o.Offset, TimestampMs: o.TimestampMs, Key: o.Key, Value: o.Value,
		})
	}
	return nil
}

func (v *verification) readInput(ctx context.Context, starts map[int32]int64, topicID [16]byte, tell Progress) error {
	var done, total int64
	open := map[int32]int64{}
	for p, start := range starts {
		total += v.nexts[p] - start
		open[p] = start
	}
	if len(open) == 0 {
		return nil
	}
	r, err := eos.NewReader(v.job.Kafka, v.job.Input, starts, eos.ReaderTopicID(topicID))
	if err != nil {
		return err
	}
	defer r.Close()
	for len(open) > 0 {
		batches, err := r.Poll(ctx)
		if err != nil {
			return fmt.Errorf("read input %s: %w", v.job.Input, err)
		}
		for i := range batches {
			b := &batches[i]
			before, going := open[b.Partition]
			if !going {
				continue
			}
			for _, rec := range b.Records {
				if rec.Offset < v.nexts[b.Partition] {
					if err := v.event(rec); err != nil {
						return err
					}
				}
			}
			at := min(b.Next, v.nexts[b.Partition])
			done += at - before
			if open[b.Partition] = at; at == v.nexts[b.Partition] {
				delete(open, b.Partition)
			}
		}
		tell.tell(done, total)
	}
	return nil
}

func (v *verification) event(rec *kgo.Record) error {
	if v.pending[origin{rec.Partition, rec.Offset}] {
		return nil
	}
	return v.count(&rules.Record{
		Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset,
		TimestampMs: rec.Timestamp.UnixMilli(), Key: rec.Key, Value: rec.Value,
	}, rec.Partition)
}

// count folds one event that arrived on a partition.
func (v *verification) count(rec *rules.Record, arrived int32) error {
	v.report.Events++
	id, refusal := v.fold.applier.Read(rec)
	if refusal != nil {
		v.report.Refused++
		return nil
	}
	marks := byte(0)
	if eos.Place([]byte(id), v.table.Partitions) != arrived {
		marks = markRekeyed
		v.report.Rekeyed++
	}
	refused, err := v.fold.apply(id, marks)
	if refused {
		v.report.Refused++
	}
	return err
}
