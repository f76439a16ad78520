package processor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/rules"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// stopCase is something done to a job between two runs.
type stopCase struct {
	name  string
	do    func(j *job, adm *kadm.Client)
	fault string // in the fault of the fail-stop; "" means that the job goes on
	mend  string // in its mend
}

// tableSettings are those without which a table made by hand is refused for them alone.
var tableSettings = []string{"cleanup.policy=compact", "delete.retention.ms=604800000", "max.message.bytes=4194304"}

var stopCases = []stopCase{
	{name: "nothing", do: func(*job, *kadm.Client) {}},
	{
		name: "offsets set back", fault: "offsets were changed from outside", mend: "set the offset back to",
		do: func(j *job, adm *kadm.Client) { j.setOffsets(adm, -1) },
	},
	{
		name: "offsets set forward", fault: "offsets were changed from outside", mend: "set the offset back to",
		do: func(j *job, adm *kadm.Client) { j.setOffsets(adm, 1) },
	},
	{name: "group deleted, as when its offsets expire", do: func(j *job, adm *kadm.Client) {
		_, err := adm.DeleteGroup(j.t.Context(), j.names.Group())
		j.must("delete the group", err)
	}},
	{name: "offsets of the input deleted", do: func(j *job, adm *kadm.Client) {
		topics := kadm.TopicsSet{}
		topics.Add(j.input(), 0, 1)
		resp, err := adm.DeleteOffsets(j.t.Context(), j.names.Group(), topics)
		j.must("delete offsets", errors.Join(err, resp.Error()))
	}},
	{name: "comments and order in the job file", do: func(j *job, _ *kadm.Client) {
		j.change("name: ", "# the same\nname: ")
	}},
	{
		name: "another rule", fault: "was made by rules", mend: "needs a new name (its `name:`)",
		do: func(j *job, _ *kadm.Client) { j.change(">= 10", ">= 11") },
	},
	{
		name: "input made again", fault: "deleted and created again", mend: "new name",
		do: func(j *job, adm *kadm.Client) { j.remake(adm, j.input(), 2) },
	},
	{
		name: "loop made again", fault: "deleted and created again", mend: "new name",
		do: func(j *job, adm *kadm.Client) {
			j.remake(adm, j.names.Loop(), 2, "retention.ms=-1", "max.message.bytes=16777216")
		},
	},
	{
		name: "table made again", fault: "the table was deleted", mend: "restore the table",
		do: func(j *job, adm *kadm.Client) {
			j.remake(adm, j.names.Table(), 2, tableSettings...)
		},
	},
	{
		name: "table deleted", fault: "deleted since the job began", mend: "restore the table",
		do: func(j *job, adm *kadm.Client) { j.remove(adm, j.names.Table()) },
	},
	{
		name: "table of other partitions", fault: "partitions", mend: "partitions",
		do: func(j *job, adm *kadm.Client) {
			j.remake(adm, j.names.Table(), 3, tableSettings...)
		},
	},
	{
		name: "dead letters of fewer partitions", fault: "each writes to the one of its number", mend: "kafka-topics --alter",
		do: func(j *job, adm *kadm.Client) {
			j.remake(adm, j.names.DeadLetters(), 1, "max.message.bytes=16777216")
		},
	},
	{
		name: "dead letters with Kafka's own settings", fault: "max.message.bytes=1048588", mend: "kafka-configs --alter",
		do: func(j *job, adm *kadm.Client) { j.remake(adm, j.names.DeadLetters(), 2) },
	},
	{
		name: "dead letters of more partitions", do: func(j *job, adm *kadm.Client) {
			j.remake(adm, j.names.DeadLetters(), 3, "max.message.bytes=16777216")
		},
	},
	{
		name: "loop deleted", fault: "deleted since the job began", mend: "restore the loop",
		do: func(j *job, adm *kadm.Client) { j.remove(adm, j.names.Loop()) },
	},
	{
		name: "loop of other partitions", fault: "partitions", mend: "partitions",
		do: func(j *job, adm *kadm.Client) {
			j.remake(adm, j.names.Loop(), 3, "retention.ms=-1", "max.message.bytes=16777216")
		},
	},
	{
		name: "input deleted", fault: "deleted since the job began", mend: "restore the input",
		do: func(j *job, adm *kadm.Client) { j.remove(adm, j.input()) },
	},
	{
		name: "flags deleted", fault: "deleted since the job began", mend: "restore the flags, or create them empty",
		do: func(j *job, adm *kadm.Client) { j.remove(adm, j.names.Flags()) },
	},
	{
		name: "dead letters deleted", fault: "deleted since the job began", mend: "restore the dead letters, or create them empty",
		do: func(j *job, adm *kadm.Client) { j.remove(adm, j.names.DeadLetters()) },
	},
	{
		name: "flags and dead letters made again empty", do: func(j *job, adm *kadm.Client) {
			j.remove(adm, j.names.Flags())
			j.remove(adm, j.names.DeadLetters())
			kafkatest.MustTopic(j.t, j.kafka.Brokers, j.names.Flags(), 2)
			kafkatest.MustTopic(j.t, j.kafka.Brokers, j.names.DeadLetters(), 2, "max.message.bytes=16777216")
		},
	},
	{
		name: "offsets out of range", fault: "offsets were changed from outside", mend: "set the offset back to",
		do: func(j *job, adm *kadm.Client) { j.setOffsets(adm, 1_000_000) },
	},
	{
		name: "input compacted", fault: "cleanup.policy", mend: "cleanup.policy",
		do: func(j *job, adm *kadm.Client) {
			_, err := adm.AlterTopicConfigs(j.t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: kadm.StringPtr("compact")}}, j.input())
			j.must("alter the input", err)
		},
	},
	{
		name: "retention ate the changelog", fault: "begins at offset", mend: "new name",
		do: func(j *job, adm *kadm.Client) { j.eatChangelog(adm) },
	},
	{
		name: "input grown", fault: "partitions", mend: "partitions",
		do: func(j *job, adm *kadm.Client) {
			_, err := adm.CreatePartitions(j.t.Context(), 2, j.input())
			j.must("add partitions", err)
			j.waitPartitions(adm, j.input(), 4)
		},
	},
	{
		name: "table not compacted", fault: "cleanup.policy", mend: "cleanup.policy",
		do: func(j *job, adm *kadm.Client) {
			_, err := adm.AlterTopicConfigs(j.t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: kadm.StringPtr("delete")}}, j.names.Table())
			j.must("alter the table", err)
		},
	},
	{
		name: "input truncated below the position", fault: "records were deleted before they were counted", mend: "retention",
		do: func(j *job, adm *kadm.Client) {
			j.mustWrite(j.mustClient(), j.ones(40)...)
			ends, err := adm.ListEndOffsets(j.t.Context(), j.input())
			j.must("ends", err)
			_, err = adm.DeleteRecords(j.t.Context(), ends.Offsets())
			j.must("delete records", err)
		},
	},
}

