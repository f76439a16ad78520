package eos

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestTopics_CreatesWhatIsMissingAndThenFindsNoFault(t *testing.T) {
	_, k := mustFake(t)
	testTopicsCreated(t, k, "job-a")
}

func testTopicsCreated(t *testing.T, k *Kafka, job string) {
	adm := kadm.NewClient(mustClient(t, k))
	plan := &TopicPlan{Names: Names{Job: job}, Input: job + "-events"}
	report, err := CheckTopics(within(t), adm, plan)
	if err != nil || len(report.Faults) != 5 || report.Stop() == nil {
		t.Fatalf("before: got %+v, %v, want five missing topics", report, err)
	}
	if _, err := EnsureTopics(within(t), adm, plan); !errors.Is(err, ErrUnknownTopic) {
		t.Fatalf("without an input: got %v, want ErrUnknownTopic", err)
	}
	plan.Partitions = 3
	created, err := EnsureTopics(within(t), adm, plan)
	want := []string{job + "-events", job + "-table", job + "-loop", job + "-flags", job + "-dead-letters"}
	if err != nil || !slices.Equal(created, want) {
		t.Fatalf("created %v, %v, want %v", created, err, want)
	}
	if created, err = EnsureTopics(within(t), adm, plan); err != nil || len(created) != 0 {
		t.Fatalf("again: created %v, %v, want nothing", created, err)
	}
	report, err = CheckTopics(within(t), adm, plan)
	if err != nil || len(report.Faults) != 0 || report.Stop() != nil {
		t.Fatalf("after: got %v, %v, want no fault", report.Faults, err)
	}
	for _, s := range report.Topics {
		if !s.Exists || s.Partitions != 3 || s.Replication != 1 || s.ID == [16]byte{} {
			t.Errorf("%s: got %+v, want 3 partitions of replication 1", s.Name, s)
		}
		for _, set := range s.Settings {
			if s.Config[set.Key] != set.Value {
				t.Errorf("%s: %s is %q, want %q", s.Name, set.Key, s.Config[set.Key], set.Value)
			}
		}
	}
}

func TestTopics_NamesEveryFaultWithItsMend(t *testing.T) {
	_, k := mustFake(t)
	testTopicFaults(t, k, "job-b")
}

func testTopicFaults(t *testing.T, k *Kafka, job string) {
	adm := kadm.NewClient(mustClient(t, k))
	mustTopic(t, k, job+"-in", 2, map[string]string{"cleanup.policy": "compact", "retention.ms": "3600000"})
	mustTopic(t, k, job+"-table", 3, map[string]string{"cleanup.policy": "delete", "delete.retention.ms": "1000"})
	mustTopic(t, k, job+"-loop", 2, map[string]string{"retention.ms": "5000"})
	mustTopic(t, k, job+"-flags", 1, map[string]string{"cleanup.policy": "compact,delete", "max.message.bytes": "500000"})
	plan := &TopicPlan{Names: Names{Job: job}, Input: job + "-in", Replication: 3}
	report, err := CheckTopics(within(t), adm, plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		topic, fault, mend string
		breaks             bool
	}{
		{"-in", "cleanup.policy=compact", "--add-config cleanup.policy=delete", true},
		{"-in", "retention.ms=3600000", "--add-config retention.ms=-1", false},
		{"-in", "replication 1, below 3", "reassign", true},
		{"-table", "cleanup.policy=delete", "--add-config cleanup.policy=compact", true},
		{"-table", "delete.retention.ms=1000", "delete.retention.ms=604800000", true},
		{"-table", "has 3 partitions, the input", "new name", true},
		{"-loop", "retention.ms=5000", "--add-config retention.ms=-1", true},
		{"-loop", "max.message.bytes", "--add-config max.message.bytes=16777216", true},
		{"-table", "max.message.bytes=1048588", "--add-config max.message.bytes=4194304", true},
		{"-flags", "has 1 partitions, the input", "kafka-topics --alter --topic " + job + "-flags --partitions 2", true},
		{"-flags", "max.message.bytes=500000", "--add-config max.message.bytes=1048588", true},
		{"-flags", "cleanup.policy=compact,delete", "--add-config cleanup.policy=delete", true},
		{"-dead-letters", "does not exist", "--create", true},
	} {
		if !slices.ContainsFunc(report.Faults, func(f TopicFault) bool {
			return f.Topic == job+want.topic && f.Breaks == want.breaks && strings.Contains(f.Fault, want.fault) && strings.Contains(f.Mend, want.mend)
		}) {
			t.Errorf("no fault of %s%s with %q and mend %q, breaking %t, in:", job, want.topic, want.fault, want.mend, want.breaks)
		}
	}
	var stop *FailStop
	if err := report.Stop(); !errors.As(err, &stop) || strings.Contains(err.Error(), "retention.ms=3600000") {
		t.Errorf("stop: got %v, want a FailStop of what breaks a guarantee alone", err)
	}
	if t.Failed() {
		for _, f := range report.Faults {
			t.Logf("%t %s", f.Breaks, f)
		}
	}
}

