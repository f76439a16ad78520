package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// acked is an event of which its producer was told where it lies.
type acked struct {
	id        string
	partition int32
	offset    int64
	least     uint64 // events of the ID in that partition up to this one: what a state that has this one has counted
}

func (a *acked) String() string { return fmt.Sprintf("%d@%d", a.partition, a.offset) }

// acks is what the producer knows while it produces, and hands to those who read what was just acknowledged. The events of an
// ID that lie in one partition are applied in the order of their offsets, so their number up to an offset is the least that a
// state may have counted which comes after it.
type acks struct {
	each int           // reads that are asked for of every event
	some chan struct{} // wakes who waits for one

	mu   sync.Mutex // guards the fields below
	news []newEvent // not read often enough, the newest last
	ids  map[string]*produced
}

// newsMax bounds the events that wait to be read: older ones are passed over, because every view has them by then.
const newsMax = 200

type newEvent struct {
	acked
	left int // reads
}

type produced struct {
	events uint64          // handed to the producer
	last   map[int32]acked // in each partition
}

func newAcks(each, readers int) *acks {
	return &acks{each: each, some: make(chan struct{}, readers), ids: map[string]*produced{}}
}

// produce notes that an event of the ID is about to be produced.
func (k *acks) produce(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ids[id]
	if p == nil {
		p = &produced{last: map[int32]acked{}}
		k.ids[id] = p
	}
	p.events++
}

// acknowledge takes what the producer was told. Its error is that acknowledgements of a partition came in another order than the
// offsets, so that nothing could be counted.
func (k *acks) acknowledge(id string, partition int32, offset int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.ids[id].last[partition]
	if before.least > 0 && before.offset >= offset {
		return fmt.Errorf("partition %d: offset %d was acknowledged after %d", partition, offset, before.offset)
	}
	e := acked{id, partition, offset, before.least + 1}
	k.ids[id].last[partition] = e
	k.news = append(k.news, newEvent{e, k.each})
	if len(k.news) > newsMax {
		k.news = slices.Delete(k.news, 0, len(k.news)-newsMax)
	}
	for range k.each {
		select {
		case k.some <- struct{}{}:
		default: // enough are awake
		}
	}
	return nil
}

// take waits for events that are to be read, and gives so many of them, the newest first.
func (k *acks) take(ctx context.Context, most int) []acked {
	for {
		if all := k.newest(most); len(all) > 0 {
			return all
		}
		select {
		case <-k.some:
		case <-ctx.Done():
			return nil
		}
	}
}

func (k *acks) newest(most int) (all []acked) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := len(k.news) - 1; i >= 0 && len(all) < most; i-- {
		all = append(all, k.news[i].acked)
		k.news[i].left--
	}
	k.news = slices.DeleteFunc(k.news, func(e newEvent) bool { return e.left == 0 })
	return all
}

// last gives the ID's last acknowledged event in each partition.
func (k *acks) last(id string) (all []acked) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.ids[id].last {
		all = append(all, a)
	}
	return all
}

// most is how many events of the ID there can be by now.
func (k *acks) most(id string) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ids[id].events
}