func (j *job) must(what string, err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatalf("%s: %v", what, err)
	}
}

func (j *job) input() string { return j.rules.Job().Input.Topic }

// ones are events of value 1, spread over ten IDs.
func (j *job) ones(n int) []*kgo.Record {
	var out []*kgo.Record
	for i := range n {
		id := fmt.Sprint("id-", i%10)
		out = append(out, &kgo.Record{Key: []byte(id), Value: event(id, "1", "")})
	}
	return out
}

// setOffsets moves the group's offsets of the input as an operator's tools do it.
func (j *job) setOffsets(adm *kadm.Client, by int64) {
	j.t.Helper()
	was, err := adm.FetchOffsets(j.t.Context(), j.names.Group())
	j.must("fetch offsets", err)
	var to kadm.Offsets
	was.Each(func(o kadm.OffsetResponse) {
		if o.Topic == j.input() {
			to.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: o.At + by, LeaderEpoch: -1})
		}
	})
	resp, err := adm.CommitOffsets(j.t.Context(), j.names.Group(), to)
	j.must("set offsets", errors.Join(err, resp.Error()))
}

// eatChangelog deletes the table's records as a cleanup.policy of delete would have done, and puts the policy right again.
func (j *job) eatChangelog(adm *kadm.Client) {
	j.t.Helper()
	policy := func(to string) {
		_, err := adm.AlterTopicConfigs(j.t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &to}}, j.names.Table())
		j.must("alter the table", err)
	}
	policy("delete")
	ends, err := adm.ListEndOffsets(j.t.Context(), j.names.Table())
	j.must("ends", err)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := adm.DeleteRecords(j.t.Context(), ends.Offsets())
		if err = errors.Join(err, resp.Error()); err == nil {
			break
		}
		if time.Now().After(deadline) { // until the partition has heard of the policy, Kafka refuses
			j.t.Fatalf("delete records of the table: %v", err)
		}
	}
	policy("compact")
}

