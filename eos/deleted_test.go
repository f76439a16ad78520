package eos

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mustUnitOf is a unit of the job "job" with the input "events".
func mustUnitOf(t *testing.T, k *Kafka) *Unit {
	t.Helper()
	names := Names{Job: "job", Generation: 1}
	u, err := New(Config{
		Kafka: k, Names: names, Input: "events", Instance: "a", Digest: "d", Dir: t.TempDir(),
		Codec: sumCodec{}, NewHandler: sumHandler(names),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

// mustPrepared is a unit whose topics are all made.
func mustPrepared(t *testing.T) (*Unit, *TopicPlan, *kadm.Client) {
	t.Helper()
	_, k := mustFake(t)
	u := mustUnitOf(t, k)
	mustTopic(t, k, "events", 2, nil)
	plan := &TopicPlan{Names: u.cfg.Names, Input: "events"}
	if err := prepare(t, u, plan); err != nil {
		t.Fatalf("the first start: %v", err)
	}
	return u, plan, kadm.NewClient(mustClient(t, k))
}

// prepare asks again, as processors do, while an answer may pass.
func prepare(t *testing.T, u *Unit, plan *TopicPlan) (err error) {
	t.Helper()
	await(t, func() bool {
		_, err = u.PrepareTopics(within(t), plan)
		return err == nil || !isTransient(err)
	})
	return err
}

// exist are the topics that there are.
func exist(t *testing.T, adm *kadm.Client) []string {
	t.Helper()
	topics, err := adm.ListTopics(within(t))
	if err != nil {
		t.Fatal(err)
	}
	topics.FilterInternal()
	return topics.Names()
}

// Either trace of a session is enough: the group's offsets expire, and the table may be what was deleted.
func TestDeleted_WhatIsMissingOfAJobThatHasBegunIsNotMadeAgain(t *testing.T) {
	all := []string{"events", "job-dead-letters", "job-flags", "job-loop", "job-table"}
	inTable := func(t *testing.T, u *Unit, _ *kadm.Client) {
		r := &kgo.Record{Topic: "job-table", Key: []byte("id"), Value: []byte("state")}
		if err := u.admin.cl.ProduceSync(within(t), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	inGroup := func(t *testing.T, _ *Unit, adm *kadm.Client) {
		var o kadm.Offsets
		o.Add(kadm.Offset{Topic: "events", Partition: 1, At: 0, LeaderEpoch: -1})
		if err := adm.CommitAllOffsets(within(t), "job", o); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		begin func(*testing.T, *Unit, *kadm.Client)
		lost  []string
		words []string // nil: it is made again
	}{
		"not begun":               {func(*testing.T, *Unit, *kadm.Client) {}, all[1:], nil},
		"begun, nothing lost":     {inTable, nil, nil},
		"outputs, by the table":   {inTable, all[1:3], []string{"job-table/", "the flags job-flags", "the dead letters job-dead-letters", "restore the flags, or create them empty"}},
		"outputs, by the group":   {inGroup, all[1:3], []string{"events/1", "the flags job-flags", "the dead letters job-dead-letters"}},
		"everything but an input": {inGroup, all[1:], []string{"the table job-table", "the loop job-loop", "restore the table"}},
		"the input, by the table": {inTable, all[:1], []string{"the input events", "restore the input"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			u, plan, adm := mustPrepared(t)
			c.begin(t, u, adm)
			for _, topic := range c.lost {
				if _, err := adm.DeleteTopic(within(t), topic); err != nil {
					t.Fatal(err)
				}
			}
			before := exist(t, adm)
			err := prepare(t, u, plan)
			after := exist(t, adm)
			if c.words == nil {
				if err != nil || !slices.Equal(after, all) {
					t.Errorf("got %v and topics %v, want all of them and no error", err, after)
				}
				return
			}
			var stop *FailStop
			if !errors.As(err, &stop) || !slices.Equal(after, before) {
				t.Fatalf("got %v and topics %v, want a fail-stop and topics %v", err, after, before)
			}
			for _, word := range c.words {
				if !strings.Contains(stop.Error(), word) {
					t.Errorf("the fail-stop does not say %q: %v", word, stop)
				}
			}
		})
	}
}
