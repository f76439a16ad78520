package kafkatest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kgo"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// send produces the values, and returns when all replicas that are in sync have them.
func send(t *testing.T, addrs []string, topic string, values ...string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, v := range values {
		if err := cl.ProduceSync(within(t), kgo.StringRecord(v)).FirstErr(); err != nil {
			t.Fatalf("produce %s: %v", v, err)
		}
	}
}

// receive reads the first n values of a topic.
func receive(t *testing.T, addrs []string, topic string, n int) []string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var got []string
	ctx := within(t)
	for len(got) < n {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %s: %v after %v", topic, ctx.Err(), got)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

func TestShared_ServesManyTests(t *testing.T) {
	t.Parallel()
	for range 2 {
		addrs, topic := kafkatest.Shared(t), kafkatest.TopicName(t)
		kafkatest.MustTopic(t, addrs, topic, 1)
		send(t, addrs, topic, "a")
	}
}

func TestMustCluster_GoesOnWithoutOneOfThreeBrokers(t *testing.T) {
	t.Parallel()
	c := kafkatest.MustCluster(t, kafkatest.Options{Brokers: 3})
	topic := kafkatest.TopicName(t)
	kafkatest.MustTopic(t, c.Addrs(), topic, 1)
	send(t, c.Addrs(), topic, "three up")
	victim := c.Nodes[1]
	pid := victim.PID()
	if err := victim.Kill(); err != nil || victim.PID() != 0 {
		t.Fatalf("kill broker 2: %v, process %d, want none", err, victim.PID())
	}
	send(t, c.Addrs(), topic, "two up")
	if err := victim.Start(); err != nil {
		t.Fatalf("start broker 2 again: %v", err)
	}
	if err := c.WaitReady(within(t)); err != nil {
		t.Fatalf("after the start: %v", err)
	}
	if now := victim.PID(); now == 0 || now == pid {
		t.Errorf("process of broker 2 is %d, was %d, want a new one", now, pid)
	}
	send(t, c.Addrs(), topic, "three again")
	if got, want := receive(t, c.Addrs(), topic, 3), []string{"three up", "two up", "three again"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTopicName_IsNeverGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for i := range 100 {
		t.Run(fmt.Sprint("Ünïcode / and more ", i), func(t *testing.T) {
			name := kafkatest.TopicName(t)
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" || len(name) > 150 {
				t.Errorf("got %q, which Kafka may not take", name)
			}
			if seen[name] {
				t.Errorf("got %q twice", name)
			}
			seen[name] = true
		})
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(childCluster) != "" {
		runChildCluster()
		return
	}
	os.Exit(m.Run())
}
