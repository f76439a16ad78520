package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// stream is a deterministic run of events. The same stream gives the same bytes on every machine.
type stream struct {
	Events int    `json:"events"`
	IDs    int    `json:"ids"`
	Seed   uint64 `json:"seed"`
	StepMs int64  `json:"step_ms"` // event time from one event to the next
	EachID bool   `json:"each_id"` // IDs in turn instead of at random

	FirstStep int64 `json:"first_step"` // steps before the first event
}

// event is one event before it is written down. Value is in hundredths.
type event struct {
	id     int
	failed bool
	timeMs int64
	value  int64
	filler uint64
}

const (
	windowMs = 10 * 60 * 1000 // of the one windowed total
	raiseAt  = 3              // failures within the window that raise the flag

	typeFailed   = "failed_password"
	typeAccepted = "accepted_password"
)

// firstTimeMs lies well in the past: no event may be ahead of its record's timestamp.
var firstTimeMs = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// each calls visit for every event in order, until it fails.
func (s stream) each(visit func(n int, e *event) error) error {
	rnd := rand.New(rand.NewPCG(s.Seed, 1))
	for n := range s.Events {
		e := event{
			id: n % s.IDs, failed: rnd.IntN(4) == 0, timeMs: firstTimeMs + (s.FirstStep+int64(n))*s.StepMs,
			value: rnd.Int64N(10_000), filler: rnd.Uint64() & 0xffff_ffff,
		}
		if !s.EachID {
			e.id = rnd.IntN(s.IDs)
		}
		if err := visit(n, &e); err != nil {
			return err
		}
	}
	return nil
}

func idText(id int) string { return fmt.Sprintf("u-%06d", id) }

// appendJSON writes the event as about 110 bytes of JSON.
func (e *event) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, idText(e.id)...)
	dst = append(dst, `","type":"`...)
	if e.failed {
		dst = append(dst, typeFailed...)
	} else {
		dst = append(dst, typeAccepted...)
	}
	dst = append(dst, `","time":"`...)
	dst = time.UnixMilli(e.timeMs).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","value":`...)
	dst = strconv.AppendInt(dst, e.value/100, 10)
	dst = append(dst, '.', byte('0'+e.value/10%10), byte('0'+e.value%10))
	dst = append(dst, `,"k":"`...)
	dst = strconv.AppendUint(dst, e.filler, 16)
	return append(dst, `"}`...)
}

// expected is what must be known of an ID in the end.
type expected struct {
	count, sum, min, max int64
	raised               bool
	failures             []int64 // times within the window
}

// expectation is computed while events are produced, with integers alone.
type expectation map[string]*expected

func (x expectation) add(e *event) {
	id := idText(e.id)
	w := x[id]
	if w == nil {
		w = &expected{min: e.value, max: e.value}
		x[id] = w
	}
	w.count++
	w.sum += e.value
	w.min, w.max = min(w.min, e.value), max(w.max, e.value)
	if e.failed {
		w.failures = append(w.failures, e.timeMs)
	}
	for len(w.failures) > 0 && w.failures[0] < e.timeMs-windowMs {
		w.failures = w.failures[1:]
	}
	w.raised = w.raised || len(w.failures) >= raiseAt
}

// decimalText writes hundredths in plain notation, without trailing zeros.
func decimalText(hundredths int64) string {
	text := strconv.FormatInt(hundredths/100, 10)
	switch rest := hundredths % 100; {
	case rest == 0:
		return text
	case rest%10 == 0:
		return fmt.Sprintf("%s.%d", text, rest/10)
	default:
		return fmt.Sprintf("%s.%02d", text, rest)
	}
}
