package eos

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tampered is a job that was stopped cleanly, and then meddled with.
type tampered struct {
	*world
	cfg Config
	adm *kadm.Client
}

// commitByHand does what tools that reset offsets do.
func (w *tampered) commitByHand(topic string, offset int64, metadata string) {
	w.t.Helper()
	var o kadm.Offsets
	for p := range w.partitions {
		o.Add(kadm.Offset{Topic: topic, Partition: p, At: offset, LeaderEpoch: -1, Metadata: metadata})
	}
	if err := w.adm.CommitAllOffsets(w.t.Context(), w.names.Group(), o); err != nil {
		w.t.Fatalf("commit offsets: %v", err)
	}
}

func (w *tampered) deleteGroup() {
	w.t.Helper()
	if _, err := w.adm.DeleteGroup(w.t.Context(), w.names.Group()); err != nil {
		w.t.Fatalf("delete group: %v", err)
	}
}

// recreate deletes a topic, makes it again, and writes the records into it.
func (w *tampered) recreate(topic string, records ...*kgo.Record) {
	w.t.Helper()
	if _, err := w.adm.DeleteTopic(w.t.Context(), topic); err != nil {
		w.t.Fatalf("delete %s: %v", topic, err)
	}
	compact := "compact"
	eventually(w.t, time.Minute, "create "+topic+" again", func() bool {
		_, err := w.adm.CreateTopic(w.t.Context(), w.partitions, 1, map[string]*string{"cleanup.policy": &compact}, topic)
		return err == nil
	})
	cl, err := kgo.NewClient(w.kafka.Franz(kgo.RecordPartitioner(kgo.ManualPartitioner()))...) // that knows no other ID
	if err != nil {
		w.t.Fatalf("client: %v", err)
	}
	defer cl.Close()
	for _, r := range records {
		again := &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
		if err := cl.ProduceSync(w.t.Context(), again).FirstErr(); err != nil {
			w.t.Fatalf("write to the new %s: %v", topic, err)
		}
	}
}

func (w *tampered) deleteRecords(topic string, below int64) {
	w.t.Helper()
	var o kadm.Offsets
	for p := range w.partitions {
		o.Add(kadm.Offset{Topic: topic, Partition: p, At: below})
	}
	resp, err := w.adm.DeleteRecords(w.t.Context(), o)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		w.t.Fatalf("delete records of %s: %v", topic, err)
	}
}

func (w *tampered) set(topic, key, value string) {
	w.t.Helper()
	_, err := w.adm.AlterTopicConfigs(w.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, topic)
	if err != nil {
		w.t.Fatalf("set %s of %s: %v", key, topic, err)
	}
}

// tampering is what somebody does while the job is stopped, and what the next start has to say to it;
// with no words, it goes on and counts once.
type tampering struct {
	name  string
	do    func(w *tampered)
	words []string
}

var tamperings = []tampering{
	{name: "nothing (the control)", do: func(*tampered) {}},
	{name: "offsets expired", do: (*tampered).deleteGroup},
	{
		name: "offsets reset", do: func(w *tampered) { w.commitByHand(w.input, 3, "") },
		words: []string{"has offset 3 for ", "changed from outside", "set the offset back to"},
	},
	{
		name: "offsets of an older commit", do: func(w *tampered) { w.commitByHand(w.input, 3, "v1 1 "+w.names.TransactionalID("a")) },
		words: []string{"has offset 3 for ", "changed from outside"},
	},
	{
		name: "offsets of another owner", do: func(w *tampered) {
			for topic, of := range w.offsets() {
				for p, o := range of {
					meta, err := ParseOffsetMetadata(o.Metadata)
					if err != nil {
						w.t.Fatalf("metadata: %v", err)
					}
					meta.Owner = w.names.TransactionalID("nobody")
					var one kadm.Offsets
					one.Add(kadm.Offset{Topic: topic, Partition: p, At: o.At, LeaderEpoch: -1, Metadata: meta.String()})
					if err := w.adm.CommitAllOffsets(w.t.Context(), w.names.Group(), one); err != nil {
						w.t.Fatalf("commit: %v", err)
					}
				}
			}
		},
		words: []string{"/nobody\" in group", "/a\" in table", "changed from outside"},
	},
	{
		name: "offsets of a newer binary", do: func(w *tampered) { w.commitByHand(w.input, 3, "v2 anything") },
		words: []string{"format v2", "newer"},
	},
	{
		name: "changed rules", do: func(w *tampered) { w.cfg.Digest = "d2" },
		words: []string{"made by rules d1", "means d2", "needs a new name"},
	},
	{
		name: "new generation number, old topics", do: func(w *tampered) {
			w.cfg.Names.Generation = 0 // the same names, another generation
		},
		words: []string{"generation 1", "generation 0"},
	},
	{
		name: "table recreated empty", do: func(w *tampered) { w.recreate(w.names.Table()) },
		words: []string{"-table/", "deleted, truncated or recreated", "new name"},
	},
	{
		name: "table recreated with what it held", do: func(w *tampered) { w.recreate(w.names.Table(), w.readAll(w.names.Table())...) },
		words: []string{"-table was deleted and created again", "new name"},
	},
	{
		name: "input recreated", do: func(w *tampered) { w.recreate(w.input, w.readAll(w.input)...) },
		words: []string{"-in was deleted and created again", "new name"},
	},
	{
		name: "input deleted before it was counted", do: func(w *tampered) {
			w.produce(200, 20)
			w.deleteRecords(w.input, 100)
		},
		words: []string{"-in/", "begins at offset 100", "deleted before they were counted"},
	},
}

