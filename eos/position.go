package eos

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tidemark/tidemark/internal/wire"
)

// positionFormat is the version of a position record that this binary writes, and the only one that it reads.
const positionFormat = 1

// Position is the last table record of each commit in each partition. It says which input the state before it covers, so
// the table alone tells where to go on. The group's committed offsets must agree with it.
type Position struct {
	// Seq counts the commits of this partition, this one included.
	Seq uint64
	// Records counts the table's data records in this partition so far, this one included.
	Records uint64
	// Partition is the table partition that the record belongs to.
	Partition int32
	// Sources are the input partitions of that number, one a topic.
	Sources []Source
	// Digest is the digest of the rules.
	Digest string
	// Generation is the job's generation.
	Generation uint32
	// CommittedMs is the wall clock at the commit, for people and for age; nothing is decided by it.
	CommittedMs int64
	// Owner is the transactional.id that wrote the record.
	Owner string
	// TableID is the ID of the table's topic.
	TableID [16]byte
}

// Source is the place in one input topic up to which everything is in the state.
type Source struct {
	Topic   string
	TopicID [16]byte
	// Next is the offset to read next.
	Next int64
	// TimeMs is the time of the last event or record before Next; 0 is none.
	TimeMs int64
}

// Source finds a topic's place, or nil.
func (p *Position) Source(topic string) *Source {
	for i := range p.Sources {
		if p.Sources[i].Topic == topic {
			return &p.Sources[i]
		}
	}
	return nil
}

// Clone copies the position, sources included.
func (p *Position) Clone() *Position {
	c := *p
	c.Sources = slices.Clone(p.Sources)
	return &c
}

// positionKey cannot be an ID: 0xFF never occurs in UTF-8.
const positionKey = "\xffposition"

// PositionKey is the key of position records: one a partition, so compaction keeps the newest.
func PositionKey() []byte { return []byte(positionKey) }

// IsPositionKey tells whether a table record is a position record.
func IsPositionKey(key []byte) bool { return string(key) == positionKey }

// IsUserKey tells whether a table record's key is an ID: UTF-8 and not empty. Every other key is Tidemark's own.
func IsUserKey(key []byte) bool { return len(key) > 0 && utf8.Valid(key) }

// Fields on the wire, Protobuf's encoding. A number is never used again for something else.
const (
	fieldFormat      protowire.Number = 1
	fieldSeq         protowire.Number = 2
	fieldRecords     protowire.Number = 3
	fieldPartition   protowire.Number = 4
	fieldSource      protowire.Number = 5
	fieldDigest      protowire.Number = 6
	fieldGeneration  protowire.Number = 7
	fieldCommittedMs protowire.Number = 8
	fieldOwner       protowire.Number = 9
	fieldTableID     protowire.Number = 10

	fieldSourceTopic   protowire.Number = 1
	fieldSourceTopicID protowire.Number = 2
	fieldSourceNext    protowire.Number = 3
	fieldSourceTimeMs  protowire.Number = 4
)

// AppendBinary appends the record's value: the same position always gives the same bytes, whatever the order of its
// sources. The format version comes first. Two sources of one topic are a broken invariant, and panic.
func (p *Position) AppendBinary(dst []byte) []byte {
	sources := p.Sources
	byTopic := func(a, b Source) int { return cmp.Compare(a.Topic, b.Topic) }
	if !slices.IsSortedFunc(sources, byTopic) {
		sources = slices.SortedFunc(slices.Values(sources), byTopic)
	}
	dst = wire.AppendUint(dst, fieldFormat, positionFormat)
	dst = wire.AppendUint(dst, fieldSeq, p.Seq)
	dst = wire.AppendUint(dst, fieldRecords, p.Records)
	dst = wire.AppendInt(dst, fieldPartition, int64(p.Partition))
	for i := range sources {
		if i > 0 && sources[i].Topic == sources[i-1].Topic {
			panic("eos: position record with source " + sources[i].Topic + " twice")
		}
		dst = protowire.AppendTag(dst, fieldSource, protowire.BytesType)
		dst = protowire.AppendBytes(dst, sources[i].appendBinary(nil))
	}
	dst = wire.AppendText(dst, fieldDigest, p.Digest)
	dst = wire.AppendUint(dst, fieldGeneration, uint64(p.Generation))
	dst = wire.AppendInt(dst, fieldCommittedMs, p.CommittedMs)
	dst = wire.AppendText(dst, fieldOwner, p.Owner)
	return wire.AppendID(dst, fieldTableID, p.TableID)
}