// Three brokers, and topics of one replica.
func TestTopics_AReplicationThatWasAskedForIsHeldTo(t *testing.T) {
	_, k := mustFake(t, kfake.NumBrokers(3))
	adm := kadm.NewClient(mustClient(t, k))
	plan := &TopicPlan{Names: Names{Job: "job-r"}, Input: "job-r-events", Partitions: 1, Replication: 1}
	if _, err := EnsureTopics(within(t), adm, plan); err != nil {
		t.Fatal(err)
	}
	for replication, want := range map[int16]struct{ faults, breaking int }{0: {5, 0}, 1: {0, 0}, 2: {5, 5}} {
		plan.Replication = replication
		report, err := CheckTopics(within(t), adm, plan)
		if err != nil {
			t.Fatal(err)
		}
		faults, breaking := 0, 0
		for _, f := range report.Faults {
			if strings.Contains(f.Fault, "has replication 1, below") {
				faults++
				if f.Breaks && strings.Contains(f.Mend, "lower --replication") {
					breaking++
				}
			}
		}
		if faults != want.faults || breaking != want.breaking || (report.Stop() != nil) != (want.breaking > 0) {
			t.Errorf("replication %d: got %d faults, %d of them breaking, stop %v, want %+v", replication, faults, breaking, report.Stop(), want)
		}
	}
}

// What a cluster answers to a creation: some of it does not change however often one asks.
func TestPrepareTopics_StopsAtACreationThatTryingAgainDoesNotMend(t *testing.T) {
	for _, c := range []struct {
		answer *kerr.Error
		mend   string // "" : it may pass
	}{
		{kerr.InvalidReplicationFactor, "start as many brokers, or say a lower --replication"},
		{kerr.PolicyViolation, "have the cluster allow the topic"},
		{kerr.TopicAuthorizationFailed, "tidemark topics --acls"},
		{kerr.RequestTimedOut, ""},
	} {
		t.Run(c.answer.Message, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			cluster, k := mustFake(t)
			u := mustUnitOf(t, k)
			mustTopic(t, k, "events", 2, nil)
			cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
				if c.mend != "" {
					cluster.KeepControl()
				}
				resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
				for _, asked := range req.(*kmsg.CreateTopicsRequest).Topics {
					topic := kmsg.NewCreateTopicsResponseTopic()
					topic.Topic, topic.ErrorCode = asked.Topic, c.answer.Code
					resp.Topics = append(resp.Topics, topic)
				}
				return resp, nil, true
			})
			err := prepare(t, u, &TopicPlan{Names: u.cfg.Names, Input: "events"})
			if c.mend == "" {
				if err != nil {
					t.Errorf("got %v, want it tried again", err)
				}
				return
			}
			var stop *FailStop
			if !errors.As(err, &stop) || !errors.Is(err, c.answer) || !strings.Contains(stop.Mend, c.mend) || !strings.Contains(stop.Fault, "create topic job-table") {
				t.Errorf("got %v, want a fail-stop that names the topic and the mend", err)
			}
		})
	}
}

func TestTopics_ProcessorsThatCreateThemAtOnceDoNotDisturbEachOther(t *testing.T) {
	_, k := mustFake(t)
	testTopicsRace(t, k, "job-c")
}

func testTopicsRace(t *testing.T, k *Kafka, job string) {
	plan := &TopicPlan{Names: Names{Job: job}, Input: job + "-events", Partitions: 2}
	errs := make(chan error)
	for range 5 {
		adm := kadm.NewClient(mustClient(t, k))
		go func() {
			_, err := EnsureTopics(within(t), adm, plan)
			errs <- err
		}()
	}
	for range 5 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestACLs_NameEveryResourceOnce(t *testing.T) {
	plan := &TopicPlan{Names: Names{Job: "j", Generation: 2}, Input: "in"}
	seen := map[string]bool{}
	for _, a := range plan.ACLs() {
		if seen[a.For+a.Resource+a.Name] {
			t.Errorf("%s for %s twice", a, a.For)
		}
		seen[a.For+a.Resource+a.Name] = true
	}
	want := "--operation Write --operation Describe --transactional-id j.g2/ --resource-pattern-type prefixed"
	if !slices.ContainsFunc(plan.ACLs(), func(a ACL) bool { return a.String() == want }) {
		t.Errorf("got %v, want %s among them", plan.ACLs(), want)
	}
}
