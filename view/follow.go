package view

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark/tidemark/eos"
)

// follow reads the table until ctx ends or a fault stops it. It begins again at the places of the local state when some
// of it was damaged.
func (v *View) follow(ctx context.Context, parts []*partition) error {
	for {
		err := v.read(ctx, parts)
		if !errors.Is(err, eos.ErrDamaged) {
			return err
		}
		for _, p := range parts {
			if p.disk.Damaged() {
				if err := p.reopen(); err != nil {
					return err
				}
			}
		}
	}
}

// read is follow with one reader. Damage of local state, found here or by a reader of the view, is eos.ErrDamaged.
func (v *View) read(ctx context.Context, parts []*partition) error {
	starts := make(map[int32]int64, len(parts))
	for _, p := range parts {
		// What was gathered and not written is read again.
		clear(p.pending)
		p.bytes, p.next = 0, p.disk.Next()
		starts[p.number] = p.next
	}
	r, err := eos.NewReader(v.cfg.Kafka, v.cfg.Names.Table(), starts, eos.ReaderTopicID(parts[0].tableID))
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		polled, cancel := context.WithTimeout(ctx, time.Second) // so that damage found by readers is seen
		batches, err := r.Poll(polled)
		cancel()
		v.note(r.Trouble())
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return err
		}
		for i := range batches {
			if err := parts[batches[i].Partition].take(&batches[i]); err != nil {
				return err
			}
		}
		for _, p := range parts {
			if p.disk.Damaged() {
				return eos.ErrDamaged
			}
		}
	}
}

// note keeps what the reader is retrying, for status.
func (v *View) note(err error) {
	if err == nil {
		v.trouble.Store(nil)
		return
	}
	why := err.Error()
	if was := v.trouble.Swap(&why); was == nil {
		v.log.Warn("reading the table; it is tried again", "cause", why)
	}
}

// lookUp asks for a topic's ID and partitions.
func lookUp(ctx context.Context, cl *kgo.Client, topic string) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return found{}, err
	}
	if len(resp.Topics) != 1 {
		return found{}, fmt.Errorf("metadata of %d topics, asked for 1", len(resp.Topics))
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return found{}, err
	}
	return found{resp.Topics[0].TopicID, int32(len(resp.Topics[0].Partitions))}, nil
}
