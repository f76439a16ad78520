package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// childDir has this test binary run a broker on the directory until it is killed.
const childDir = "BROKER_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	b, err := Start(context.Background(), Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	fmt.Println(b.Addrs()[0])
	select {} // until the test kills this process
}

// startChild runs a broker in a process of its own and returns its address and what kills it.
func startChild(t *testing.T, dir string) (addr string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start child: %v", err)
	}
	killed := false
	kill = func() {
		if killed {
			return
		}
		killed = true
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("kill child: %v", err)
		}
		_ = cmd.Wait() // always "signal: killed"
	}
	t.Cleanup(kill)
	line := bufio.NewScanner(out)
	if !line.Scan() {
		t.Fatalf("the child gave no address: %v", line.Err())
	}
	return line.Text(), kill
}

func mustStart(t *testing.T, dir string) *Broker {
	t.Helper()
	b, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustClient(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.RetryTimeout(10*time.Second))...)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(cl.Close)
	return cl
}

const (
	topic = "letters"
	group = "readers"
)

// write makes the topic, commits "a" and "b" with offset 7 and its metadata, aborts "x", and leaves "y" open.
func write(t *testing.T, addr string) {
	t.Helper()
	ctx := within(t)
	cl := mustClient(t, addr, kgo.TransactionalID("writer"), kgo.DefaultProduceTopic(topic))
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}, topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	for i, values := range [][]string{{"a", "b"}, {"x"}, {"y"}} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			if err := cl.ProduceSync(ctx, &kgo.Record{Key: []byte(v), Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatalf("produce %s: %v", v, err)
			}
		}
		if i < 2 {
			if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(i == 0)); err != nil {
				t.Fatalf("end transaction of %v: %v", values, err)
			}
		}
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 7, LeaderEpoch: -1, Metadata: "place"})
	if err := kadm.NewClient(cl).CommitAllOffsets(ctx, group, offsets); err != nil {
		t.Fatalf("commit offsets: %v", err)
	}
}

// check commits "end" in a transaction of the same producer, and compares what is committed.
func check(t *testing.T, addr string, want ...string) {
	t.Helper()
	ctx := within(t)
	w := mustClient(t, addr, kgo.TransactionalID("writer"), kgo.DefaultProduceTopic(topic)) // ends what the earlier one left open
	if err := w.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := w.ProduceSync(ctx, kgo.KeySliceRecord([]byte("end"), []byte("end"))).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
	if err := w.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatalf("end transaction: %v", err)
	}
	last := mustClient(t, addr, kgo.DefaultProduceTopic(topic))
	if err := last.ProduceSync(ctx, kgo.KeySliceRecord([]byte("last"), []byte("last"))).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
	r := mustClient(t, addr, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	var got []string
	for !slices.Contains(got, "last") {
		fetches := r.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read after %v: %v", got, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) { got = append(got, string(rec.Value)) })
	}
	if !slices.Equal(got, want) {
		t.Errorf("read_committed gives %v, want %v", got, want)
	}
	offsets, err := kadm.NewClient(r).FetchOffsets(ctx, group)
	if err != nil {
		t.Fatalf("fetch offsets: %v", err)
	}
	if o, ok := offsets.Lookup(topic, 0); !ok || o.At != 7 || o.Metadata != "place" {
		t.Errorf("committed offset: got %+v, %v, want 7 with %q", o.Offset, ok, "place")
	}
}

func TestBroker_DataSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	b, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	write(t, b.Addrs()[0])
	if err := b.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	check(t, mustStart(t, dir).Addrs()[0], "a", "b", "end", "last")
}

func TestBroker_DataSurviveAKill(t *testing.T) {
	dir := t.TempDir()
	addr, kill := startChild(t, dir)
	write(t, addr)
	kill()
	check(t, mustStart(t, dir).Addrs()[0], "a", "b", "end", "last")
}

func TestBroker_WithoutMendingAKillHidesWhatIsCommittedLater(t *testing.T) { // the control of the one before
	dir := t.TempDir()
	addr, kill := startChild(t, dir)
	write(t, addr)
	kill()
	if err := os.Remove(unclean(dir)); err != nil {
		t.Fatalf("the mark of a kill: %v", err)
	}
	check(t, mustStart(t, dir).Addrs()[0], "a", "b", "last")
}

func TestBroker_CompactionKeepsWhatIsCommitted(t *testing.T) {
	b := mustStart(t, t.TempDir())
	write(t, b.Addrs()[0])
	b.cluster.Compact()
	check(t, b.Addrs()[0], "a", "b", "end", "last")
}

func TestBroker_SecondOneOnADirectoryIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	addr, kill := startChild(t, dir)
	_, err := Start(t.Context(), Config{Dir: dir})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("while another process runs on it: got %v, want ErrLocked with %s", err, dir)
	}
	if addrs, ok := Running(dir); !ok || !slices.Equal(addrs, []string{addr}) {
		t.Errorf("Running: got %v, %v, want %s", addrs, ok, addr)
	}
	kill()
	mustStart(t, dir) // the control: the lock goes with the process
}

func TestRunning_BelievesOnlyABrokerThatAnswers(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if addrs, ok := Running(dir); ok {
		t.Errorf("of an empty directory: got %v, want none", addrs)
	}
	_, kill := startChild(t, dir)
	kill()
	if addrs, ok := Running(dir); ok {
		t.Errorf("of a broker that was killed: got %v, want none", addrs)
	}
	b := mustStart(t, other)
	if _, ok := Running(other); !ok {
		t.Error("of a broker that runs: got none")
	}
	left, err := os.ReadFile(addressFile(dir))
	if err != nil {
		t.Fatalf("the killed broker's address: %v", err)
	}
	_, id, _ := strings.Cut(string(left), " ")
	if err := os.WriteFile(addressFile(dir), []byte(b.Addrs()[0]+" "+id), 0o644); err != nil {
		t.Fatal(err)
	}
	if addrs, ok := Running(dir); ok {
		t.Errorf("with another broker on its port: got %v, want none", addrs)
	}
	if err := b.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if _, err := os.Stat(addressFile(other)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("address after Close: got %v, want none left", err)
	}
}

func TestStart_NamesTheFaultOfItsConfig(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "no directory"},
		{Config{Dir: file}, "not a directory"},
		{Config{Dir: t.TempDir(), Addr: "0.0.0.0:0"}, "loopback"},
		{Config{Dir: t.TempDir(), Addr: "example.com:9092"}, "loopback"},
		{Config{Dir: t.TempDir(), Addr: "127.0.0.1"}, "missing port"},
		{Config{Dir: t.TempDir(), Addr: "127.0.0.1:x"}, "want a port"},
		{Config{Dir: t.TempDir(), Addr: taken.Addr().String()}, "in use"},
	} {
		b, err := Start(t.Context(), c.cfg)
		if err == nil {
			b.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.cfg, err, c.want)
		}
	}
}
