package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fill makes the file that kfake's next segment of the topic's partition will be in one that is on a full disk.
func fill(t *testing.T, data string, base int64) (path string) {
	t.Helper()
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skipf("no file here that is always full: %v", err)
	}
	path = filepath.Join(data, "partitions", topic+"-0", fmt.Sprintf("%d.dat", base))
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// abortOnFullDisk commits "a", and then aborts "x" when there is no space for the marker. It returns the file that
// is on the full disk, and the answer to the abort.
func abortOnFullDisk(t *testing.T, addr, data string) (full string, err error) {
	t.Helper()
	ctx := within(t)
	cl := mustClient(t, addr, kgo.TransactionalID("writer"), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordRetries(0), kgo.RequestRetries(0))
	small := map[string]*string{"segment.bytes": kadm.StringPtr("1024")}
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, small, topic); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	for _, r := range []*kgo.Record{kgo.StringRecord("a"), kgo.StringRecord("x")} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r.Headers = []kgo.RecordHeader{{Key: "large", Value: make([]byte, 2048)}} // the next batch is in a segment of its own
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatalf("produce %s: %v", r.Value, err)
		}
		if string(r.Value) == "x" {
			full = fill(t, data, r.Offset+1)
			break
		}
		if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
			t.Fatalf("commit %s: %v", r.Value, err)
		}
	}
	return full, cl.EndTransaction(ctx, kgo.TryAbort)
}

// committed reads what is committed, up to the last stable offset.
func committed(t *testing.T, addr string) []string {
	t.Helper()
	ctx := within(t)
	r := mustClient(t, addr, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(r).ListCommittedOffsets(ctx, topic)
	if err != nil {
		t.Fatalf("list ends: %v", err)
	}
	end, _ := ends.Lookup(topic, 0)
	var got []string
	for next := int64(0); next < end.Offset; {
		fetches := r.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read after %v: %v", got, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if next = rec.Offset + 1; !rec.Attrs.IsControl() {
				got = append(got, string(rec.Value))
			}
		})
	}
	return got
}

func TestBroker_AFullDiskStopsItBeforeAnAbortedRecordCanBeRead(t *testing.T) {
	dir := t.TempDir()
	b, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	addr := b.Addrs()[0]
	open := mustClient(t, addr, kgo.RequestRetries(0)) // a connection of before
	if err := open.Ping(within(t)); err != nil {
		t.Fatalf("ping: %v", err)
	}
	if _, err := abortOnFullDisk(t, addr, filepath.Join(dir, "data")); err == nil {
		t.Error("the abort was acknowledged, want no answer")
	}
	select {
	case <-b.Failed():
	case <-within(t).Done():
		t.Fatal("it goes on after a write that failed")
	}
	if err := open.Ping(within(t)); err == nil {
		t.Error("it answers after the stop, want a closed connection")
	}
	err = b.Close()
	var fault *Fault
	if !errors.As(err, &fault) || fault.Dir != dir || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close: got %v, want a fault that names %s and the full disk", err, dir)
	}
	if _, err := Start(t.Context(), Config{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("start in the same process: got %v, want ErrLocked", err)
	}
}

func TestBroker_WithoutTheStopAFullDiskMakesAnAbortedRecordReadable(t *testing.T) { // the control of the one before
	data := t.TempDir()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(data))
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	defer cluster.Close()
	addr := cluster.ListenAddrs()[0]
	if _, err := abortOnFullDisk(t, addr, data); err != nil {
		t.Errorf("the abort: got %v, want that kfake acknowledges what it did not write", err)
	}
	if got := committed(t, addr); !slices.Equal(got, []string{"a", "x"}) {
		t.Errorf("read_committed gives %v, want the aborted x too", got)
	}
}

func TestBroker_AfterAFullDiskTheNextOneHasWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	addr, kill := startChild(t, dir)
	full, err := abortOnFullDisk(t, addr, filepath.Join(dir, "data"))
	if err == nil {
		t.Error("the abort was acknowledged, want no answer")
	}
	kill()
	if err := os.Remove(full); err != nil { // there is space again
		t.Fatal(err)
	}
	if got := committed(t, mustStart(t, dir).Addrs()[0]); !slices.Equal(got, []string{"a"}) {
		t.Errorf("read_committed gives %v, want a alone", got)
	}
}