// refused starts the job, which must refuse with a fail-stop and change nothing, and answers that.
func (j *job) refused() *eos.FailStop {
	j.t.Helper()
	adm := kadm.NewClient(j.mustClient())
	before := j.holds(adm)
	err := j.try(nil)
	if after := j.holds(adm); after != before {
		j.t.Errorf("it changed what was there:\n%s\nwas\n%s", after, before)
	}
	var stop *eos.FailStop
	if !errors.As(err, &stop) {
		j.t.Fatalf("got %v, want a fail-stop", err)
	}
	return stop
}

// holds is which topics and offsets the job has, how they are set and what they hold, for people and for comparison.
func (j *job) holds(adm *kadm.Client) string {
	j.t.Helper()
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	topics, err := adm.ListTopics(j.t.Context())
	j.must("topics", err)
	topics.FilterInternal()
	for _, topic := range topics.Names() {
		if !strings.HasPrefix(topic, j.names.Job) {
			continue
		}
		add("%s is %v", topic, topics[topic].ID)
		configs, err := adm.DescribeTopicConfigs(j.t.Context(), topic)
		j.must("settings of "+topic, err)
		for _, c := range configs[0].Configs {
			add("%s has %s=%s", topic, c.Key, c.MaybeValue())
		}
		starts, err := adm.ListStartOffsets(j.t.Context(), topic)
		j.must("starts of "+topic, err)
		starts.Each(func(o kadm.ListedOffset) { add("%s/%d begins at %d", o.Topic, o.Partition, o.Offset) })
		ends, err := adm.ListEndOffsets(j.t.Context(), topic)
		j.must("ends of "+topic, err)
		ends.Each(func(o kadm.ListedOffset) { add("%s/%d ends at %d", o.Topic, o.Partition, o.Offset) })
	}
	offsets, err := adm.FetchOffsets(j.t.Context(), j.names.Group())
	if !errors.Is(err, kerr.GroupIDNotFound) { // the embedded broker knows no group without members
		j.must("offsets", err)
	}
	offsets.Each(func(o kadm.OffsetResponse) {
		add("the group has %d %q for %s/%d", o.At, o.Metadata, o.Topic, o.Partition)
	})
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// change makes the job file say something else.
func (j *job) change(from, to string) {
	rs, err := rules.Load([]byte(strings.ReplaceAll(strings.Replace(countJob, from, to, 1), "NAME", j.names.Job)))
	j.must("load", err)
	j.rules = rs
}

func (j *job) remove(adm *kadm.Client, topic string) {
	j.t.Helper()
	_, err := adm.DeleteTopic(j.t.Context(), topic)
	j.must("delete "+topic, err)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		topics, err := adm.ListTopics(j.t.Context(), topic)
		j.must("list topics", err)
		if !topics.Has(topic) {
			return
		}
		if time.Now().After(deadline) {
			j.t.Fatalf("%s is still there", topic)
		}
	}
}

// waitPartitions waits until the broker knows what its controller answered.
func (j *job) waitPartitions(adm *kadm.Client, topic string, want int) {
	j.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		topics, err := adm.ListTopics(j.t.Context(), topic)
		j.must("list topics", err)
		if len(topics[topic].Partitions) == want {
			return
		}
		if time.Now().After(deadline) {
			j.t.Fatalf("%s has %d partitions, want %d", topic, len(topics[topic].Partitions), want)
		}
	}
}

func (j *job) remake(adm *kadm.Client, topic string, partitions int32, configs ...string) {
	j.t.Helper()
	j.remove(adm, topic)
	kafkatest.MustTopic(j.t, j.kafka.Brokers, topic, partitions, configs...)
}

