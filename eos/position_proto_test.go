package eos

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tidemark/tidemark/internal/prototest"
)

func TestPosition_IsTheMessageOfTheDefinition(t *testing.T) {
	md := prototest.Message(t, prototest.Load(t, "../codecs/tidemark.proto"), "Position")
	r := rand.New(rand.NewPCG(1, 1))
	edges := []int64{0, 1, -1, 127, 128, math.MaxInt32, math.MaxInt64}
	edge := func() int64 { return edges[r.IntN(len(edges))] }
	get := func(m protoreflect.Message, name string) protoreflect.Value {
		return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
	}
	id := func(b []byte) (id [16]byte) {
		copy(id[:], b)
		return id
	}
	for range 2000 {
		want := &Position{
			Seq: uint64(edge()), Records: uint64(edge()), Partition: int32(max(edge()%math.MaxInt32, 0)), Generation: uint32(edge()), CommittedMs: edge(),
			Digest: []string{"", "9f2c"}[r.IntN(2)], Owner: []string{"", "job-0"}[r.IntN(2)],
		}
		if r.IntN(2) == 0 {
			want.TableID = [16]byte{1, 15: 2}
		}
		for i := range r.IntN(3) {
			want.Sources = append(want.Sources, Source{Topic: string(rune('a' + i)), TopicID: [16]byte{3}, Next: edge(), TimeMs: edge()})
		}
		m := prototest.Same(t, md, want.AppendBinary(nil))
		got := &Position{
			Seq: get(m, "seq").Uint(), Records: get(m, "records").Uint(), Partition: int32(get(m, "partition").Int()), Digest: get(m, "digest").String(),
			Generation: uint32(get(m, "generation").Uint()), CommittedMs: get(m, "committed_ms").Int(), Owner: get(m, "owner").String(), TableID: id(get(m, "table_id").Bytes()),
		}
		for i := range get(m, "sources").List().Len() {
			s := get(m, "sources").List().Get(i).Message()
			got.Sources = append(got.Sources, Source{Topic: get(s, "topic").String(), TopicID: id(get(s, "topic_id").Bytes()), Next: get(s, "next").Int(), TimeMs: get(s, "time_ms").Int()})
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("the definition reads %+v, want %+v", got, want)
		}
	}
}
