package view

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
)

// level is when a partition was last known to be level, and what it lacks.
type level struct {
	input time.Time // it covered the end of the input then; zero: never known
	table time.Time // it had read all that was committed to the table then; zero: never known
	lag   int64     // input records that it did not cover when last seen
	head  int64     // end of the input partition then
}

// prober finds out as of when the published states cover their input. It asks for the end of every input partition and notes
// when it asked; once a partition's position has come to that end, the partition is level as of the time of asking. So
// an age is never too small, an idle topic does not age, and a processor that is stopped or behind does.
//
// Re-keyed events come through the loop topic: where that has ever held a record, a partition is level only as of a time
// at which all input partitions were, and when it covers the loop's end as it was found after that.
type prober struct {
	view  *View
	cl    *kgo.Client
	parts []*partition
	input []source // one for each partition
	loop  []source
}

// source is what the prober knows of one partition of the input or of the loop.
type source struct {
	asOf    time.Time // level as of then
	waiting bool      // for the end below
	target  int64     // the end that was found
	since   time.Time // what asOf becomes when the position has come to target
	next    int64     // the position as last seen
	empty   [2]int64  // no record in [0] <= offset < [1] can be delivered: markers and aborted records
}

func newProber(v *View, cl *kgo.Client, parts []*partition) *prober {
	return &prober{view: v, cl: cl, parts: parts, input: make([]source, len(parts)), loop: make([]source, len(parts))}
}

func (b *prober) run(ctx context.Context) {
	tick := time.NewTicker(b.view.cfg.ProbeInterval)
	defer tick.Stop()
	for {
		probing, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := b.probe(probing)
		cancel()
		b.note(ctx, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *prober) note(ctx context.Context, err error) {
	if err == nil {
		b.view.probes.Add(1)
		b.view.probeFails.Store(nil)
		return
	}
	why := err.Error()
	if was := b.view.probeFails.Swap(&why); was == nil && ctx.Err() == nil {
		b.view.log.Warn("asking for the end of the input; answers age meanwhile", "cause", err)
	}
}

func (b *prober) probe(ctx context.Context) error {
	cfg := &b.view.cfg
	asked := time.Now()
	ends, err := eos.Ends(ctx, b.cl, cfg.Input)
	if err != nil {
		return err
	}
	if err := b.settle(ctx, cfg.Input, b.input, ends, func(int) time.Time { return asked }); err != nil {
		return err
	}
	for i, p := range b.parts {
		p.levelMu.Lock()
		p.level.head = ends[int32(i)].LSO
		p.level.lag = max(0, p.level.head-b.input[i].next)
		if b.input[i].asOf.Equal(asked) {
			p.level.lag = 0 // what is left are markers and aborted records
		}
		p.levelMu.Unlock()
	}
	own := make([]time.Time, len(b.parts))
	var all time.Time
	for i := range b.input {
		own[i] = b.input[i].asOf
		if i == 0 || own[i].Before(all) {
			all = own[i]
		}
	}
	// Only now: what the partitions above sent on to the loop before they were level lies below the end that is found here.
	ends, err = eos.Ends(ctx, b.cl, cfg.Names.Loop())
	if err != nil {
		return err
	}
	for _, span := range ends {
		if span.HW > 0 {
			b.view.rekeyed.Store(true)
		}
	}
	candidate := func(i int) time.Time {
		if b.view.rekeyed.Load() {
			return all
		}
		return own[i]
	}
	if err := b.settle(ctx, cfg.Names.Loop(), b.loop, ends, candidate); err != nil {
		return err
	}
	for i, p := range b.parts {
		p.levelMu.Lock()
		if b.loop[i].asOf.After(p.level.input) {
			p.level.input = b.loop[i].asOf
		}
		p.levelMu.Unlock()
	}
	return nil
}

// settle looks which partitions have come to the ends that they wait for, and lets the others wait for the ends just found.
func (b *prober) settle(ctx context.Context, topic string, sources []source, ends map[int32]eos.Span, since func(int) time.Time) error {
	for i := range sources {
		s := &sources[i]
		span, ok := ends[int32(i)]
		next, known := b.parts[i].reachedIn(topic)
		if !ok || !known {
			continue
		}
		still := next == s.next
		s.next = next
		// The end was found after what is waited for, so covering it counts for both.
		covered, err := b.covers(ctx, topic, int32(i), s, span, still)
		if err != nil {
			return err
		}
		switch {
		case covered:
			s.asOf, s.waiting = since(i), false
		case s.waiting && next >= s.target:
			s.asOf, s.target, s.since = s.since, span.LSO, since(i)
		case !s.waiting:
			s.waiting, s.target, s.since = true, span.LSO, since(i)
		}
	}
	return nil
}

// covers tells whether nothing that can be delivered lies between a source's position and an end. It looks into the log
// only when the position stands still: the tail is then markers and aborted records, or nobody processes it.
func (b *prober) covers(ctx context.Context, topic string, p int32, s *source, span eos.Span, still bool) (bool, error) {
	switch {
	case s.next >= span.LSO || s.next >= s.empty[0] && span.LSO <= s.empty[1]:
		return true, nil
	case !still || s.empty[0] > s.next: // a record before empty is not covered
		return false, nil
	}
	last, ok, err := eos.LastDeliverable(ctx, b.view.cfg.Kafka, topic, p, span)
	if err != nil {
		return false, err
	}
	from := span.Start
	if ok {
		from = last + 1
	}
	s.empty = [2]int64{from, span.LSO}
	return s.next >= from, nil
}

// reachedIn is the next offset of a source topic that the published state does not cover; false while nothing is published.
func (p *partition) reachedIn(topic string) (int64, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.current == nil || p.current.position == nil {
		return 0, false
	}
	if src := p.current.position.Source(topic); src != nil {
		return src.Next, true
	}
	return 0, true
}
