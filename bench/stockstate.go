package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lovoo/goka"
	"github.com/tidemark/tidemark/codecs"
)

const (
	totalFailures  = "failures_10m"
	totalMax       = "max"
	totalMin       = "min"
	totalSum       = "sum"
	flagBruteForce = "brute_force"
)

// eventPaths are the fields that the job reads.
var eventPaths = []codecs.Path{{"id"}, {"type"}, {"time"}, {"value"}}

// stockEvent is an event as the handwritten processor takes it.
type stockEvent struct {
	id     string
	timeMs int64
	failed bool
	value  codecs.Decimal
}

var eventPool = sync.Pool{New: func() any { return new(stockEvent) }}

// stockState is the handwritten state of an ID: what the job file's totals and flag come to.
type stockState struct {
	count           uint64
	firstMs, lastMs int64
	sum, min, max   codecs.Decimal
	window          []int64 // times of the failures of the last ten minutes, ascending
	flag            codecs.Flag
}

// fold counts an event in, and tells whether it raised the flag.
func (s *stockState) fold(e *stockEvent) (bool, error) {
	if err := s.sum.Add(&s.sum, &e.value); err != nil {
		return false, err
	}
	if s.count == 0 || e.value.Cmp(&s.min) < 0 {
		s.min = e.value
	}
	if s.count == 0 || e.value.Cmp(&s.max) > 0 {
		s.max = e.value
	}
	if s.count == 0 || e.timeMs < s.firstMs {
		s.firstMs = e.timeMs
	}
	if s.count == 0 || e.timeMs > s.lastMs {
		s.lastMs = e.timeMs
	}
	s.count++
	if e.failed {
		at := len(s.window)
		for at > 0 && s.window[at-1] > e.timeMs {
			at--
		}
		s.window = append(s.window, 0)
		copy(s.window[at+1:], s.window[at:])
		s.window[at] = e.timeMs
	}
	old := 0
	for old < len(s.window) && s.window[old] < s.lastMs-windowMs {
		old++
	}
	s.window = s.window[old:]
	if s.flag.Raised || len(s.window) < raiseAt {
		return false, nil
	}
	s.flag.Raised, s.flag.Why.TimeMs = true, e.timeMs
	return true, nil
}

// change notes where the flag was raised, and gives the record for the topic of flags.
func (s *stockState) change(id string, ctx goka.Context) []byte {
	why := &s.flag.Why
	why.Topic, why.Partition, why.Offset = string(ctx.Topic()), ctx.Partition(), ctx.Offset()
	c := codecs.FlagChange{ID: id, Flag: flagBruteForce, Raised: true, Why: *why, Version: s.count}
	_, value := c.Encode()
	return value
}

// bytesCodec leaves bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Encode(v any) ([]byte, error)     { return v.([]byte), nil }
func (bytesCodec) Decode(b []byte) (any, error)     { return b, nil }
func errType(v any) error                           { return fmt.Errorf("a value of type %T", v) }
func fromTime(text string) (ms int64, err error)    { return codecs.ParseTime([]byte(text)) }
func (s *stockState) windowBytes(dst []byte) []byte { return appendTimes(dst, s.window) }

// eventCodec decodes with Tidemark's own decoder. Goka calls it from many goroutines.
type eventCodec struct{ decoders sync.Pool }

type pooledDecoder struct {
	decoder *codecs.EventDecoder
	slots   []codecs.Value
}

func newEventCodec() *eventCodec {
	return &eventCodec{decoders: sync.Pool{New: func() any {
		return &pooledDecoder{decoder: codecs.NewEventDecoder(eventPaths), slots: make([]codecs.Value, len(eventPaths))}
	}}}
}

func (c *eventCodec) Encode(v any) ([]byte, error) { return nil, errType(v) }

func (c *eventCodec) Decode(data []byte) (any, error) {
	d := c.decoders.Get().(*pooledDecoder)
	defer c.decoders.Put(d)
	if err := d.decoder.Decode(data, d.slots); err != nil {
		return nil, err
	}
	id, kind, at, value := &d.slots[0], &d.slots[1], &d.slots[2], &d.slots[3]
	if id.Kind != codecs.String || kind.Kind != codecs.String || at.Kind != codecs.String || value.Kind != codecs.Number {
		return nil, errors.New("a field of the wrong type")
	}
	e := eventPool.Get().(*stockEvent)
	e.id, e.failed, e.value = id.Str, kind.Str == typeFailed, value.Num
	var err error
	e.timeMs, err = fromTime(at.Str)
	return e, err
}

