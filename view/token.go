package view

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Read says what a read asks of its answer beyond being true. The zero value asks nothing.
type Read struct {
	// AtLeast names events of the input that the answer comes after: places PARTITION@OFFSET as any producer was told, or
	// Tokens, separated by commas. "" is none.
	AtLeast string
	// Wait is how long to wait for AtLeast; nil is WaitDefault, and WaitMax the most.
	Wait *time.Duration
	// MaxAge refuses an answer that is older, or whose age is not known; nil is any age.
	MaxAge *time.Duration
}

// How long a read waits for an event.
const (
	WaitDefault = 2 * time.Second
	WaitMax     = 30 * time.Second
)

// placesMax is how many events a read may name.
const placesMax = 1000

// named is an event of the input.
type named struct {
	partition int32
	offset    int64
	topic     *[16]byte // nil: the job's input, whatever its ID
}

// Token names an event of the input for AtLeast, as its producer was told. Unlike PARTITION@OFFSET it holds for that one
// topic: where the input was deleted and made again, it is refused.
func Token(generation uint32, topicID [16]byte, partition int32, offset int64) string {
	return fmt.Sprintf("%d@%d.%d.%s", partition, offset, max(generation, 1), base64.RawURLEncoding.EncodeToString(topicID[:]))
}

// places reads AtLeast.
func (r *Read) places() ([]named, error) {
	if r.AtLeast == "" {
		return nil, nil
	}
	texts := strings.Split(r.AtLeast, ",")
	if len(texts) > placesMax {
		return nil, &Invalid{fmt.Sprintf("at_least names %d events, %d at most", len(texts), placesMax)}
	}
	out := make([]named, len(texts))
	for i, text := range texts {
		p, ok := parsePlace(text)
		if !ok {
			return nil, &Invalid{fmt.Sprintf("at_least is PARTITION@OFFSET such as 3@1042, or a token, got %s", strconv.QuoteToASCII(text))}
		}
		out[i] = p
	}
	return out, nil
}

func parsePlace(text string) (p named, ok bool) {
	at, rest, own := strings.Cut(text, ".")
	number, offset, ok := strings.Cut(at, "@")
	if !ok {
		return p, false
	}
	n, err1 := strconv.ParseUint(number, 10, 31)
	o, err2 := strconv.ParseUint(offset, 10, 63)
	if p = (named{partition: int32(n), offset: int64(o)}); !own {
		return p, err1 == nil && err2 == nil
	}
	generation, id, _ := strings.Cut(rest, ".")
	_, err3 := strconv.ParseUint(generation, 10, 32)
	b, err4 := base64.RawURLEncoding.DecodeString(id)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || len(b) != len(p.topic) {
		return p, false
	}
	p.topic = (*[16]byte)(b)
	return p, true
}

// fulfil waits until a read may be answered: every event that it names was applied or refused, and readers see it. on tells
// whether the read asks a partition.
func (v *View) fulfil(ctx context.Context, r *Read, parts []*partition, on func(int32) bool) error {
	places, err := r.places()
	if err != nil || places == nil {
		return err
	}
	wait := WaitDefault
	if r.Wait != nil {
		wait = *r.Wait
	}
	if wait < 0 || wait > WaitMax {
		return &Invalid{fmt.Sprintf("wait is from 0s to %s, got %s", WaitMax, wait)}
	}
	for _, at := range places {
		if int(at.partition) >= len(parts) {
			return &Invalid{fmt.Sprintf("at_least names partition %d; the input has %d, from 0 on", at.partition, len(parts))}
		}
		if !on(at.partition) {
			return parts[at.partition].elsewhere()
		}
		if err := parts[at.partition].of(at); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(wait)
	for _, at := range places {
		if parts[at.partition].settled.Load() > at.offset {
			continue
		}
		if err := waiting(ctx, at, func() error { return parts[at.partition].reach(ctx, at.offset, deadline) }); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere refuses a token of this partition, on which nothing that is asked for lives.
func (p *partition) elsewhere() error {
	s, err := p.hold()
	if err != nil {
		return err
	}
	defer s.release()
	return &Elsewhere{fmt.Sprintf("at_least names an event of partition %d, but nothing that is asked for lives there: "+
		"the event's producer used another partitioner than Kafka's default (murmur2 of the ID as the key), so the event is re-keyed and its place says nothing of the ID",
		p.number), p.asOf(s, time.Now())}
}

// of refuses a token of another topic than the one that the partition's state was made from.
func (p *partition) of(at named) error {
	s, err := p.hold()
	if err != nil {
		return err
	}
	defer s.release()
	src := s.position.Source(p.view.cfg.Input)
	if at.topic == nil || src != nil && src.TopicID == *at.topic {
		return nil
	}
	return &Gone{fmt.Sprintf("at_least names an event of another topic than the job's input %s as it is now: the topic was made again, or the token is another job's", p.view.cfg.Input)}
}

// reach waits until the event at an input offset was applied or refused.
func (p *partition) reach(ctx context.Context, offset int64, deadline time.Time) error {
	if p.settled.Load() > offset {
		return nil
	}
	p.view.waiting.Add(1)
	defer p.view.waiting.Add(-1)
	if next, _ := p.reachedIn(p.view.cfg.Input); next > offset { // else publishing it does this
		p.view.look()
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		moved := p.moves()
		if p.settled.Load() > offset {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return p.late(offset)
		}
	}
}

// late says how far the partition is.
func (p *partition) late(offset int64) error {
	s, err := p.hold()
	if err != nil {
		return err
	}
	defer s.release()
	asOf := p.asOf(s, time.Now())
	if asOf.Position > offset {
		return &Late{fmt.Sprintf("partition %d is at %d and so past offset %d, but whether an event that was re-keyed is still on its way is not known yet", p.number, asOf.Position, offset), asOf}
	}
	return &Late{fmt.Sprintf("partition %d is at %d and has not come past offset %d: %d to go", p.number, asOf.Position, offset, offset+1-asOf.Position), asOf}
}

// look asks the prober for a look at the loop now.
func (v *View) look() {
	select {
	case v.hurry <- struct{}{}:
	default: // one is due that begins after this
	}
}

// settle notes that every event before an input offset was applied or refused, wherever its ID lives.
func (p *partition) settle(next int64) {
	if next <= p.settled.Load() {
		return
	}
	p.settled.Store(next)
	p.movedMu.Lock()
	defer p.movedMu.Unlock()
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// moves is closed when settled has grown. Ask for it before looking.
func (p *partition) moves() <-chan struct{} {
	p.movedMu.Lock()
	defer p.movedMu.Unlock()
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	return p.moved
}
