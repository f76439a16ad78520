package eos

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkReader_RecoversIntoDisk reads a table of 300-byte values, alone and into local state, as recovery does.
func BenchmarkReader_RecoversIntoDisk(b *testing.B) {
	const records, valueBytes = 400_000, 300
	_, k := mustFake(b)
	mustTopic(b, k, "table", 1, nil)
	cl := mustClient(b, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	value := make([]byte, valueBytes)
	bytes := 0
	ctx := within(b)
	for i := range records {
		for j := range value {
			value[j] = byte('a' + (i*7+j*13)%26)
		}
		key := fmt.Appendf(nil, "id-%07d", i*7919%records)
		bytes += len(key) + valueBytes
		cl.Produce(ctx, &kgo.Record{Topic: "table", Key: key, Value: append([]byte(nil), value...)}, nil)
	}
	if err := cl.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	for _, into := range []string{"nothing", "disk"} {
		b.Run(into, func(b *testing.B) {
			b.SetBytes(int64(bytes))
			for b.Loop() {
				recoverTable(b, k, records, into == "disk")
			}
		})
	}
}

func recoverTable(b *testing.B, k *Kafka, end int64, write bool) {
	r, err := NewReader(k, "table", map[int32]int64{0: 0})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	d := mustDisk(b, b.TempDir())
	defer mustClose(b, d)
	var batch DiskBatch
	ctx := within(b)
	for next := int64(0); next < end; {
		batches, err := r.Poll(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, got := range batches {
			next = got.Next
			if !write {
				continue
			}
			batch.Reset()
			for _, rec := range got.Records {
				batch.Put(rec.Key, rec.Value)
			}
			if err := d.Apply(&batch, got.Next, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
}