func TestProcessor_StopsAtWhatWouldBreakAGuarantee(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for _, c := range stopCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			j := mustJob(t, brokers, countJob, 2)
			j.mustWrite(j.mustClient(), j.ones(100)...)
			j.mustRun()
			c.do(j, kadm.NewClient(j.mustClient()))
			if c.fault == "" {
				j.mustWrite(j.mustClient(), j.ones(100)...)
				j.mustRun()
				for id, st := range j.table() {
					if st.Count != 20 || j.total(st, "sum") != "20" {
						t.Errorf("%s: got %+v, want 20 events", id, st)
					}
				}
				return
			}
			stop := j.refused()
			if !strings.Contains(stop.Fault, c.fault) || !strings.Contains(stop.Mend, c.mend) {
				t.Errorf("got fault %q, mend %q, want them to name %q and %q", stop.Fault, stop.Mend, c.fault, c.mend)
			}
		})
	}
}

// What is refused at a job's first start has left no topic behind.
func TestProcessor_CreatesNothingWhereItsInputIsRefused(t *testing.T) {
	j := mustJob(t, mustFake(t), countJob, 2, "cleanup.policy=compact")
	if stop := j.refused(); !strings.Contains(stop.Fault, "cleanup.policy=compact") {
		t.Errorf("got %v, want a fail-stop that names the policy", stop)
	}
}

// One broker: what is asked for in so many words is not there; the default is what there can be.
func TestProcessor_StopsWhereTheReplicationThatIsAskedForIsNotThere(t *testing.T) {
	j := mustJob(t, mustFake(t), countJob, 2)
	adm := kadm.NewClient(j.mustClient())
	before := j.holds(adm)
	err := j.try(func(c *Config) { c.Replication = 3 })
	if after := j.holds(adm); after != before {
		t.Errorf("it changed what was there:\n%s\nwas\n%s", after, before)
	}
	var stop *eos.FailStop
	if !errors.As(err, &stop) || !strings.Contains(stop.Fault, "replication 1, below 3") || !strings.Contains(stop.Mend, "a lower --replication") {
		t.Errorf("got %v, want a fail-stop that names the replication", err)
	}
	j.mustRun()
}

// A producer that hashes over more partitions than the job was made for puts every key elsewhere.
func TestProcessor_StopsWhenTheInputGrowsUnderIt(t *testing.T) {
	j := mustJob(t, kafkatest.Shared(t), countJob, 2)
	j.mustWrite(j.mustClient(), j.ones(100)...)
	r := j.mustStart()
	r.waitLevel("before")
	_, err := kadm.NewClient(j.mustClient()).CreatePartitions(t.Context(), 1, j.input())
	j.must("add a partition", err)
	select {
	case err := <-r.done:
		var stop *eos.FailStop
		if !errors.As(err, &stop) || !strings.Contains(stop.Fault, "partitions") || stop.Mend == "" {
			t.Errorf("got %v, want a fail-stop that names the partitions", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it went on")
		r.stop()
	}
}

// Another job under a name that is taken is refused, and the one that has the name counts on.
func TestProcessor_ASecondJobOfTheSameNameStopsAndTheFirstGoesOn(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for name, change := range map[string][2]string{
		"another rule": {">= 10", ">= 11"}, "another input": {"-events", "-other"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := mustJob(t, brokers, countJob, 2)
			kafkatest.MustTopic(t, brokers, j.names.Job+"-other", 2)
			j.mustWrite(j.mustClient(), j.ones(100)...)
			first := j.mustStart()
			first.waitLevel("before")
			second := *j
			second.change(change[0], change[1])
			err := second.try(func(c *Config) { c.StateDir, c.Instance, c.UntilCaughtUp = t.TempDir(), "p1", false })
			var stop *eos.FailStop
			if !errors.As(err, &stop) || stop.Mend == "" {
				t.Errorf("got %v, want a fail-stop with a mend", err)
			}
			j.mustWrite(j.mustClient(), j.ones(100)...)
			first.waitFor("the events that were written after", func(map[string]float64) bool { return j.committedEvents() >= 200 })
			first.stop()
			for id, st := range j.table() {
				if st.Count != 20 {
					t.Errorf("%s: got %d events, want 20", id, st.Count)
				}
			}
		})
	}
}
