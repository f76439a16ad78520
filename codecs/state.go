package codecs

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemark/tidemark/internal/wire"
)

// stateFormat is the version that this binary writes, and the only one that it reads.
const stateFormat = 1

// State is what the table holds of one ID. Totals stand as they are shown, so that a reader needs no
// rules; Working is the rules' own affair.
type State struct {
	Version, Count, Late uint64
	FirstMs, LastMs      int64
	Totals               []Value // by schema index: Null, Number, String, Bool or List
	Flags                []Flag  // by schema index
	Working              []byte
}

// Flag is one flag of a state; Why means something only while it is raised.
type Flag struct {
	Raised bool
	Why    Why
}

// Why is the event that changed a flag, and the rules by which it did.
type Why struct {
	TimeMs    int64
	Topic     string
	Partition int32
	Offset    int64
	Rules     string // digest
}

// Field numbers of tidemark.proto, message State and the messages in it.
const (
	stateFormatField  protowire.Number = 1
	stateVersionField protowire.Number = 2
	stateCountField   protowire.Number = 3
	stateFirstField   protowire.Number = 4
	stateLastField    protowire.Number = 5
	stateTotalField   protowire.Number = 6
	stateFlagField    protowire.Number = 7
	stateLateField    protowire.Number = 8
	stateWorkingField protowire.Number = 15

	flagIndexField     protowire.Number = 1
	flagTimeField      protowire.Number = 2
	flagTopicField     protowire.Number = 3
	flagPartitionField protowire.Number = 4
	flagOffsetField    protowire.Number = 5
	flagRulesField     protowire.Number = 6

	valueBoolField protowire.Number = 1
	valueCoefField protowire.Number = 2
	valueExpField  protowire.Number = 3
	valueBigField  protowire.Number = 4
	valueTextField protowire.Number = 5
	valueListField protowire.Number = 6
	valueItemField protowire.Number = 1
)

// AppendBinary appends the state in the format of tidemark.proto: the same state always gives the same
// bytes. A flag's topic and rules are left out where they are the schema's. The numbers of totals and
// flags must be the schema's.
func (s *State) AppendBinary(dst []byte, sc *Schema) []byte {
	if len(s.Totals) != len(sc.Totals) || len(s.Flags) != len(sc.Flags) {
		panic(fmt.Sprintf("codecs: state of %d totals and %d flags, the schema has %d and %d", len(s.Totals), len(s.Flags), len(sc.Totals), len(sc.Flags)))
	}
	dst = wire.AppendUint(dst, stateFormatField, stateFormat)
	dst = wire.AppendUint(dst, stateVersionField, s.Version)
	dst = wire.AppendUint(dst, stateCountField, s.Count)
	dst = wire.AppendInt(dst, stateFirstField, s.FirstMs)
	dst = wire.AppendInt(dst, stateLastField, s.LastMs)
	for i := range s.Totals {
		dst = wire.AppendMessage(dst, stateTotalField, func(b []byte) []byte { return s.Totals[i].appendBinary(b) })
	}
	for i := range s.Flags {
		if s.Flags[i].Raised {
			dst = wire.AppendMessage(dst, stateFlagField, func(b []byte) []byte { return s.Flags[i].Why.appendBinary(b, i, sc) })
		}
	}
	dst = wire.AppendUint(dst, stateLateField, s.Late)
	if len(s.Working) > 0 {
		dst = protowire.AppendTag(dst, stateWorkingField, protowire.BytesType)
		dst = protowire.AppendBytes(dst, s.Working)
	}
	return dst
}

func (w *Why) appendBinary(dst []byte, index int, sc *Schema) []byte {
	dst = wire.AppendUint(dst, flagIndexField, uint64(index))
	dst = wire.AppendInt(dst, flagTimeField, w.TimeMs)
	if w.Topic != sc.InputTopic { // written even if empty: absent is the schema's
		dst = protowire.AppendString(protowire.AppendTag(dst, flagTopicField, protowire.BytesType), w.Topic)
	}
	dst = wire.AppendUint(dst, flagPartitionField, uint64(w.Partition))
	dst = wire.AppendUint(dst, flagOffsetField, uint64(w.Offset))
	if w.Rules != sc.Digest {
		dst = protowire.AppendString(protowire.AppendTag(dst, flagRulesField, protowire.BytesType), w.Rules)
	}
	return dst
}

