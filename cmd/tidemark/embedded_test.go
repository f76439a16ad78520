package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestEmbedded_AFullDiskEndsTheVerb(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skipf("no file here that is always full: %v", err)
	}
	job, err := filepath.Abs(dataFile("job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	events := writeFile(t, "none.ndjson", "")
	common := []string{"--embedded", "--job", job}
	try(t, "", append(common, "produce", "--create-topics", events)...).wants(t, "produce", exitDone, "", "")
	proc := start(t, append(common, "run", "--view", "127.0.0.1:0")...)
	addr := proc.says(`embedded broker on (\S+),`)
	fetch(t, proc.says(`msg="serving a view" url=(http://\S+)`)+"/readyz")
	part := filepath.Join(".tidemark", "broker", "data", "partitions", "ssh-auth-events-0")
	if err := errors.Join(os.MkdirAll(part, 0o755), os.Symlink("/dev/full", filepath.Join(part, "0.dat"))); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordRetries(0), kgo.RequestRetries(0), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	acked := make(chan error, 1)
	cl.Produce(t.Context(), &kgo.Record{Topic: "ssh-auth-events", Value: []byte("{}")}, func(_ *kgo.Record, err error) { acked <- err })
	select {
	case code := <-proc.code:
		done{code, "", proc.err.String()}.wants(t, "run", exitEnvironment, "", "tidemark: broker: the embedded broker on .tidemark/broker has stopped: ")
	case <-time.After(time.Minute):
		t.Fatalf("run did not end within a minute:\n%s", proc.err.String())
	}
	cl.Close()
	if err := <-acked; err == nil {
		t.Error("a record for which there was no space was acknowledged")
	}
}
