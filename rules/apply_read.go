package rules

import (
	"fmt"
	"unicode/utf8"
	"unsafe"

	"github.com/tidemark/tidemark/codecs"
)

// Record is one record of the input, or of the loop with the place that it came from.
type Record struct {
	Topic               string
	Partition           int32
	Offset, TimestampMs int64
	Key, Value          []byte // a nil Key is a null key, a nil Value a tombstone
}

// Refusal says why an event is not counted. Reason is one of the codes below or of codecs.EventError, and never changes
// its meaning; Detail is for people.
type Refusal struct{ Reason, Detail string }

func (r *Refusal) Error() string { return r.Reason + ": " + r.Detail }

// Reasons of a Refusal, besides those of codecs.EventError.
const (
	ReasonTombstone  = "tombstone"
	ReasonID         = "id"
	ReasonTime       = "time"
	ReasonMaxAhead   = "max_ahead"
	ReasonRule       = "rule"
	ReasonStateBytes = "state_bytes_max"
)

// IDBytesMax is the length of the longest ID.
const IDBytesMax = 1024

// Times an event can have: the years 0001 to 9999.
const (
	timeMinMs = -62135596800000
	timeMaxMs = 253402300799999
)

// Read takes the record's event up for Apply, and returns its ID, which may share the record's memory. rec must stay
// as it is until the next Read.
func (a *Applier) Read(rec *Record) (string, *Refusal) {
	a.rec, a.env.spent = rec, 0
	if rec.Value == nil {
		return "", &Refusal{ReasonTombstone, "the record has no value"}
	}
	if err := a.decoder.Decode(rec.Value, a.env.event); err != nil {
		return "", refusalOf(err)
	}
	id, refusal := a.readID(rec)
	if refusal != nil {
		return "", refusal
	}
	a.env.id = id
	ms, refusal := a.readTime(rec)
	if refusal != nil {
		return "", refusal
	}
	if rec.TimestampMs >= 0 && ms-rec.TimestampMs > a.rules.job.Input.MaxAheadMs {
		return "", &Refusal{ReasonMaxAhead, fmt.Sprintf("the event's time %s is ahead of the record's timestamp %s by more than max_ahead",
			codecs.AppendTime(nil, ms), codecs.AppendTime(nil, rec.TimestampMs))}
	}
	a.env.timeMs = ms
	return id, nil
}

func refusalOf(err error) *Refusal {
	if event, ok := err.(*codecs.EventError); ok {
		return &Refusal{event.Reason, event.Detail}
	}
	return &Refusal{"json", err.Error()}
}

func (a *Applier) readID(rec *Record) (string, *Refusal) {
	var id string
	if a.rules.id == nil {
		if rec.Key == nil {
			return "", &Refusal{ReasonID, "the record has no key"}
		}
		id = unsafe.String(unsafe.SliceData(rec.Key), len(rec.Key))
	} else {
		v, err := a.rules.id.value(a.env)
		switch {
		case err != nil:
			return "", &Refusal{ReasonID, err.Error()}
		case v.Kind == codecs.Null:
			return "", &Refusal{ReasonID, "the event has none"}
		case v.Kind != codecs.String:
			return "", &Refusal{ReasonID, "the ID is not text; string(…) around it in input.id makes it so"}
		}
		id = v.Str
	}
	switch {
	case id == "":
		return "", &Refusal{ReasonID, "the ID is empty"}
	case len(id) > IDBytesMax:
		return "", &Refusal{ReasonID, fmt.Sprintf("the ID is %d bytes long, more than %d", len(id), IDBytesMax)}
	case !utf8.ValidString(id):
		return "", &Refusal{ReasonID, "the ID is not UTF-8"}
	}
	return id, nil
}

var errTimeOutside = &Refusal{ReasonTime, "the time is outside the years 0001 to 9999"}

func (a *Applier) readTime(rec *Record) (int64, *Refusal) {
	if a.rules.time == nil {
		if rec.TimestampMs < 0 || rec.TimestampMs > timeMaxMs {
			return 0, &Refusal{ReasonTime, "the record's timestamp is missing or beyond the year 9999"}
		}
		return rec.TimestampMs, nil
	}
	v, err := a.rules.time.value(a.env)
	if err != nil {
		return 0, &Refusal{ReasonTime, err.Error()}
	}
	var ms int64
	switch v.Kind {
	case codecs.Time:
		ms = v.Int
	case codecs.String:
		if ms, err = codecs.ParseTime(unsafe.Slice(unsafe.StringData(v.Str), len(v.Str))); err != nil {
			return 0, &Refusal{ReasonTime, err.Error()}
		}
	case codecs.Number:
		whole, ok := v.Num.Floor(), false // as finer text is
		if ms, ok = whole.Int64(); !ok {
			return 0, errTimeOutside
		}
	case codecs.Null:
		return 0, &Refusal{ReasonTime, "the event has none"}
	default:
		return 0, &Refusal{ReasonTime, "a time must be RFC 3339 text or a number of epoch milliseconds"}
	}
	if ms < timeMinMs || ms > timeMaxMs {
		return 0, errTimeOutside
	}
	return ms, nil
}