func (s *Source) appendBinary(dst []byte) []byte {
	dst = wire.AppendText(dst, fieldSourceTopic, s.Topic)
	dst = wire.AppendID(dst, fieldSourceTopicID, s.TopicID)
	dst = wire.AppendInt(dst, fieldSourceNext, s.Next)
	return wire.AppendInt(dst, fieldSourceTimeMs, s.TimeMs)
}

// ParsePosition reads what AppendBinary wrote. An unknown format version is ErrFormat with the version named, anything
// else that is not a position record is ErrMalformed. Fields that it does not know are passed over.
func ParsePosition(b []byte) (*Position, error) {
	p := &Position{}
	first := true
	err := wire.Each(b, func(f wire.Field) error {
		if first {
			if f.Num != fieldFormat {
				return fmt.Errorf("%w: position record without a format version", ErrMalformed)
			}
			first = false
			return f.Format("position record", positionFormat)
		}
		return p.set(f)
	})
	switch {
	case err != nil:
		return nil, err
	case first:
		return nil, fmt.Errorf("%w: empty position record", ErrMalformed)
	}
	slices.SortStableFunc(p.Sources, func(a, b Source) int { return cmp.Compare(a.Topic, b.Topic) })
	for i := 1; i < len(p.Sources); i++ {
		if p.Sources[i].Topic == p.Sources[i-1].Topic {
			return nil, fmt.Errorf("%w: position record names source %q twice", ErrMalformed, p.Sources[i].Topic)
		}
	}
	return p, nil
}

func (p *Position) set(f wire.Field) (err error) {
	switch f.Num {
	case fieldFormat:
		return fmt.Errorf("%w: format version twice", ErrMalformed)
	case fieldSeq:
		p.Seq, err = f.Uint(64)
	case fieldRecords:
		p.Records, err = f.Uint(64)
	case fieldPartition:
		var v int64
		v, err = f.Int(31)
		p.Partition = int32(v)
	case fieldSource:
		var s Source
		if err = f.Want(protowire.BytesType); err == nil {
			err = wire.Each(f.Bytes, s.set)
		}
		p.Sources = append(p.Sources, s)
	case fieldDigest:
		p.Digest, err = f.Text()
	case fieldGeneration:
		var v uint64
		v, err = f.Uint(32)
		p.Generation = uint32(v)
	case fieldCommittedMs:
		p.CommittedMs, err = f.Int(63)
	case fieldOwner:
		p.Owner, err = f.Text()
	case fieldTableID:
		p.TableID, err = f.ID()
	}
	return err
}

func (s *Source) set(f wire.Field) (err error) {
	switch f.Num {
	case fieldSourceTopic:
		s.Topic, err = f.Text()
	case fieldSourceTopicID:
		s.TopicID, err = f.ID()
	case fieldSourceNext:
		s.Next, err = f.Int(63)
	case fieldSourceTimeMs:
		s.TimeMs, err = f.Int(63)
	}
	return err
}

// OffsetMetadata travels with each offset that the group commits. It names the commit, so that offsets and position
// record can be compared, and who made it, so that the next owner of the partition can fence him.
type OffsetMetadata struct {
	// Seq is Position.Seq of the same commit.
	Seq uint64
	// Owner is the transactional.id.
	Owner string
}

const offsetMetadataFormat = "v1"

// String gives "v1 <seq> <owner>".
func (m OffsetMetadata) String() string {
	return offsetMetadataFormat + " " + strconv.FormatUint(m.Seq, 10) + " " + m.Owner
}

// ParseOffsetMetadata reads what String gave. Another version is ErrFormat; what is not ours (tools that reset offsets
// write empty metadata) is ErrMalformed.
func ParseOffsetMetadata(text string) (OffsetMetadata, error) {
	version, rest, ok := strings.Cut(text, " ")
	if version != offsetMetadataFormat {
		if n, err := strconv.ParseUint(strings.TrimPrefix(version, "v"), 10, 32); err == nil && version == "v"+strconv.FormatUint(n, 10) {
			return OffsetMetadata{}, fmt.Errorf("%w: offset metadata of format %s, this binary knows %s", ErrFormat, version, offsetMetadataFormat)
		}
		return OffsetMetadata{}, fmt.Errorf("%w: offset metadata %q", ErrMalformed, text)
	}
	number, owner, ok2 := strings.Cut(rest, " ")
	seq, err := strconv.ParseUint(number, 10, 64)
	m := OffsetMetadata{Seq: seq, Owner: owner}
	if err = errors.Join(err); !ok || !ok2 || err != nil || m.String() != text {
		return OffsetMetadata{}, fmt.Errorf("%w: offset metadata %q", ErrMalformed, text)
	}
	return m, nil
}
