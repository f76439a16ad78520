package codecs

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one decoded field of a Protobuf message.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	value uint64
	bytes []byte
}

// eachField walks a message. Fields of the two types that we use are decoded, others skipped.
func eachField(b []byte, use func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
		}
		b = b[n:]
		if err := use(f); err != nil {
			return err
		}
	}
	return nil
}

func (f field) want(typ protowire.Type) error {
	if f.typ != typ {
		return fmt.Errorf("%w: field %d has wire type %d, want %d", ErrMalformed, f.num, f.typ, typ)
	}
	return nil
}

func (f field) uint() (uint64, error) { return f.value, f.want(protowire.VarintType) }

func (f field) int() (int64, error) {
	return protowire.DecodeZigZag(f.value), f.want(protowire.VarintType)
}

func (f field) text() (string, error) {
	if err := f.want(protowire.BytesType); err != nil {
		return "", err
	}
	if !utf8.Valid(f.bytes) {
		return "", fmt.Errorf("%w: field %d is not UTF-8", ErrMalformed, f.num)
	}
	return string(f.bytes), nil
}

func (f field) message(use func(field) error) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	return eachField(f.bytes, use)
}

// The append functions leave zero values out, so that there is one encoding of each message.

func appendUint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

func appendInt(dst []byte, num protowire.Number, v int64) []byte {
	return appendUint(dst, num, protowire.EncodeZigZag(v))
}

// appendMessage appends a field whose bytes body appends. Its length is known only afterwards: one byte
// is kept for it, and what is longer than 127 bytes is moved.
func appendMessage(dst []byte, num protowire.Number, body func([]byte) []byte) []byte {
	dst = append(protowire.AppendTag(dst, num, protowire.BytesType), 0)
	start := len(dst)
	dst = body(dst)
	size := len(dst) - start
	if size < 0x80 {
		dst[start-1] = byte(size)
		return dst
	}
	extra := protowire.SizeVarint(uint64(size)) - 1
	for range extra {
		dst = append(dst, 0)
	}
	copy(dst[start+extra:], dst[start:start+size])
	protowire.AppendVarint(dst[:start-1], uint64(size))
	return dst
}
