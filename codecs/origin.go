package codecs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Dead letters and re-keyed events are the original record with headers that say where it came from,
// behind the headers that it had. Every tool shows them as they are.
const (
	headerFormat    = "tidemark.format"
	headerReason    = "tidemark.reason"
	headerDetail    = "tidemark.detail"
	headerTopic     = "tidemark.topic"
	headerPartition = "tidemark.partition"
	headerOffset    = "tidemark.offset"
	headerTimestamp = "tidemark.timestamp"
	headerKey       = "tidemark.key" // of a re-keyed event that had one
	headerCutSize   = "tidemark.cut.size"
	headerCutSHA256 = "tidemark.cut.sha256"
	originFormat    = "1"
)

// CutBytes is what is kept of a value that is too large for the dead letters.
const CutBytes = 64 << 10

// DeadLetter is a record that was refused, as it arrived, with the reason.
type DeadLetter struct {
	Reason, Detail string
	Topic          string
	Partition      int32
	Offset         int64
	TimestampMs    int64
	Key, Value     []byte // nil where the record had none
	Headers        []Header

	// Set by DecodeDeadLetter where Value was cut.
	Cut       bool
	CutSize   int64
	CutSHA256 string
}

// Encode gives the record for the dead letters, RecordBytes of which is at most maxBytes. Beyond that the value is cut to
// its first 64 KiB and marked with its size and SHA-256; the key is cut to as much, and the headers that the record
// arrived with are left out where they are more than half of maxBytes.
func (d *DeadLetter) Encode(maxBytes int) (key, value []byte, headers []Header) {
	key, value = d.Key, d.Value
	headers = appendOrigin(d.Headers, d.Topic, d.Partition, d.Offset, d.TimestampMs)
	headers = append(headers, Header{headerReason, []byte(d.Reason)}, Header{headerDetail, []byte(d.Detail)})
	if RecordBytes(key, value, headers) <= maxBytes {
		return key, value, headers
	}
	sum := sha256.Sum256(value)
	if RecordBytes(nil, nil, headers) > maxBytes/2 { // what other programs put there is not the event
		headers = headers[len(d.Headers):]
	}
	headers = append(headers, Header{headerCutSize, strconv.AppendInt(nil, int64(len(value)), 10)},
		Header{headerCutSHA256, hex.AppendEncode(nil, sum[:])})
	return key[:min(len(key), CutBytes)], value[:min(len(value), CutBytes)], headers
}

// RecordBytes is the most that a record takes in a batch. Headers count by number too: an empty one takes two bytes, so
// millions of them are a large record that compresses to nothing.
func RecordBytes(key, value []byte, headers []Header) int {
	const varint, lengthsMax = 5, 64 // of one length; of what stands before the headers
	n := lengthsMax + len(key) + len(value)
	for i := range headers {
		n += len(headers[i].Key) + len(headers[i].Value) + 2*varint
	}
	return n
}

// DecodeDeadLetter reads what Encode gave.
func DecodeDeadLetter(key, value []byte, headers []Header) (*DeadLetter, error) {
	o, err := takeOrigin(headers)
	if err != nil {
		return nil, fmt.Errorf("dead letter: %w", err)
	}
	d := &DeadLetter{
		Topic: o.topic, Partition: o.partition, Offset: o.offset, TimestampMs: o.timestampMs,
		Key: key, Value: value, Headers: o.before,
		Reason: string(o.ours[headerReason]), Detail: string(o.ours[headerDetail]),
	}
	if size, ok := o.ours[headerCutSize]; ok {
		d.Cut, d.CutSHA256 = true, string(o.ours[headerCutSHA256])
		if d.CutSize, err = strconv.ParseInt(string(size), 10, 64); err != nil {
			return nil, fmt.Errorf("dead letter: %w: %w", ErrMalformed, err)
		}
	}
	return d, nil
}

// Rekeyed is an event on its way, through the loop, to the partition on which its ID lives. It carries
// its origin, for the rules go by that.
type Rekeyed struct {
	ID          string
	Topic       string
	Partition   int32
	Offset      int64
	TimestampMs int64
	Key, Value  []byte // as they arrived; a nil Key was null
	Headers     []Header
}

// Encode gives the record for the loop: the key is the ID.
func (r *Rekeyed) Encode() (key, value []byte, headers []Header) {
	headers = appendOrigin(r.Headers, r.Topic, r.Partition, r.Offset, r.TimestampMs)
	if r.Key != nil {
		headers = append(headers, Header{headerKey, r.Key})
	}
	return []byte(r.ID), r.Value, headers
}

// DecodeRekeyed reads what Encode gave.
func DecodeRekeyed(key, value []byte, headers []Header) (*Rekeyed, error) {
	o, err := takeOrigin(headers)
	if err != nil {
		return nil, fmt.Errorf("re-keyed event: %w", err)
	}
	r := &Rekeyed{
		ID: string(key), Topic: o.topic, Partition: o.partition, Offset: o.offset, TimestampMs: o.timestampMs,
		Value: value, Headers: o.before,
	}
	if original, ok := o.ours[headerKey]; ok {
		r.Key = original
		if r.Key == nil {
			r.Key = []byte{} // Kafka gives an empty header back as nil
		}
	}
	return r, nil
}

func appendOrigin(headers []Header, topic string, partition int32, offset, timestampMs int64) []Header {
	out := make([]Header, 0, len(headers)+8)
	out = append(out, headers...)
	return append(out,
		Header{headerFormat, []byte(originFormat)}, Header{headerTopic, []byte(topic)},
		Header{headerPartition, strconv.AppendInt(nil, int64(partition), 10)},
		Header{headerOffset, strconv.AppendInt(nil, offset, 10)},
		Header{headerTimestamp, strconv.AppendInt(nil, timestampMs, 10)})
}

type origin struct {
	topic       string
	partition   int32
	offset      int64
	timestampMs int64
	before      []Header // those that the record arrived with
	ours        map[string][]byte
}

// takeOrigin splits the headers at the last format header: what a record arrived with may itself be a
// dead letter's.
func takeOrigin(headers []Header) (o origin, err error) {
	at := -1
	for i := range headers {
		if headers[i].Key == headerFormat {
			at = i
		}
	}
	if at < 0 {
		return o, fmt.Errorf("%w: no %s header", ErrMalformed, headerFormat)
	}
	if v := string(headers[at].Value); v != originFormat {
		return o, fmt.Errorf("%w: format %.20q, this binary knows %s", ErrFormat, v, originFormat)
	}
	if at > 0 {
		o.before = headers[:at:at]
	}
	o.ours = map[string][]byte{}
	for _, h := range headers[at:] {
		o.ours[h.Key] = h.Value
	}
	number := func(name string, bits int) (n int64) {
		if err == nil {
			if n, err = strconv.ParseInt(string(o.ours[name]), 10, bits); err != nil {
				err = fmt.Errorf("%w: header %s: %w", ErrMalformed, name, err)
			}
		}
		return n
	}
	o.topic = string(o.ours[headerTopic])
	o.partition = int32(number(headerPartition, 32))
	o.offset, o.timestampMs = number(headerOffset, 64), number(headerTimestamp, 64)
	return o, err
}
