package view

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/wire"
)

// answer is what a read gives, ready to be written in the two encodings of view.proto's messages. Both are written from the
// states themselves, without building the messages: a batch is mostly that.
type answer interface {
	// appendJSON appends the proto3 mapping, with the names of view.proto and null for what is absent.
	appendJSON(dst []byte) []byte
	appendProto(dst []byte) []byte
}

// oneAnswer is a GetResponse.
type oneAnswer struct {
	schema *codecs.Schema
	id     string
	state  codecs.State
	asOf   AsOf
}

func (a *oneAnswer) appendJSON(dst []byte) []byte {
	return appendOneEnd(a.state.AppendJSON(append(dst, `{"state":`...), a.id, a.schema), &a.asOf)
}

func appendOneEnd(dst []byte, asOf *AsOf) []byte {
	dst = asOf.appendJSON(append(dst, `,"as_of":`...), false)
	return append(appendAges(append(dst, ','), asOf.Age, asOf.TableAge), '}')
}

func (a *oneAnswer) appendProto(dst []byte) []byte {
	dst = appendState(dst, 1, a.id, &a.state, a.schema)
	dst = wire.AppendMessage(dst, 2, func(b []byte) []byte { return a.asOf.appendProto(b, false) })
	return appendProtoAges(dst, 3, a.asOf.Age, a.asOf.TableAge)
}

// batchAnswer is a BatchGetResponse.
type batchAnswer struct {
	schema *codecs.Schema
	ids    []string
	states []*codecs.State
	asOf   []AsOf
}

func (a *batchAnswer) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"results":[`...)
	for i, id := range a.ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(codecs.AppendJSONString(append(dst, `{"id":`...), id), `,"state":`...)
		if a.states[i] == nil {
			dst = append(dst, `null}`...)
		} else {
			dst = append(a.states[i].AppendJSON(dst, id, a.schema), '}')
		}
	}
	return appendBatchEnd(dst, a.asOf)
}

func appendBatchEnd(dst []byte, asOf []AsOf) []byte {
	return append(appendFreshness(append(dst, `],`...), asOf), '}')
}

func (a *batchAnswer) appendProto(dst []byte) []byte {
	for i, id := range a.ids {
		dst = wire.AppendMessage(dst, 1, func(b []byte) []byte {
			b = wire.AppendText(b, 1, id)
			if a.states[i] == nil {
				return b
			}
			return appendState(b, 2, id, a.states[i], a.schema)
		})
	}
	return appendProtoFreshness(dst, 2, a.asOf)
}

// pageAnswer is a ListResponse, and a ListByFlagResponse.
type pageAnswer struct {
	schema  *codecs.Schema
	entries []Entry
	next    string
	asOf    []AsOf
}

func (a *pageAnswer) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"states":[`...)
	for i := range a.entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = a.entries[i].State.AppendJSON(dst, a.entries[i].ID, a.schema)
	}
	dst = append(codecs.AppendJSONString(append(dst, `],"next_page_token":`...), a.next), ',')
	return append(appendFreshness(dst, a.asOf), '}')
}

func (a *pageAnswer) appendProto(dst []byte) []byte {
	for i := range a.entries {
		dst = appendState(dst, 1, a.entries[i].ID, &a.entries[i].State, a.schema)
	}
	return appendProtoFreshness(wire.AppendText(dst, 2, a.next), 3, a.asOf)
}

// appendJSON appends an AsOf, and with ages a Freshness.
func (a *AsOf) appendJSON(dst []byte, ages bool) []byte {
	dst = strconv.AppendInt(append(dst, `{"partition":`...), int64(a.Partition), 10)
	dst = strconv.AppendInt(append(dst, `,"position":"`...), a.Position, 10)
	dst = append(dst, `","time":`...)
	if a.TimeMs == 0 {
		dst = append(dst, `null`...)
	} else {
		dst = append(codecs.AppendTime(append(dst, '"'), a.TimeMs), '"')
	}
	dst = append(strconv.AppendUint(append(dst, `,"commit":"`...), a.Commit, 10), '"')
	if ages {
		dst = appendAges(append(dst, ','), a.Age, a.TableAge)
	}
	return append(dst, '}')
}

// appendFreshness appends the partitions of an answer and the greatest of their ages.
func appendFreshness(dst []byte, asOf []AsOf) []byte {
	dst = append(dst, `"as_of":[`...)
	for i := range asOf {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = asOf[i].appendJSON(dst, true)
	}
	age, tableAge := oldest(asOf)
	return appendAges(append(dst, `],`...), age, tableAge)
}

func appendAges(dst []byte, age, tableAge time.Duration) []byte {
	dst = appendAge(append(dst, `"age":`...), age)
	return appendAge(append(dst, `,"table_age":`...), tableAge)
}