// stateCodec keeps the state in the bytes that Tidemark keeps it in; the window takes the private part.
type stateCodec struct{ schema *codecs.Schema }

func (c *stateCodec) Encode(v any) ([]byte, error) {
	s, ok := v.(*stockState)
	if !ok {
		return nil, errType(v)
	}
	number := func(d codecs.Decimal) codecs.Value { return codecs.Value{Kind: codecs.Number, Num: d} }
	var scratch [64]byte
	out := codecs.State{
		Version: s.count, Count: s.count, FirstMs: s.firstMs, LastMs: s.lastMs,
		Totals:  []codecs.Value{number(codecs.DecimalFromInt64(int64(len(s.window)))), number(s.max), number(s.min), number(s.sum)},
		Flags:   []codecs.Flag{s.flag},
		Working: s.windowBytes(scratch[:0]),
	}
	return out.AppendBinary(nil, c.schema), nil
}

func (c *stateCodec) Decode(data []byte) (any, error) {
	var in codecs.State
	if err := in.UnmarshalBinary(data, c.schema); err != nil {
		return nil, err
	}
	s := &stockState{count: in.Count, firstMs: in.FirstMs, lastMs: in.LastMs, flag: in.Flags[0]}
	s.max, s.min, s.sum = in.Totals[1].Num, in.Totals[2].Num, in.Totals[3].Num
	var err error
	s.window, err = parseTimes(in.Working)
	return s, err
}

// appendTimes writes ascending times as differences.
func appendTimes(dst []byte, times []int64) []byte {
	last := int64(0)
	for _, t := range times {
		dst = binary.AppendVarint(dst, t-last)
		last = t
	}
	return dst
}

func parseTimes(b []byte) ([]int64, error) {
	var times []int64
	last := int64(0)
	for len(b) > 0 {
		d, n := binary.Varint(b)
		if n <= 0 {
			return nil, errors.New("times that do not end")
		}
		last += d
		times, b = append(times, last), b[n:]
	}
	return times, nil
}

// jsonEventCodec decodes as most programs do.
type jsonEventCodec struct{}

type jsonEvent struct {
	ID    string      `json:"id"`
	Type  string      `json:"type"`
	Time  time.Time   `json:"time"`
	Value json.Number `json:"value"`
}

func (jsonEventCodec) Encode(v any) ([]byte, error) { return nil, errType(v) }

func (jsonEventCodec) Decode(data []byte) (any, error) {
	var in jsonEvent
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	e := eventPool.Get().(*stockEvent)
	e.id, e.failed, e.timeMs = in.ID, in.Type == typeFailed, in.Time.UnixMilli()
	var err error
	e.value, err = codecs.ParseDecimal([]byte(in.Value))
	return e, err
}

// jsonStateCodec keeps the state as JSON, with decimals as text.
type jsonStateCodec struct{}

type jsonState struct {
	Count   uint64      `json:"count"`
	FirstMs int64       `json:"first_ms"`
	LastMs  int64       `json:"last_ms"`
	Sum     json.Number `json:"sum"`
	Min     json.Number `json:"min"`
	Max     json.Number `json:"max"`
	Window  []int64     `json:"window"`
	Raised  bool        `json:"raised"`
	Why     codecs.Why  `json:"why"`
}

func (jsonStateCodec) Encode(v any) ([]byte, error) {
	s, ok := v.(*stockState)
	if !ok {
		return nil, errType(v)
	}
	number := func(d *codecs.Decimal) json.Number { return json.Number(d.String()) }
	return json.Marshal(&jsonState{
		Count: s.count, FirstMs: s.firstMs, LastMs: s.lastMs, Sum: number(&s.sum), Min: number(&s.min), Max: number(&s.max),
		Window: s.window, Raised: s.flag.Raised, Why: s.flag.Why,
	})
}

func (jsonStateCodec) Decode(data []byte) (any, error) {
	var in jsonState
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	s := &stockState{count: in.Count, firstMs: in.FirstMs, lastMs: in.LastMs, window: in.Window}
	s.flag = codecs.Flag{Raised: in.Raised, Why: in.Why}
	var errs [3]error
	s.sum, errs[0] = codecs.ParseDecimal([]byte(in.Sum))
	s.min, errs[1] = codecs.ParseDecimal([]byte(in.Min))
	s.max, errs[2] = codecs.ParseDecimal([]byte(in.Max))
	return s, errors.Join(errs[:]...)
}
