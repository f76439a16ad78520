package processor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/tidemark/tidemark/eos"
)

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// mustBomb writes one record whose value is that many zeros into partition 0 of the input. The batch is put together here:
// a client would hold the value.
func (j *job) mustBomb(size int64) (wire int) {
	j.t.Helper()
	body := append([]byte{0}, 0, 0, 1)                          // attributes, timestamp and offset deltas of 0, a null key
	body = binary.AppendVarint(body, size)                      // the value's length
	record := binary.AppendVarint(nil, int64(len(body))+size+1) // and a byte for no headers
	var zipped bytes.Buffer
	w, err := zstd.NewWriter(&zipped)
	if err != nil {
		j.t.Fatal(err)
	}
	from := io.MultiReader(bytes.NewReader(append(record, body...)), io.LimitReader(zeros{}, size), bytes.NewReader([]byte{0}))
	if _, err := io.Copy(w, from); err != nil {
		j.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		j.t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 4 /* zstd */, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: zipped.Bytes(),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))                                          // length
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli))) // of what follows it
	j.mustProduceRaw(raw)
	return len(raw)
}

func (j *job) mustProduceRaw(batch []byte) {
	j.t.Helper()
	part := kmsg.NewProduceRequestTopicPartition()
	part.Records = batch
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = j.rules.Job().Input.Topic, []kmsg.ProduceRequestTopicPartition{part}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 5000, []kmsg.ProduceRequestTopic{topic}
	cl := j.mustClient(kgo.MaxVersions(kversion.V3_7_0())) // later ones name topics by ID
	resp, err := cl.SeedBrokers()[0].Request(j.t.Context(), req)
	if err != nil {
		j.t.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode); err != nil {
		j.t.Fatal(err)
	}
}

// heapPeak samples the heap until stop is called, which answers its greatest growth.
func heapPeak() (stop func() int64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	begin, peak := m.HeapAlloc, uint64(0)
	end, ended := make(chan struct{}), sync.WaitGroup{}
	ended.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	})
	return func() int64 {
		close(end)
		ended.Wait()
		return int64(peak) - int64(begin)
	}
}

// A record batch of some kilobytes that inflates to hundreds of megabytes stops the processor by name before it takes the
// memory. The control is the same batch with a bound above it. The test is not parallel, for sarama's bound is one for all.
func TestProcessor_ABatchThatInflatesBeyondTheBoundIsAFailStop(t *testing.T) {
	const bomb, bound, growthMax = 96 << 20, 8 << 20, 200 << 20 // a processor without it grows by 130 MiB
	j := mustJob(t, mustFake(t), badJob, 2)
	cl := j.mustClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	j.mustWrite(cl, &kgo.Record{Partition: home("a", 2), Value: event("a", "1", "")})
	if wire := j.mustBomb(bomb); wire*1000 > bomb {
		t.Fatalf("the bomb has %d bytes on the wire, want it to be at least 1000 times smaller than what it holds", wire)
	}
	j.mustWrite(cl, &kgo.Record{Partition: home("a", 2), Value: event("a", "1", "")})
	run := func(bound int32) (grown int64, err error) {
		peak := heapPeak()
		err = j.try(func(c *Config) { c.Unit.InflatedBytesMax = bound })
		return peak(), err
	}
	defer func() {
		if err := j.try(nil); err != nil { // which sets the default bound again
			t.Errorf("at the end: %v", err)
		}
	}()

	grown, err := run(bound)
	var stop *eos.FailStop
	if !errors.As(err, &stop) || !strings.Contains(stop.Fault, fmt.Sprintf("inflates to more than %d MiB", bound>>20)) || !strings.Contains(stop.Mend, "--inflated-mib") {
		t.Errorf("got %v, want a fail-stop that names the bound and the mend", err)
	}
	if grown > growthMax {
		t.Errorf("the heap grew by %d MiB, want at most %d", grown>>20, growthMax>>20)
	}

	grown, err = run(1 << 30)
	if err != nil {
		t.Errorf("control: %v", err)
	}
	if grown <= growthMax {
		t.Errorf("control: the heap grew by %d MiB, want more than %d: else the test measures nothing", grown>>20, growthMax>>20)
	}
	dead := slices.Collect(maps.Values(j.deadLetters()))
	if len(dead) != 1 || !dead[0].Cut || dead[0].CutSize != bomb {
		t.Errorf("control: got %d dead letters, want the bomb alone, cut", len(dead))
	}
	if st := j.table()["a"]; st == nil || st.Count != 2 {
		t.Errorf("control: got %+v, want both events counted", st)
	}
}