// shownAge rounds to milliseconds: never younger than it is.
func shownAge(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

// appendAge is the mapping of google.protobuf.Duration; null is not known.
func appendAge(dst []byte, d time.Duration) []byte {
	if d == NotKnown {
		return append(dst, `null`...)
	}
	ms := shownAge(d).Milliseconds()
	dst = strconv.AppendInt(append(dst, '"'), ms/1000, 10)
	if ms %= 1000; ms != 0 {
		dst = append(dst, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	}
	return append(dst, `s"`...)
}

// appendState appends a State as the field num. The numbers are those of view.proto; a test holds the two together.
func appendState(dst []byte, num protowire.Number, id string, s *codecs.State, sc *codecs.Schema) []byte {
	return wire.AppendMessage(dst, num, func(b []byte) []byte {
		b = wire.AppendText(b, 1, id)
		b = wire.AppendUint(b, 2, s.Version)
		b = wire.AppendUint(b, 3, s.Count)
		b = appendSeconds(b, 4, s.FirstMs)
		b = appendSeconds(b, 5, s.LastMs)
		for i := range s.Totals {
			b = wire.AppendMessage(b, 6, func(b []byte) []byte {
				b = wire.AppendText(b, 1, sc.Totals[i])
				return wire.AppendMessage(b, 2, func(b []byte) []byte { return appendValue(b, &s.Totals[i]) })
			})
		}
		for i := range s.Flags {
			if !s.Flags[i].Raised {
				continue
			}
			b = wire.AppendMessage(b, 7, func(b []byte) []byte {
				b = wire.AppendText(b, 1, sc.Flags[i])
				return wire.AppendMessage(b, 2, func(b []byte) []byte { return appendWhy(b, &s.Flags[i].Why) })
			})
		}
		return b
	})
}

func appendWhy(dst []byte, w *codecs.Why) []byte {
	dst = appendSeconds(dst, 1, w.TimeMs)
	dst = wire.AppendText(dst, 2, w.Topic)
	dst = wire.AppendUint(dst, 3, uint64(w.Partition))
	dst = wire.AppendUint(dst, 4, uint64(w.Offset))
	return wire.AppendText(dst, 5, w.Rules)
}

// appendValue appends a google.protobuf.Value: null, a bool, a list, or a string; decimals are strings.
func appendValue(dst []byte, v *codecs.Value) []byte {
	switch v.Kind {
	case codecs.Null:
		return protowire.AppendVarint(protowire.AppendTag(dst, 1, protowire.VarintType), 0)
	case codecs.Number:
		return wire.AppendMessage(dst, 3, v.Num.AppendText)
	case codecs.String:
		return protowire.AppendString(protowire.AppendTag(dst, 3, protowire.BytesType), v.Str)
	case codecs.Bool:
		return protowire.AppendVarint(protowire.AppendTag(dst, 4, protowire.VarintType), protowire.EncodeBool(v.Bool))
	case codecs.List:
		return wire.AppendMessage(dst, 6, func(b []byte) []byte {
			for i := range v.Items {
				b = wire.AppendMessage(b, 1, func(b []byte) []byte { return appendValue(b, &v.Items[i]) })
			}
			return b
		})
	}
	panic("view: a total cannot be a " + v.Kind.String())
}

// appendProto appends an AsOf's fields, and with ages a Freshness's.
func (a *AsOf) appendProto(dst []byte, ages bool) []byte {
	dst = wire.AppendUint(dst, 1, uint64(a.Partition))
	dst = wire.AppendUint(dst, 2, uint64(a.Position))
	if a.TimeMs != 0 {
		dst = appendSeconds(dst, 3, a.TimeMs)
	}
	dst = wire.AppendUint(dst, 4, a.Commit)
	if ages {
		dst = appendProtoAges(dst, 5, a.Age, a.TableAge)
	}
	return dst
}

// appendProtoFreshness appends the partitions of an answer as the field num, and the greatest of their ages as the next two.
func appendProtoFreshness(dst []byte, num protowire.Number, asOf []AsOf) []byte {
	for i := range asOf {
		dst = wire.AppendMessage(dst, num, func(b []byte) []byte { return asOf[i].appendProto(b, true) })
	}
	age, tableAge := oldest(asOf)
	return appendProtoAges(dst, num+1, age, tableAge)
}

func appendProtoAges(dst []byte, num protowire.Number, age, tableAge time.Duration) []byte {
	return appendProtoAge(appendProtoAge(dst, num, age), num+1, tableAge)
}

func appendProtoAge(dst []byte, num protowire.Number, d time.Duration) []byte {
	if d == NotKnown {
		return dst
	}
	return appendSeconds(dst, num, shownAge(d).Milliseconds())
}

// appendSeconds appends milliseconds as a google.protobuf.Timestamp or Duration: seconds, rounded down, and nanoseconds.
func appendSeconds(dst []byte, num protowire.Number, ms int64) []byte {
	seconds, rest := ms/1000, ms%1000
	if rest < 0 {
		seconds, rest = seconds-1, rest+1000
	}
	return wire.AppendMessage(dst, num, func(b []byte) []byte {
		b = wire.AppendUint(b, 1, uint64(seconds))
		return wire.AppendUint(b, 2, uint64(rest*1_000_000))
	})
}
