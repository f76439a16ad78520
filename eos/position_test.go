package eos

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/tidemark/tidemark/internal/wire"
)

func goldenPosition() *Position {
	return &Position{
		Seq: 300, Records: 70000, Partition: 2, Digest: "9f2c00aa", Generation: 1, CommittedMs: 1490620089000,
		Owner: "ssh-auth/host-1", TableID: [16]byte{1, 2, 3, 15: 16},
		Sources: []Source{
			{Topic: "ssh-auth-loop", TopicID: [16]byte{9}, Next: 0},
			{Topic: "ssh-auth-events", TopicID: [16]byte{8}, Next: 1043, TimeMs: -5},
		},
	}
}

// goldenBytes were written by format 1. They must be read for as long as there is a table that holds such a record.
const goldenBytes = "080110ac0218f0a20420042a280a0f7373682d617574682d6576656e747312100800000000000000000000000000000018a6" +
	"1020092a210a0d7373682d617574682d6c6f6f70121009000000000000000000000000000000320839663263303061613801" +
	"40d08a8cfee1564a0f7373682d617574682f686f73742d31521001020300000000000000000000000010"

func TestPosition_GoldenBytes(t *testing.T) {
	want, err := hex.DecodeString(goldenBytes)
	if err != nil {
		t.Fatal(err)
	}
	p := goldenPosition()
	if got := p.AppendBinary(nil); !bytes.Equal(got, want) {
		t.Errorf("got %x\nwant %x", got, want)
	}
	got, err := ParsePosition(want)
	slices.Reverse(p.Sources) // they are kept in order of their names
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Fatalf("got %+v, %v, want %+v", got, err, p)
	}
	if s := got.Source("ssh-auth-events"); s == nil || s.Next != 1043 || got.Source("other") != nil {
		t.Errorf("source: got %+v and %+v, want 1043 and none", s, got.Source("other"))
	}
}

func TestPosition_EveryValueComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Custom(func(t *rapid.T) (id [16]byte) {
			copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
			return id
		})
		p := &Position{
			Seq: rapid.Uint64().Draw(t, "seq"), Records: rapid.Uint64().Draw(t, "records"),
			Partition: rapid.Int32().Draw(t, "partition"), Digest: rapid.String().Draw(t, "digest"),
			Generation: rapid.Uint32().Draw(t, "generation"), CommittedMs: rapid.Int64().Draw(t, "ms"),
			Owner: rapid.String().Draw(t, "owner"), TableID: id.Draw(t, "table"),
		}
		for _, topic := range rapid.SliceOfDistinct(rapid.String(), rapid.ID).Draw(t, "topics") {
			p.Sources = append(p.Sources, Source{Topic: topic, TopicID: id.Draw(t, "id"), Next: rapid.Int64().Draw(t, "next"), TimeMs: rapid.Int64().Draw(t, "time")})
		}
		if !utf8.ValidString(p.Digest + p.Owner) {
			t.Skip("not UTF-8")
		}
		b := p.AppendBinary(nil)
		got, err := ParsePosition(b)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		if again := got.AppendBinary(nil); !bytes.Equal(again, b) {
			t.Fatalf("got %x, want %x", again, b)
		}
		for _, s := range p.Sources {
			if f := got.Source(s.Topic); f == nil || *f != s {
				t.Fatalf("source %q: got %+v, want %+v", s.Topic, f, s)
			}
		}
		want := p.Clone()
		want.Sources, got.Sources = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestPosition_RefusesWhatItDoesNotKnowByName(t *testing.T) {
	good := goldenPosition().AppendBinary(nil)
	newer := append([]byte{8, 2}, good[2:]...)
	if _, err := ParsePosition(newer); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("newer: got %v, want ErrFormat that names format 2", err)
	}
	source := func(topic string) []byte {
		s := Source{Topic: topic}
		return protowire.AppendBytes(protowire.AppendTag(nil, fieldSource, protowire.BytesType), s.appendBinary(nil))
	}
	for name, b := range map[string][]byte{
		"empty":             nil,
		"no version":        good[2:],
		"version twice":     append([]byte{8, 1}, good...),
		"cut":               good[:len(good)-3],
		"source twice":      append(append([]byte{8, 1}, source("a")...), source("a")...),
		"short ID":          append([]byte{8, 1}, protowire.AppendBytes(protowire.AppendTag(nil, fieldTableID, protowire.BytesType), []byte{1, 2})...),
		"wrong wire type":   append([]byte{8, 1}, protowire.AppendBytes(protowire.AppendTag(nil, fieldSeq, protowire.BytesType), []byte{1})...),
		"too large":         append([]byte{8, 1}, wire.AppendUint(nil, fieldGeneration, math.MaxUint32+1)...),
		"partition too far": append([]byte{8, 1}, wire.AppendInt(nil, fieldPartition, math.MaxInt32+1)...),
		"not UTF-8":         append([]byte{8, 1}, wire.AppendText(nil, fieldOwner, "\xff")...),
		"text":              []byte(`{"seq":1}`),
	} {
		if p, err := ParsePosition(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v, want ErrMalformed", name, p, err)
		}
	}
	later := protowire.AppendFixed64(protowire.AppendTag(slices.Clone(good), 77, protowire.Fixed64Type), 1)
	later = protowire.AppendBytes(protowire.AppendTag(later, 78, protowire.BytesType), []byte("new"))
	if p, err := ParsePosition(later); err != nil || p.Seq != 300 {
		t.Errorf("fields of a later binary of the same format: got %+v, %v, want them passed over", p, err)
	}
}

