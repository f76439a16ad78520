// Package wire reads and writes the parts of Protobuf that stored bytes are made of: varints, zigzag varints and length-
// delimited fields, by protowire. Zero values are left out and fields go in order of their numbers, so that a message has one
// encoding; unknown fields are passed over, so that older binaries read what newer ones add.
package wire

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

var (
	// ErrFormat says that bytes carry a format version that this binary does not know: they were written by a newer one.
	ErrFormat = errors.New("unknown format version")
	// ErrMalformed says that bytes claim a known format and break it, or are none of ours.
	ErrMalformed = errors.New("malformed")
)

// Field is one decoded field of a message: Varint or Bytes, by its Type. Bytes aliases the message.
type Field struct {
	Num    protowire.Number
	Type   protowire.Type
	Varint uint64
	Bytes  []byte
}

// Each calls use for each field. Fields of other types than varint and bytes carry their number alone. What is no message
// is ErrMalformed; an error of use ends the walk.
func Each(b []byte, use func(Field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		f := Field{Num: num, Type: typ}
		switch typ {
		case protowire.VarintType:
			f.Varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.Bytes, n = protowire.ConsumeBytes(b)
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

// Want requires a type.
func (f Field) Want(typ protowire.Type) error {
	if f.Type != typ {
		return fmt.Errorf("%w: field %d has wire type %d, want %d", ErrMalformed, f.Num, f.Type, typ)
	}
	return nil
}

// Uint is a number that fits in bits.
func (f Field) Uint(bits int) (uint64, error) {
	if err := f.Want(protowire.VarintType); err != nil {
		return 0, err
	}
	if bits < 64 && f.Varint>>bits != 0 {
		return 0, fmt.Errorf("%w: field %d is too large: %d", ErrMalformed, f.Num, f.Varint)
	}
	return f.Varint, nil
}

// Int undoes AppendInt's zigzag; the magnitude must fit in bits.
func (f Field) Int(bits int) (int64, error) {
	if err := f.Want(protowire.VarintType); err != nil {
		return 0, err
	}
	v := protowire.DecodeZigZag(f.Varint)
	if bits < 63 && (v >= 1<<bits || v < -1<<bits) {
		return 0, fmt.Errorf("%w: field %d is too large: %d", ErrMalformed, f.Num, v)
	}
	return v, nil
}

// Text is UTF-8.
func (f Field) Text() (string, error) {
	if err := f.Want(protowire.BytesType); err != nil {
		return "", err
	}
	if !utf8.Valid(f.Bytes) {
		return "", fmt.Errorf("%w: field %d is not UTF-8", ErrMalformed, f.Num)
	}
	return string(f.Bytes), nil
}

// Message walks a message in the field.
func (f Field) Message(use func(Field) error) error {
	if err := f.Want(protowire.BytesType); err != nil {
		return err
	}
	return Each(f.Bytes, use)
}

// ID is 16 bytes, such as a topic's ID.
func (f Field) ID() (id [16]byte, err error) {
	if err := f.Want(protowire.BytesType); err != nil {
		return id, err
	}
	if len(f.Bytes) != len(id) {
		return id, fmt.Errorf("%w: field %d is %d bytes, want %d", ErrMalformed, f.Num, len(f.Bytes), len(id))
	}
	return [16]byte(f.Bytes), nil
}

// Format requires the version that this binary knows; another is ErrFormat.
func (f Field) Format(what string, known uint64) error {
	v, err := f.Uint(64)
	if err != nil {
		return err
	}
	if v != known {
		return fmt.Errorf("%w: %s of format %d, this binary knows %d", ErrFormat, what, v, known)
	}
	return nil
}

// AppendUint appends a number, if it is not zero.
func AppendUint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

// AppendInt appends a signed number as zigzag (sint64), if it is not zero.
func AppendInt(dst []byte, num protowire.Number, v int64) []byte {
	return AppendUint(dst, num, protowire.EncodeZigZag(v))
}

// AppendText appends a text, if it is not empty.
func AppendText(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

// AppendID appends 16 bytes, if they are not all zero.
func AppendID(dst []byte, num protowire.Number, id [16]byte) []byte {
	if id == ([16]byte{}) {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), id[:])
}

// AppendMessage appends a field whose bytes body appends. Its length is known only afterwards: one byte is kept for it, and
// what is longer than 127 bytes is moved.
func AppendMessage(dst []byte, num protowire.Number, body func([]byte) []byte) []byte {
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
