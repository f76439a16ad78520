package eos

import (
	"context"
	"testing"

	"github.com/IBM/sarama"
)

// arrived is a claim whose records have all arrived.
type arrived struct {
	sarama.ConsumerGroupClaim
	in chan *sarama.ConsumerMessage
}

func (a arrived) Topic() string                            { return "in" }
func (a arrived) Partition() int32                         { return 0 }
func (a arrived) HighWaterMarkOffset() int64               { return int64(cap(a.in)) }
func (a arrived) Messages() <-chan *sarama.ConsumerMessage { return a.in }

// pumped are the batches of records of the given sizes.
func pumped(t *testing.T, recordsMax int, sizes ...int) (batches []*batch) {
	t.Helper()
	in := make(chan *sarama.ConsumerMessage, len(sizes))
	for i, size := range sizes {
		in <- &sarama.ConsumerMessage{Offset: int64(i), Value: make([]byte, size)}
	}
	close(in)
	u := &Unit{cfg: Config{BatchRecordsMax: recordsMax}}
	u.batches.init()
	c := newBatchClaim(&session{unit: u}, arrived{in: in})
	go c.pump(t.Context())
	next := int64(0)
	for msg := range c.Messages() {
		b, ok := u.batches.take(msg.Value)
		if !ok {
			t.Fatalf("no batch for the message at %d", msg.Offset)
		}
		for _, r := range b.records {
			if r.Offset != next {
				t.Fatalf("got offset %d, want %d", r.Offset, next)
			}
			next++
		}
		if msg.Offset != next-1 || b.highWater != int64(len(sizes)) {
			t.Errorf("got offset %d and high water %d, want %d and %d", msg.Offset, b.highWater, next-1, len(sizes))
		}
		batches = append(batches, b)
	}
	if int(next) != len(sizes) {
		t.Errorf("got %d records, want %d", next, len(sizes))
	}
	return batches
}

// Back-pressure is asked once a batch: 512 records of a megabyte would be half a gigabyte in one transaction.
func TestBatchClaim_BatchesAreBoundedByRecordsAndBytes(t *testing.T) {
	small := make([]int, 100)
	if got := pumped(t, 30, small...); len(got) != 4 {
		t.Errorf("100 small records: got %d batches, want 4 of at most 30", len(got))
	}
	large := make([]int, 300)
	for i := range large {
		large[i] = 100_000
	}
	for _, b := range pumped(t, 512, large...) {
		if b.bytes >= claimBatchBytes+100_000 {
			t.Errorf("got a batch of %d bytes, want at most %d and one record", b.bytes, claimBatchBytes)
		}
	}
	if got := pumped(t, 512, 10<<20, 10, 10, 10<<20, 10); len(got) != 3 {
		t.Errorf("got %d batches, want 3: each ends with a record that is larger than a batch may be, or with the last", len(got))
	}
}

func TestBatchClaim_EndsWithItsContextWhileNobodyTakesABatch(t *testing.T) {
	in := make(chan *sarama.ConsumerMessage, 1)
	in <- &sarama.ConsumerMessage{}
	u := &Unit{cfg: Config{BatchRecordsMax: 1}}
	u.batches.init()
	c := newBatchClaim(&session{unit: u}, arrived{in: in})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.pump(ctx)
	}()
	cancel()
	<-ended
}
