package view

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/tidemark/tidemark/codecs"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

var answerSchema = &codecs.Schema{InputTopic: "in", Digest: "d1", Totals: []string{"avg", "max", "sum"}, Flags: []string{"big", "odd"}}

// TestAnswer_BothEncodingsAreOfTheMessageInViewProto reads what is written by hand as the generated messages: nothing is left
// over, Protobuf's own JSON of it is ours, and Protobuf would write the same bytes.
func TestAnswer_BothEncodingsAreOfTheMessageInViewProto(t *testing.T) {
	for name, kind := range map[string]struct {
		draw func(*rapid.T) answer
		into proto.Message
	}{
		"Get": {func(t *rapid.T) answer {
			return &oneAnswer{answerSchema, id.Draw(t, "id"), *state.Draw(t, "state"), freshness.Draw(t, "as of")}
		}, &pb.GetResponse{}},
		"BatchGet": {func(t *rapid.T) answer {
			a := &batchAnswer{schema: answerSchema, asOf: rapid.SliceOfN(freshness, 1, 3).Draw(t, "as of")}
			for range rapid.IntRange(1, 4).Draw(t, "IDs") {
				a.ids = append(a.ids, id.Draw(t, "id"))
				a.states = append(a.states, rapid.OneOf(state, rapid.Just[*codecs.State](nil)).Draw(t, "state"))
			}
			return a
		}, &pb.BatchGetResponse{}},
		"List":       {page, &pb.ListResponse{}},
		"ListByFlag": {page, &pb.ListByFlagResponse{}},
		"Produce": {func(t *rapid.T) answer {
			return &producedAnswer{results: rapid.SliceOfN(produced, 0, 4).Draw(t, "results"), lines: []int32{1, 3, 4, 1000}}
		}, &pb.ProduceResponse{}},
		"Freshness": {func(t *rapid.T) answer {
			a := freshness.Draw(t, "as of")
			return (*asDetail)(&a)
		}, &pb.Freshness{}},
	} {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			a := kind.draw(t)
			wire, text := a.appendProto(nil), a.appendJSON(nil)
			m := kind.into
			if err := proto.Unmarshal(wire, m); err != nil {
				t.Fatalf("%x: %v", wire, err)
			}
			if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil || !bytes.Equal(again, wire) {
				t.Fatalf("Protobuf writes (%v)\n%x, got\n%x", err, again, wire)
			}
			want, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(value(t, text), value(t, want)) {
				t.Fatalf("got  %s\nwant %s", text, want)
			}
			if err := protojson.Unmarshal(text, m); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}))
	}
}

var produced = rapid.Custom(func(t *rapid.T) Produced {
	if rapid.Bool().Draw(t, "acknowledged") {
		return Produced{Token: rapid.StringMatching(`[0-9]@[0-9]{1,3}`).Draw(t, "token")}
	}
	return Produced{
		Code:   rapid.SampledFrom([]connect.Code{connect.CodeInvalidArgument, connect.CodeAborted, connect.CodeUnavailable, connect.CodeUnknown}).Draw(t, "code"),
		Reason: rapid.StringMatching(`[a-z_]{0,8}`).Draw(t, "reason"), Message: rapid.String().Draw(t, "message"),
	}
})

// asDetail is a Freshness by itself.
type asDetail AsOf

func (a *asDetail) appendJSON(dst []byte) []byte  { return (*AsOf)(a).appendJSON(dst, true) }
func (a *asDetail) appendProto(dst []byte) []byte { return (*AsOf)(a).appendProto(dst, true) }

func page(t *rapid.T) answer {
	a := &pageAnswer{
		schema: answerSchema, next: rapid.StringMatching(`[a-z]{0,5}`).Draw(t, "token"),
		asOf: rapid.SliceOfN(freshness, 1, 3).Draw(t, "as of"),
	}
	for range rapid.IntRange(0, 4).Draw(t, "IDs") {
		a.entries = append(a.entries, Entry{id.Draw(t, "id"), *state.Draw(t, "state")})
	}
	return a
}

func value(t *rapid.T, text []byte) (v any) {
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

var (
	id   = rapid.StringN(1, 40, 200)
	text = rapid.StringN(0, 10, 200) // longer than 127 bytes at times, where lengths take two

	millis = rapid.OneOf(rapid.Int64Range(codecs.TimeMinMs, codecs.TimeMaxMs), rapid.Int64Range(-2000, 2000))

	scalar = rapid.Custom(func(t *rapid.T) codecs.Value {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return codecs.Value{}
		case 1:
			return codecs.Value{Kind: codecs.Bool, Bool: rapid.Bool().Draw(t, "bool")}
		case 2:
			return codecs.Value{Kind: codecs.String, Str: text.Draw(t, "text")}
		}
		return codecs.Value{Kind: codecs.Number, Num: codecs.DecimalFromInt64(rapid.Int64().Draw(t, "number"))}
	})

	state = rapid.Custom(func(t *rapid.T) *codecs.State {
		s := &codecs.State{
			Version: rapid.Uint64().Draw(t, "version"), Count: rapid.Uint64().Draw(t, "count"),
			FirstMs: millis.Draw(t, "first"), LastMs: millis.Draw(t, "last"), Flags: make([]codecs.Flag, len(answerSchema.Flags)),
		}
		for range answerSchema.Totals {
			v := scalar.Draw(t, "total")
			if rapid.IntRange(0, 4).Draw(t, "list") == 0 {
				v = codecs.Value{Kind: codecs.List, Items: rapid.SliceOfN(scalar, 0, 3).Draw(t, "items")}
			}
			s.Totals = append(s.Totals, v)
		}
		for i := range s.Flags {
			if rapid.Bool().Draw(t, "raised") {
				s.Flags[i] = codecs.Flag{Raised: true, Why: codecs.Why{
					TimeMs: millis.Draw(t, "why"), Topic: text.Draw(t, "topic"), Partition: rapid.Int32Min(0).Draw(t, "partition"),
					Offset: rapid.Int64Min(0).Draw(t, "offset"), Rules: text.Draw(t, "rules"),
				}}
			}
		}
		return s
	})

	age = rapid.OneOf(rapid.Just(NotKnown), rapid.Map(rapid.Int64Range(0, int64(300*time.Hour)), func(n int64) time.Duration { return time.Duration(n) }))

	freshness = rapid.Custom(func(t *rapid.T) AsOf {
		return AsOf{
			Partition: rapid.Int32Min(0).Draw(t, "partition"), Position: rapid.Int64Min(0).Draw(t, "position"), TimeMs: millis.Draw(t, "time"),
			Commit: rapid.Uint64().Draw(t, "commit"), Age: age.Draw(t, "age"), TableAge: age.Draw(t, "table age"),
		}
	})
)

func TestAnswer_AnAgeIsNeverTooSmall(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: `"0s"`, 1: `"0.001s"`, time.Millisecond: `"0.001s"`, time.Second - 1: `"1s"`, 61*time.Second + 40*time.Millisecond: `"61.040s"`, NotKnown: `null`,
	} {
		if got := string(appendAge(nil, d)); got != want {
			t.Errorf("%d ns: got %s, want %s", d, got, want)
		}
	}
}
