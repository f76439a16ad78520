package ops

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/processor"
	"github.com/tidemark/tidemark/rules"
)

const verifyJob = `name: NAME
input: {topic: NAME-events, id: event.id, time: event.time}
totals:
  sum:    {sum: event.value}
  newest: {last: event.value}
  last_h: {sum: event.value, window: 1h}
flags:
  many: {when: "totals.sum >= 20"}
`

const verifyPartitions = 4

// verified is a job with its processor, to be verified.
type verified struct {
	t      *testing.T
	rules  *rules.RuleSet
	job    *Job
	client *kgo.Client
	dir    string
	events int
}

func mustVerified(t *testing.T, brokers []string) *verified {
	t.Helper()
	name := fmt.Sprintf("t%x", rand.Uint64())
	rs, err := rules.Load([]byte(strings.ReplaceAll(verifyJob, "NAME", name)))
	if err != nil {
		t.Fatal(err)
	}
	kafkatest.MustTopic(t, brokers, rs.Job().Input.Topic, verifyPartitions)
	kafka := &eos.Kafka{Brokers: brokers}
	cl, err := kgo.NewClient(kafka.Franz(kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &verified{
		t: t, rules: rs, client: cl, dir: t.TempDir(),
		job: &Job{Kafka: kafka, Names: eos.Names{Job: name, Generation: 1}, Input: rs.Job().Input.Topic, Schema: rs.Schema(), TempDir: t.TempDir()},
	}
}

// mustCount sends events of the IDs, away from home where astray is set, and runs the processor until they are counted.
func (v *verified) mustCount(n int, astray bool, ids ...string) {
	v.t.Helper()
	var out []*kgo.Record
	for i := range n {
		id := ids[i%len(ids)]
		p := eos.Place([]byte(id), verifyPartitions)
		if astray {
			p = (p + 1) % verifyPartitions
		}
		at := time.Date(2024, 5, 1, 0, 0, v.events, 0, time.UTC).Format(time.RFC3339)
		v.events++
		out = append(out, &kgo.Record{Topic: v.job.Input, Partition: p, Value: fmt.Appendf(nil, `{"id":%q,"time":%q,"value":%d}`, id, at, 1+i%3)})
	}
	v.mustSend(out...)
	v.mustRun()
}

func (v *verified) mustRun() {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
	defer cancel()
	p, err := processor.New(processor.Config{Rules: v.rules, Kafka: v.job.Kafka, StateDir: v.dir, Instance: "p", UntilCaughtUp: true})
	if err != nil {
		v.t.Fatal(err)
	}
	if err := p.Run(ctx); err != nil || ctx.Err() != nil {
		v.t.Fatalf("run: %v, %v", err, ctx.Err())
	}
}

func (v *verified) mustSend(records ...*kgo.Record) {
	v.t.Helper()
	if err := v.client.ProduceSync(v.t.Context(), records...).FirstErr(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *verified) mustVerify() *VerifyReport {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
	defer cancel()
	r, err := v.job.Verify(ctx, v.rules, nil)
	if err != nil {
		v.t.Fatalf("verify: %v", err)
	}
	return r
}

// forge writes a state into the table as another program might.
func (v *verified) forge(id string, partition int32, change func(*codecs.State)) {
	v.t.Helper()
	states := map[string]*codecs.State{}
	t, err := v.job.openTable(v.t.Context(), nil, nil, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	stored, err := t.disk.Get([]byte(id))
	if err != nil {
		v.t.Fatal(err)
	}
	st := &codecs.State{}
	if err := closing(t, st.UnmarshalBinary(stored, v.job.Schema)); err != nil {
		v.t.Fatal(err)
	}
	states[id] = st
	change(st)
	v.mustSend(&kgo.Record{Topic: v.job.Names.Table(), Partition: partition, Key: []byte(id), Value: st.AppendBinary(nil, v.job.Schema)})
}

func ids(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("id-%02d", i))
	}
	return out
}

func mustFake(t *testing.T) []string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func TestVerify_PassesWhatNobodyTouched(t *testing.T) {
	v := mustVerified(t, mustFake(t))
	v.mustCount(200, false, ids(20)...)
	v.mustSend(&kgo.Record{Topic: v.job.Input, Value: []byte("{")}, &kgo.Record{Topic: v.job.Input, Partition: 1})
	v.mustCount(30, true, ids(3)...)
	r := v.mustVerify()
	if r.Differ != 0 || r.First != nil {
		t.Errorf("got %d differences, first %v, want none", r.Differ, r.First)
	}
	if r.Events != 232 || r.Refused != 2 || r.Rekeyed != 30 || r.IDs != 20 || r.OrderFree != 3 || r.Whole != 17 || r.NotCompared != 0 {
		t.Errorf("got %+v, want 232 events, 2 refused, 30 re-keyed; of 20 IDs 3 without regard to order, 17 whole", r)
	}
}

func TestVerify_NamesAStateThatWasWrittenByHand(t *testing.T) {
	for _, c := range []struct {
		name, id, field string
		astray          bool
		change          func(*codecs.State)
	}{
		{name: "totals", id: "id-07", field: "totals.last_h", change: func(st *codecs.State) {
			for i := range st.Totals {
				if st.Totals[i].Kind == codecs.Number {
					st.Totals[i].Num = codecs.DecimalFromInt64(999)
				}
			}
		}},
		{name: "the count of an ID with re-keyed events", id: "id-03", astray: true, field: "count", change: func(st *codecs.State) { st.Count, st.Version = st.Count+1, st.Version+1 }},
		{name: "a flag", id: "id-11", field: "flags.many", change: func(st *codecs.State) { st.Flags[0].Raised = !st.Flags[0].Raised }},
		{name: "the time of the first event", id: "id-00", field: "first_time", change: func(st *codecs.State) { st.FirstMs -= 86_400_000 }},
		{name: "how many came late", id: "id-19", field: "late", change: func(st *codecs.State) { st.Late++ }},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := mustVerified(t, mustFake(t))
			v.mustCount(100, false, ids(20)...)
			if c.astray {
				v.mustCount(4, true, c.id)
			}
			v.forge(c.id, eos.Place([]byte(c.id), verifyPartitions), c.change)
			if r := v.mustVerify(); r.First == nil || r.First.ID != c.id {
				t.Errorf("at the end of the table: got %v, want %s named", r.First, c.id)
			}
			var others []string
			for _, id := range ids(20) {
				if id != c.id {
					others = append(others, id)
				}
			}
			v.mustCount(60, false, others...) // which makes it part of what is committed
			r := v.mustVerify()
			if r.First == nil || r.First.ID != c.id || r.First.Field != c.field || r.Differ != 1 {
				t.Errorf("got %d differences, first %v, want %s of %s alone", r.Differ, r.First, c.field, c.id)
			}
		})
	}
}

func TestVerify_NamesIDsThatDoNotBelong(t *testing.T) {
	v := mustVerified(t, mustFake(t))
	v.mustCount(100, false, ids(20)...)
	v.forge("id-05", (eos.Place([]byte("id-05"), verifyPartitions)+1)%verifyPartitions, func(*codecs.State) {})
	v.mustCount(100, false, ids(20)...)
	if r := v.mustVerify(); r.First == nil || r.First.ID != "id-05" || !strings.Contains(r.First.Field, "place") {
		t.Errorf("got %v, want id-05 in another place", r.First)
	}

	v = mustVerified(t, mustFake(t))
	v.mustCount(100, false, ids(20)...)
	v.mustSend(&kgo.Record{Topic: v.job.Names.Table(), Partition: eos.Place([]byte("id-08"), verifyPartitions), Key: []byte("id-08")}) // a tombstone
	v.mustCount(100, false, ids(8)...)
	v.mustCount(100, false, ids(20)[9:]...)
	if r := v.mustVerify(); r.First == nil || r.First.ID != "id-08" || r.First.Committed != "absent" {
		t.Errorf("got %v, want id-08 to be absent", r.First)
	}
}
