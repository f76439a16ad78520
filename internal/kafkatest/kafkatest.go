package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// readyWithin is the patience with a cluster on a busy machine, the download of its jars included.
const readyWithin = 5 * time.Minute

// shared is the cluster of this test binary.
var shared = sync.OnceValues(func() (*Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	return Start(ctx, Options{})
})

// Shared returns the address of a real Kafka of one broker which all tests of the binary share: name topics, groups and
// transactional IDs by TopicName. It starts on first use and ends with the test binary. The test is skipped in -short
// mode, and where java or mvn is missing unless REQUIRE=1 is set.
func Shared(t testing.TB) []string {
	t.Helper()
	needsKafka(t)
	c, err := shared()
	refuse(t, err)
	return c.Addrs()
}

// MustCluster starts a real Kafka for this test alone and ends it with the test; data and logs stay if the test failed.
// Tests with several brokers take turns, over all processes of the machine, so one test may hold only one such
// cluster. It is skipped as Shared is.
func MustCluster(t testing.TB, o Options) *Cluster {
	t.Helper()
	needsKafka(t)
	if o.Brokers > 1 {
		turn, err := lockFile(filepath.Join(os.TempDir(), "tidemark-kafka-brokers.lock"))
		if err != nil {
			t.Fatalf("wait for the turn of a cluster with %d brokers: %v", o.Brokers, err)
		}
		t.Cleanup(func() { turn.Close() })
	}
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	c, err := Start(ctx, o)
	refuse(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("data and logs of the cluster stay in %s", c.Keep())
		}
		if err := c.Close(); err != nil {
			t.Errorf("end the cluster: %v", err)
		}
	})
	return c
}

func needsKafka(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("real Kafka: left out of -short")
	}
}

// refuse ends a test that has no Kafka: skipped where a tool is missing, failed otherwise.
func refuse(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrTool) && os.Getenv("REQUIRE") != "1":
		t.Skipf("real Kafka: %v", err)
	default:
		t.Fatalf("real Kafka: %v", err)
	}
}

var topics atomic.Int64

// TopicName is a name for a topic, a group or a job that no other call returns in this process or a later one.
func TopicName(t testing.TB) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	return fmt.Sprintf("%.80s-%x-%d", clean, time.Now().UnixMilli(), topics.Add(1))
}

// MustTopic creates a topic, on as many brokers as there are, three at most, and returns when all its partitions have a
// leader. Each of configs is "name=value".
func MustTopic(t testing.TB, addrs []string, name string, partitions int32, configs ...string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	defer cl.Close()
	settings := map[string]*string{}
	for _, c := range configs {
		key, value, ok := strings.Cut(c, "=")
		if !ok {
			t.Fatalf("create topic %s: got setting %q, want name=value", name, c)
		}
		settings[key] = &value
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopic(ctx, partitions, int16(min(3, len(addrs))), settings, name); err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := leaders(ctx, adm, name, partitions)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("create topic %s: %v", name, err)
		case <-tick.C:
		}
	}
}

func leaders(ctx context.Context, adm *kadm.Client, topic string, partitions int32) error {
	all, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	led := int32(0)
	for _, p := range all[topic].Partitions {
		if p.Err == nil && p.Leader >= 0 {
			led++
		}
	}
	if led != partitions {
		return fmt.Errorf("%d of %d partitions have a leader", led, partitions)
	}
	return nil
}