func (w *tampered) offsets() kadm.Offsets {
	w.t.Helper()
	responses, err := w.adm.FetchOffsets(w.t.Context(), w.names.Group())
	if err != nil {
		w.t.Fatalf("fetch offsets: %v", err)
	}
	return responses.Offsets()
}

func TestProtect_OffsetsTableAndInputMustAgree(t *testing.T) {
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testTampering(t, startFake(t), c)
		})
	}
}

// testTampering tries it with the local state there and without it.
func testTampering(t *testing.T, brokers []string, c tampering) {
	base := newWorld(t, brokers, 2)
	w := &tampered{world: base, cfg: base.config("a", t.TempDir()), adm: kadm.NewClient(base.cl)}
	w.produce(100, 20)
	u, stop := w.run(w.cfg)
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()
	c.do(w)
	for _, dir := range []string{w.cfg.Dir, t.TempDir()} {
		w.cfg.Dir = dir
		u, stop = w.run(w.cfg)
		if len(c.words) > 0 {
			w.refused(u, c.words)
			if err := stop(); err == nil {
				t.Errorf("the run ended without an error, want the fail-stop")
			}
			continue
		}
		w.produce(100, 30)
		w.caughtUp(u)
		if err := stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		w.check()
	}
}

func (w *tampered) refused(u *Unit, words []string) {
	w.t.Helper()
	eventually(w.t, time.Minute, "refuse", func() bool { return u.Err() != nil })
	var stop *FailStop
	if !errors.As(u.Err(), &stop) {
		w.t.Fatalf("stopped for %v, want a fail-stop", u.Err())
	}
	for _, word := range words {
		if !strings.Contains(stop.Error(), word) {
			w.t.Errorf("fail-stop does not say %q: %v", word, stop)
		}
	}
	if stop.Mend == "" {
		w.t.Errorf("fail-stop without a mend: %v", stop)
	}
}

// Where the embedded broker differs from Kafka, or where Kafka's own answers matter.
func TestProtect_OffsetsTableAndInputMustAgreeOnKafka(t *testing.T) {
	brokers := kafkatest.Shared(t)
	for _, c := range []tampering{
		{name: "offsets expired", do: (*tampered).deleteGroup},
		{
			name: "table truncated at its start", do: func(w *tampered) {
				w.set(w.names.Table(), "cleanup.policy", "delete") // with compact alone Kafka refuses
				eventually(w.t, time.Minute, "delete records of the table", func() bool {
					var o kadm.Offsets
					o.Add(kadm.Offset{Topic: w.names.Table(), Partition: 0, At: 5})
					resp, err := w.adm.DeleteRecords(w.t.Context(), o)
					return err == nil && resp.Error() == nil
				})
				w.set(w.names.Table(), "cleanup.policy", "compact")
			},
			words: []string{"-table/", "begins at offset 5, not 0", "DeleteRecords", "new name"},
		},
		{
			name: "input recreated", do: func(w *tampered) { w.recreate(w.input, w.readAll(w.input)...) },
			words: []string{"-in was deleted and created again", "new name"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testTampering(t, brokers, c)
		})
	}
}

// A table that is not compacted alone would forget values; a loop that expires would forget events.
func TestProtect_TopicsThatForgetAreRefused(t *testing.T) {
	w := &tampered{world: newWorld(t, kafkatest.Shared(t), 2)}
	w.adm = kadm.NewClient(w.cl)
	u, err := New(w.config("a", t.TempDir()))
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	defer func() { _ = u.Close() }()
	plan := &TopicPlan{Names: w.names, Input: w.input}
	right := func() {
		w.set(w.names.Table(), "delete.retention.ms", "604800000")
		w.set(w.names.Table(), "cleanup.policy", "compact")
		w.set(w.names.Loop(), "retention.ms", "-1")
	}
	w.set(w.names.Table(), "max.message.bytes", strconv.Itoa(tableMessageBytes))
	w.set(w.names.Loop(), "max.message.bytes", strconv.Itoa(largeMessageBytes))
	w.set(w.names.DeadLetters(), "max.message.bytes", strconv.Itoa(largeMessageBytes))
	right()
	eventually(t, time.Minute, "the control: right topics are taken", func() bool {
		_, err = u.PrepareTopics(t.Context(), plan)
		return err == nil
	})
	for _, c := range [][3]string{
		{w.names.Table(), "cleanup.policy", "compact,delete"},
		{w.names.Table(), "cleanup.policy", "delete"},
		{w.names.Table(), "delete.retention.ms", "1000"},
		{w.names.Loop(), "retention.ms", "1000"},
		{w.names.Loop(), "cleanup.policy", "compact"},
		{w.input, "cleanup.policy", "compact"},
	} {
		right()
		w.set(c[0], c[1], c[2])
		want := c[0] + " has " + c[1] + "=" + c[2]
		eventually(t, time.Minute, "refuse "+want, func() bool {
			_, err = u.PrepareTopics(t.Context(), plan)
			var stop *FailStop
			return errors.As(err, &stop) && strings.Contains(err.Error(), want)
		})
	}
}
