package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	embedded "github.com/tidemark/tidemark/internal/broker"
	"github.com/tidemark/tidemark/internal/kafkatest"
)

func init() { roles["broker"] = runBroker }

// broker is what the contenders run on, a process of its own in every case.
type broker struct {
	name  string
	addrs []string
	stop  func() error
}

// jvm gives a broker of the benchmark what one in production has: the optimising compiler and G1, where the clusters of
// the tests have what starts fast. On a small machine the collector's threads are few, so that the broker's pauses and
// its CPU are the same for every contender.
var jvm = []string{"-Xms1g", "-Xmx1g", "-XX:TieredStopAtLevel=4", "-XX:-UseSerialGC", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"}

// startBroker starts a broker of the kind, or takes one that runs already.
func startBroker(ctx context.Context, kind, external, dir string) (*broker, error) {
	if external != "" {
		return &broker{name: "at " + external, addrs: strings.Split(external, ","), stop: func() error { return nil }}, nil
	}
	switch kind {
	case "kafka":
		return startKafka(ctx, filepath.Join(dir, "kafka"))
	case "embedded":
		return startEmbedded(ctx, filepath.Join(dir, "broker"))
	default:
		return nil, fmt.Errorf("no broker of kind %q; there are kafka and embedded", kind)
	}
}

func startKafka(ctx context.Context, dir string) (*broker, error) {
	c, err := kafkatest.Start(ctx, kafkatest.Options{Dir: dir, JVM: jvm, Properties: map[string]string{
		// As in Kafka's own server.properties and defaults, in place of what suits short tests.
		"log.cleaner.backoff.ms": "15000",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000",
		"message.max.bytes": "16777216",
	}})
	if err != nil {
		return nil, err
	}
	return &broker{name: "Apache Kafka, one broker, " + strings.Join(jvm, " "), addrs: c.Addrs(), stop: c.Close}, nil
}

func startEmbedded(ctx context.Context, dir string) (*broker, error) {
	c, err := startChild(task{Role: "broker", Dir: dir})
	if err != nil {
		return nil, err
	}
	r, err := c.ready(ctx, time.Minute)
	if err != nil {
		return nil, errors.Join(err, c.kill())
	}
	stop := func() error {
		_, err := c.stop()
		return err
	}
	return &broker{name: "embedded", addrs: r.Addrs, stop: stop}, nil
}

// runBroker is the embedded broker as a child.
func runBroker(ctx context.Context, t *task, ready func(report)) (report, error) {
	b, err := embedded.Start(ctx, embedded.Config{Dir: t.Dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return report{}, err
	}
	ready(report{Addrs: b.Addrs()})
	<-ctx.Done()
	return report{}, b.Close()
}