func TestKeys_APositionIsNoID(t *testing.T) {
	if !IsPositionKey(PositionKey()) || IsUserKey(PositionKey()) {
		t.Error("the position's key can be taken for an ID")
	}
	for key, want := range map[string]bool{"a": true, "__offset": true, "position": true, "\x00": true, "ü": true, "": false, "\xfe1": false, "\xff": false, "a\xff": false} {
		if got := IsUserKey([]byte(key)); got != want || IsPositionKey([]byte(key)) {
			t.Errorf("%q: got %t, want %t, and no position", key, got, want)
		}
	}
}

func TestOffsetMetadata_ComesBackAndRefusesOthers(t *testing.T) {
	for _, m := range []OffsetMetadata{{}, {12, "ssh-auth/host-1"}, {math.MaxUint64, "a b  c"}} {
		if got, err := ParseOffsetMetadata(m.String()); err != nil || got != m {
			t.Errorf("%q: got %+v, %v, want %+v", m, got, err, m)
		}
	}
	if got, want := (OffsetMetadata{12, "x/y"}).String(), "v1 12 x/y"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for text, want := range map[string]error{
		"": ErrMalformed, "v1": ErrMalformed, "v1 ": ErrMalformed, "v1 x y": ErrMalformed, "v1 3": ErrMalformed, "v1 03 y": ErrMalformed, "v1 -3 y": ErrMalformed,
		"hello": ErrMalformed, "vx 1 y": ErrMalformed, "12": ErrMalformed, "v2 whatever": ErrFormat, "v17": ErrFormat,
	} {
		if got, err := ParseOffsetMetadata(text); !errors.Is(err, want) {
			t.Errorf("%q: got %+v, %v, want %v", text, got, err, want)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	f.Add(goldenPosition().AppendBinary(nil))
	f.Add([]byte{8, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePosition(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrFormat) {
				t.Fatalf("%x: %v is no error of ours", b, err)
			}
			return
		}
		again, err := ParsePosition(p.AppendBinary(nil))
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%x: got %+v, %v, want %+v", b, again, err, p)
		}
	})
}

func FuzzParseOffsetMetadata(f *testing.F) {
	f.Add("v1 12 x")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ParseOffsetMetadata(text); err == nil && m.String() != text {
			t.Fatalf("%q came back as %q", text, m)
		}
	})
}
