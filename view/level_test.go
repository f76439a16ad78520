package view

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
)

// levelSince waits until a partition is level as of a time after at.
func (r *running) levelSince(p int32, at time.Time) {
	r.t.Helper()
	r.await("being level", func() bool {
		st := r.Status().Partitions[p]
		return st.Age != NotKnown && time.Now().Add(-st.Age).After(at)
	})
}

// neverLevelSince lets the prober look several times and requires that it does not call the partition level.
func (r *running) neverLevelSince(p int32, at time.Time) {
	r.t.Helper()
	probes := r.probes.Load()
	r.await("probes", func() bool { return r.probes.Load() > probes+20 })
	if st := r.Status().Partitions[p]; st.Age != NotKnown && time.Now().Add(-st.Age).After(at) {
		r.t.Errorf("partition %d says it is %s old, which is after %s ago", p, st.Age, time.Since(at))
	}
}

func TestView_AgesUntilTheInputIsCovered(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	r.levelSince(0, time.Now()) // an idle topic does not age
	r.levelSince(1, time.Now())

	id := "a"
	p := w.on(id)
	w.input(w.schema.InputTopic, p, 1, kgo.TryCommit)
	produced := time.Now()
	r.neverLevelSince(p, produced) // nobody has processed the event
	r.levelSince(1-p, produced)
	if st := r.Status().Partitions[p]; st.LagRecords == 0 {
		t.Errorf("got lag 0, want the event that is not covered")
	}
	if code, body, _ := r.get("/v1/ids/" + id + "?max_age=1ms"); code != 503 || !strings.Contains(body, "max_age") {
		t.Errorf("max_age: got %d %s, want 503", code, body)
	}
	w.commit(change{id, 1, 5}) // covers it
	r.levelSince(p, produced)
	if code, body, _ := r.get("/v1/ids/" + id + "?max_age=10s"); code != 200 || !strings.Contains(body, `"age":"`) {
		t.Errorf("max_age: got %d %s, want 200", code, body)
	}
}

func TestView_MarkersAndAbortedRecordsAtTheEndDoNotAge(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.view(t.TempDir()).ready()
	w.input(w.schema.InputTopic, 0, 1, kgo.TryCommit)
	w.commit(change{"a", 1, 5})
	w.input(w.schema.InputTopic, 0, 40, kgo.TryAbort)
	r.levelSince(0, time.Now())
	if st := r.Status().Partitions[0]; st.LagRecords != 0 {
		t.Errorf("got lag %d, want 0: nothing of it can be delivered", st.LagRecords)
	}
	w.input(w.schema.InputTopic, 0, 1, kgo.TryCommit)
	r.neverLevelSince(0, time.Now())
}

// TestView_RekeyedEventsAgeEveryPartition: an event of one partition may be on its way to an ID on another.
func TestView_RekeyedEventsAgeEveryPartition(t *testing.T) {
	w := mustTable(t, embedded(t), 2)
	w.begin()
	r := w.view(t.TempDir()).ready()
	w.input(w.names.Loop(), 0, 1, kgo.TryCommit)
	w.transact(kgo.TryCommit, w.position(0, 0, 1))
	r.await("knowing of the loop", func() bool { return r.Status().Rekeyed })
	r.levelSince(0, time.Now())

	w.input(w.schema.InputTopic, 1, 1, kgo.TryCommit)
	produced := time.Now()
	r.neverLevelSince(0, produced) // partition 1 may send the event on to it
	w.input(w.names.Loop(), 0, 1, kgo.TryCommit)
	w.transact(kgo.TryCommit, w.position(1, 1, 0))
	r.covers(1, w.seq[1])
	r.levelSince(1, produced)
	r.neverLevelSince(0, produced)                 // it did, and the loop is not covered
	w.transact(kgo.TryCommit, w.position(0, 0, 2)) // the event, and the marker before it
	r.levelSince(0, produced)
}

// TestView_ADisconnectedViewAges: no answer is younger than what it knows.
func TestView_ADisconnectedViewAges(t *testing.T) {
	link := newLink(t)
	w := mustTable(t, embedded(t), 1)
	w.begin()
	direct := w.kafka
	w.kafka = &eos.Kafka{Brokers: direct.Brokers, ClientID: "test", Dial: link.dial}
	r := w.view(t.TempDir()).ready()
	r.levelSince(0, time.Now())
	link.cut()
	cut := time.Now()
	r.await("noticing", func() bool { return r.Status().Why != "" })
	if st := r.Status().Partitions[0]; time.Now().Add(-st.Age).After(cut) || time.Now().Add(-st.TableAge).After(cut.Add(time.Millisecond)) {
		t.Errorf("cut off %s ago, got age %s and table age %s", time.Since(cut), st.Age, st.TableAge)
	}
	link.mend()
	r.levelSince(0, time.Now())
}