// appendBinary: a number is a coefficient and a power of ten without trailing zeros, or text where that
// is too small; null is the empty message.
func (v *Value) appendBinary(dst []byte) []byte {
	switch v.Kind {
	case Bool:
		dst = protowire.AppendTag(dst, valueBoolField, protowire.VarintType)
		return protowire.AppendVarint(dst, protowire.EncodeBool(v.Bool))
	case Number:
		r := v.Num.reduced()
		if r.big != nil {
			return wire.AppendMessage(dst, valueBigField, r.AppendText)
		}
		dst = protowire.AppendTag(dst, valueCoefField, protowire.VarintType)
		dst = protowire.AppendVarint(dst, protowire.EncodeZigZag(r.coef))
		return wire.AppendInt(dst, valueExpField, int64(r.exp))
	case String:
		dst = protowire.AppendTag(dst, valueTextField, protowire.BytesType)
		return protowire.AppendString(dst, v.Str)
	case List:
		return wire.AppendMessage(dst, valueListField, func(b []byte) []byte {
			for i := range v.Items {
				b = wire.AppendMessage(b, valueItemField, v.Items[i].appendBinary)
			}
			return b
		})
	case Null:
		return dst
	}
	panic("codecs: a total cannot be a " + v.Kind.String())
}

// UnmarshalBinary reads what AppendBinary wrote with the same schema. An unknown format version is
// ErrFormat, anything else that is no state ErrMalformed; unknown fields are passed over. The state
// keeps nothing of b.
func (s *State) UnmarshalBinary(b []byte, sc *Schema) error {
	*s = State{Totals: s.Totals[:0], Flags: s.Flags[:0]}
	for range sc.Flags {
		s.Flags = append(s.Flags, Flag{})
	}
	format := uint64(0)
	err := wire.Each(b, func(f wire.Field) (err error) {
		switch f.Num {
		case stateFormatField:
			format, err = f.Uint(64)
			if err == nil && format != stateFormat {
				err = fmt.Errorf("%w: state of format %d, this binary knows %d", ErrFormat, format, stateFormat)
			}
		case stateVersionField:
			s.Version, err = f.Uint(64)
		case stateCountField:
			s.Count, err = f.Uint(64)
		case stateFirstField:
			s.FirstMs, err = f.Int(63)
		case stateLastField:
			s.LastMs, err = f.Int(63)
		case stateTotalField:
			var v Value
			err = f.Message(func(f wire.Field) error { return v.setBinary(f, 0) })
			s.Totals = append(s.Totals, v)
		case stateFlagField:
			err = s.addFlag(f, sc)
		case stateLateField:
			s.Late, err = f.Uint(64)
		case stateWorkingField:
			if err = f.Want(protowire.BytesType); err == nil {
				s.Working = append([]byte(nil), f.Bytes...)
			}
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("state: %w", err)
	case format == 0:
		return fmt.Errorf("state: %w: no format version", ErrMalformed)
	case len(s.Totals) != len(sc.Totals):
		return fmt.Errorf("state: %w: %d totals, the schema has %d", ErrMalformed, len(s.Totals), len(sc.Totals))
	}
	return nil
}

func (s *State) addFlag(f wire.Field, sc *Schema) error {
	index := uint64(0)
	w := Why{Topic: sc.InputTopic, Rules: sc.Digest}
	err := f.Message(func(f wire.Field) (err error) {
		var n uint64
		switch f.Num {
		case flagIndexField:
			index, err = f.Uint(64)
		case flagTimeField:
			w.TimeMs, err = f.Int(63)
		case flagTopicField:
			w.Topic, err = f.Text()
		case flagPartitionField:
			n, err = f.Uint(64)
			w.Partition = int32(n)
			if int64(w.Partition) != int64(n) {
				return fmt.Errorf("%w: partition %d", ErrMalformed, int64(n))
			}
		case flagOffsetField:
			n, err = f.Uint(64)
			w.Offset = int64(n)
		case flagRulesField:
			w.Rules, err = f.Text()
		}
		return err
	})
	if err != nil {
		return err
	}
	if index >= uint64(len(s.Flags)) {
		return fmt.Errorf("%w: flag %d, the schema has %d", ErrMalformed, index, len(s.Flags))
	}
	s.Flags[index] = Flag{Raised: true, Why: w}
	return nil
}

func (v *Value) setBinary(f wire.Field, depth int) (err error) {
	switch f.Num {
	case valueBoolField:
		var n uint64
		n, err = f.Uint(64)
		v.Kind, v.Bool = Bool, n != 0
	case valueCoefField:
		v.Kind, v.Num.big = Number, nil
		v.Num.coef, err = f.Int(63)
	case valueExpField:
		var exp int64
		exp, err = f.Int(63)
		if exp < -storedMax || exp > storedMax {
			return fmt.Errorf("%w: exponent %d", ErrMalformed, exp)
		}
		v.Num.exp = int32(exp)
	case valueBigField:
		v.Kind = Number
		if err = f.Want(protowire.BytesType); err == nil {
			if v.Num, err = ParseStoredDecimal(f.Bytes); err != nil {
				err = fmt.Errorf("%w: %w", ErrMalformed, err)
			}
		}
	case valueTextField:
		v.Kind = String
		v.Str, err = f.Text()
	case valueListField:
		v.Kind = List
		if depth++; depth > depthMax {
			return fmt.Errorf("%w: lists nested deeper than %d", ErrMalformed, depthMax)
		}
		err = f.Message(func(f wire.Field) error {
			if f.Num != valueItemField {
				return nil
			}
			var item Value
			err := f.Message(func(f wire.Field) error { return item.setBinary(f, depth) })
			v.Items = append(v.Items, item)
			return err
		})
	}
	return err
}

// AppendJSON appends the state of id as one line of JSON without the line's end: the proto3 mapping, in
// which 64-bit integers and decimals are strings and null totals are present. Only raised flags stand
// under flags.
func (s *State) AppendJSON(dst []byte, id string, sc *Schema) []byte {
	return append(s.AppendJSONFields(append(dst, '{'), id, sc), '}')
}

// AppendJSONFields appends what AppendJSON does without the braces, for answers that say more.
func (s *State) AppendJSONFields(dst []byte, id string, sc *Schema) []byte {
	dst = AppendJSONString(append(dst, `"id":`...), id)
	dst = strconv.AppendUint(append(dst, `,"version":"`...), s.Version, 10)
	dst = strconv.AppendUint(append(dst, `","count":"`...), s.Count, 10)
	dst = AppendTime(append(dst, `","first_time":"`...), s.FirstMs)
	dst = AppendTime(append(dst, `","last_time":"`...), s.LastMs)
	dst = append(dst, `","totals":{`...)
	for i := range s.Totals {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendJSONString(dst, sc.Totals[i]), ':')
		dst = s.Totals[i].AppendJSON(dst)
	}
	dst = append(dst, `},"flags":{`...)
	first := true
	for i := range s.Flags {
		if !s.Flags[i].Raised {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(AppendJSONString(dst, sc.Flags[i]), ':')
		dst = s.Flags[i].Why.AppendJSON(dst)
	}
	return append(dst, '}')
}

// AppendJSON appends the event that changed a flag.
func (w *Why) AppendJSON(dst []byte) []byte {
	dst = AppendTime(append(dst, `{"time":"`...), w.TimeMs)
	dst = AppendJSONString(append(dst, `","topic":`...), w.Topic)
	dst = strconv.AppendInt(append(dst, `,"partition":`...), int64(w.Partition), 10)
	dst = strconv.AppendInt(append(dst, `,"offset":"`...), w.Offset, 10)
	dst = AppendJSONString(append(dst, `","rules":`...), w.Rules)
	return append(dst, '}')
}
