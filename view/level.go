package view

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
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
// at which all input partitions were, and when it covers the loop's end as it was found after that. The loop's end is the
// high watermark, open transactions included: markers come to the partitions of a transaction one by one, so a commit that
// is seen in the table may still be hidden in the loop.
type prober struct {
	view  *View
	cl    *kgo.Client
	parts []*partition
	input []source // one for each partition
	loop  []source
	all   time.Time // every input partition was level as of then
	taken int       // looks at the loop
	looks []look    // that are not covered yet, oldest first

	tails chan *tail // to be read; there is room for one of each source
	found chan *tail // and they were
}

// tail is what lies behind a position in the log of a source. Reading it may take long, and neither probes nor reads that wait for
// an event wait for that.
type tail struct {
	source    *source
	topic     string
	partition int32
	span      eos.Span
	empty     [2]int64 // as in source
	err       error
}

// look is a look at the loop's end: once that is covered, so is whatever the input below these positions sent on.
type look struct {
	number int
	next   []int64 // published positions in the input, read before the loop's end was asked for
}

// probeWithin is the patience with brokers that are asked for ends, and with the reading of a tail.
const probeWithin = 10 * time.Second

// looksMax bounds how many looks wait. Which of them stand between the oldest and the newest matters little.
const looksMax = 16

// mark is what being level with an end means.
type mark struct {
	level time.Time // as of when
	look  int       // the look by which the end was found, where it is the loop's
}

// source is what the prober knows of one partition of the input or of the loop.
type source struct {
	asOf    mark     // what covering the last covered end meant
	waiting bool     // for the end below
	target  int64    // the end that was found
	since   mark     // what asOf becomes when the position has come to target
	next    int64    // the position as last seen
	looked  int64    // the position when the log was last thought of
	empty   [2]int64 // no record in [0] <= offset < [1] can be delivered: markers and aborted records
	sought  bool     // its tail is being read
}

func newProber(v *View, cl *kgo.Client, parts []*partition) *prober {
	n := len(parts)
	return &prober{
		view: v, cl: cl, parts: parts, input: make([]source, n), loop: make([]source, n), tails: make(chan *tail, 2*n), found: make(chan *tail),
	}
}

func (b *prober) run(ctx context.Context) {
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { b.readTails(ctx) })
	tick := time.NewTicker(b.view.cfg.ProbeInterval)
	defer tick.Stop()
	for step := b.probe; ; {
		probing, cancel := context.WithTimeout(ctx, probeWithin)
		err := step(probing)
		cancel()
		b.note(ctx, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			step = b.probe
		case <-b.view.hurry:
			step = b.glance
		case t := <-b.found:
			step = func(ctx context.Context) error { return b.take(ctx, t) }
		}
	}
}

func (b *prober) note(ctx context.Context, err error) {
	if err == nil {
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
	level := mark{level: asked}
	stable := func(s eos.Span) int64 { return s.LSO }
	b.settle(cfg.Input, b.input, ends, stable, func(int) mark { return level }, true)
	for i, p := range b.parts {
		p.levelMu.Lock()
		p.level.head = ends[int32(i)].LSO
		p.level.lag = max(0, p.level.head-b.input[i].next)
		if b.input[i].asOf == level {
			p.level.lag = 0 // what is left are markers and aborted records
		}
		p.levelMu.Unlock()
		if at := b.input[i].asOf.level; i == 0 || at.Before(b.all) {
			b.all = at
		}
	}
	// Only now: what the partitions above sent on to the loop before they were level lies below the end that is found here.
	found := b.published()
	if ends, err = eos.Ends(ctx, b.cl, cfg.Names.Loop()); err != nil {
		return err
	}
	b.see(found, ends, true)
	b.view.probes.Add(1)
	return nil
}

// glance looks at the loop alone, for reads that wait for an event. It reads no log: the next probe does.
func (b *prober) glance(ctx context.Context) error {
	found := b.published()
	listed, err := kadm.NewClient(b.cl).ListEndOffsets(ctx, b.view.cfg.Names.Loop())
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return fmt.Errorf("ends of the loop: %w", err)
	}
	ends := map[int32]eos.Span{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = eos.Span{HW: o.Offset} })
	b.see(found, ends, false)
	return nil
}

