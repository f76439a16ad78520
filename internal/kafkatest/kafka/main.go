// Command kafka runs a real Apache Kafka of one broker in the foreground, for people. Ctrl-C ends it; its data stay for the next
// start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// stopWithin is how long the broker may take to end by itself.
const stopWithin = 30 * time.Second

func main() {
	dir := flag.String("dir", filepath.Join(".tidemark", "kafka"), "where data and logs lie")
	port := flag.Int("port", 9092, "port on 127.0.0.1")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, *port); err != nil {
		fmt.Fprintf(os.Stderr, "kafka: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, port int) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	fmt.Println("Starting Apache Kafka. The first time fetches its jars from Maven Central.")
	cluster, err := kafkatest.Start(ctx, kafkatest.Options{
		Dir: dir, Ports: []int{port},
		JVM: []string{"-Xmx1g", "-XX:TieredStopAtLevel=4"},
		Properties: map[string]string{
			"auto.create.topics.enable": "true", "num.partitions": "4", // as people expect it of a Kafka at their desk
			"log.cleaner.backoff.ms": "15000",
			"transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000",
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	fmt.Printf("Kafka listens on %s; its data lie in %s. Ctrl-C ends it.\n", cluster.Addrs()[0], dir)
	select {
	case <-ctx.Done():
	case <-cluster.Nodes[0].Ended():
		return fmt.Errorf("the broker ended by itself; its log: %s", cluster.Nodes[0].Log())
	}
	fmt.Println("Ending.")
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	return cluster.Stop(end)
}