// published gives the positions in the input that readers see now; 0 where nothing is published.
func (b *prober) published() []int64 {
	next := make([]int64, len(b.parts))
	for i, p := range b.parts {
		next[i], _ = p.reachedIn(b.view.cfg.Input)
	}
	return next
}

// see takes in the ends of the loop, which were asked for after the positions next were published.
func (b *prober) see(next []int64, ends map[int32]eos.Span, deep bool) {
	for _, span := range ends {
		if span.HW > 0 {
			b.view.rekeyed.Store(true)
		}
	}
	b.taken++
	b.looks = append(b.looks[:min(len(b.looks), looksMax-1)], look{b.taken, next})
	since := func(i int) mark {
		if b.view.rekeyed.Load() {
			return mark{b.all, b.taken}
		}
		return mark{b.input[i].asOf.level, b.taken}
	}
	high := func(s eos.Span) int64 { return s.HW }
	b.settle(b.view.cfg.Names.Loop(), b.loop, ends, high, since, deep)
	covered := b.taken
	for i, p := range b.parts {
		covered = min(covered, b.loop[i].asOf.look)
		p.levelMu.Lock()
		if at := b.loop[i].asOf.level; at.After(p.level.input) {
			p.level.input = at
		}
		p.levelMu.Unlock()
	}
	for len(b.looks) > 0 && b.looks[0].number <= covered {
		for i, p := range b.parts {
			p.settle(b.looks[0].next[i])
		}
		b.looks = b.looks[1:]
	}
}

// settle looks which partitions have come to the ends that they wait for, and lets the others wait for the ends just found.
func (b *prober) settle(topic string, sources []source, ends map[int32]eos.Span,
	end func(eos.Span) int64, since func(int) mark, deep bool,
) {
	for i := range sources {
		s := &sources[i]
		span, ok := ends[int32(i)]
		next, known := b.parts[i].reachedIn(topic)
		if !ok || !known {
			continue
		}
		s.next = next
		if deep {
			b.seek(topic, int32(i), s, span)
		}
		switch {
		case s.covers(end(span)): // it was found after what is waited for, so covering it counts for both
			s.asOf, s.waiting = since(i), false
		case s.waiting && s.covers(s.target):
			s.asOf, s.target, s.since = s.since, end(span), since(i)
		case !s.waiting:
			s.waiting, s.target, s.since = true, end(span), since(i)
		}
	}
}

// covers tells whether nothing that can be delivered is known to lie, or may lie, between the position and an end.
func (s *source) covers(end int64) bool {
	return s.next >= end || s.next >= s.empty[0] && end <= s.empty[1]
}

// seek has it found out whether what lies behind the position can be delivered. The log is read only when the position
// stands still: the tail is then markers and aborted records, or nobody processes it.
func (b *prober) seek(topic string, p int32, s *source, span eos.Span) {
	still := s.next == s.looked
	s.looked = s.next
	if s.sought || s.covers(span.LSO) || !still || s.empty[0] > s.next { // a record before empty is not covered
		return
	}
	s.sought = true
	b.tails <- &tail{source: s, topic: topic, partition: p, span: span}
}

// readTails reads the tails that are sought, one after the other.
func (b *prober) readTails(ctx context.Context) {
	for {
		var t *tail
		select {
		case t = <-b.tails:
		case <-ctx.Done():
			return
		}
		t.read(ctx, b.view.cfg.Kafka)
		select {
		case b.found <- t:
		case <-ctx.Done():
			return
		}
	}
}

func (t *tail) read(ctx context.Context, k *eos.Kafka) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	last, ok, err := eos.LastDeliverable(ctx, k, t.topic, t.partition, t.span)
	if t.empty, t.err = [2]int64{t.span.Start, t.span.LSO}, err; ok {
		t.empty[0] = last + 1
	}
}

// take takes in a tail that was read. What it says of the log stays true; reads may have waited for it.
func (b *prober) take(ctx context.Context, t *tail) error {
	t.source.sought = false
	if t.err != nil {
		return t.err
	}
	t.source.empty = t.empty
	return b.glance(ctx)
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
