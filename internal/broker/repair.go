package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// unclean is there while a broker runs on the directory, and stays when it was killed.
func unclean(dir string) string { return filepath.Join(dir, "unclean") }

// transaction is what one producer left open in one partition.
type transaction struct {
	topic     string
	partition int32
	producer  int64
	epoch     int16
}

// repair writes the abort markers that a kill left unwritten. kfake takes a transaction that was open at the kill for aborted,
// and writes no marker (persist.go, loadPartitionFullReplay); its producer keeps its ID, and to readers, who go by the
// marker, whatever it commits next would belong to the aborted transaction and be skipped. It runs on a port of its own, so
// that nobody begins a transaction meanwhile.
func repair(ctx context.Context, s *stopper, opts []kfake.Opt) (err error) {
	cluster, err := s.start(append(slices.Clone(opts), kfake.ListenFn(s.listen)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(cluster)) }()
	ctx, cancel := s.while(ctx)
	defer cancel()
	addr := cluster.ListenAddrs()[0]
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("list the ends of all partitions: %w", err)
	}
	starts, err := kadm.NewClient(cl).ListStartOffsets(ctx)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("list the starts of all partitions: %w", err)
	}
	open, err := findOpen(ctx, addr, starts, ends)
	if err != nil {
		return err
	}
	for _, t := range open {
		if err := abort(ctx, cl, t); err != nil {
			return fmt.Errorf("abort what producer %d left open in %s-%d: %w", t.producer, t.topic, t.partition, err)
		}
	}
	return nil
}

// findOpen reads all partitions, and returns the transactions that no marker ends.
func findOpen(ctx context.Context, addr string, starts, ends kadm.ListedOffsets) ([]transaction, error) {
	type producer struct {
		topic     string
		partition int32
		id        int64
	}
	from, left := map[string]map[int32]kgo.Offset{}, 0
	ends.Each(func(o kadm.ListedOffset) {
		start, _ := starts.Lookup(o.Topic, o.Partition)
		if start.Offset >= o.Offset {
			return
		}
		if from[o.Topic] == nil {
			from[o.Topic] = map[int32]kgo.Offset{}
		}
		from[o.Topic][o.Partition] = kgo.NewOffset().At(start.Offset)
		left++
	})
	if left == 0 {
		return nil, nil
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(from), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	epochs := map[producer]int16{}
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return nil, fmt.Errorf("read what was left open: %w", err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			end, _ := ends.Lookup(p.Topic, p.Partition)
			for _, r := range p.Records {
				key := producer{p.Topic, p.Partition, r.ProducerID}
				switch {
				case r.Attrs.IsControl():
					delete(epochs, key)
				case r.Attrs.IsTransactional():
					epochs[key] = r.ProducerEpoch
				}
				if r.Offset == end.Offset-1 { // kfake's compaction keeps the last batch of a partition
					left--
				}
			}
		})
	}
	open := make([]transaction, 0, len(epochs))
	for key, epoch := range epochs {
		open = append(open, transaction{key.topic, key.partition, key.id, epoch})
	}
	return open, nil
}

func abort(ctx context.Context, cl *kgo.Client, t transaction) error {
	topic := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
	topic.Topic, topic.Partitions = t.topic, []int32{t.partition}
	marker := kmsg.NewWriteTxnMarkersRequestMarker()
	marker.ProducerID, marker.ProducerEpoch, marker.Topics = t.producer, t.epoch, append(marker.Topics, topic)
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Markers = append(req.Markers, marker)
	resp, err := req.RequestWith(ctx, cl.SeedBrokers()[0])
	if err != nil {
		return err
	}
	for _, m := range resp.Markers {
		for _, topic := range m.Topics {
			for _, p := range topic.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
	return err
}

// markUnclean notes that a broker runs, and tells whether the last one was killed.
func markUnclean(dir string) (killed bool, err error) {
	_, err = os.Stat(unclean(dir))
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return err == nil, err
	}
	f, err := os.Create(unclean(dir))
	if err != nil {
		return false, err
	}
	return false, errors.Join(f.Sync(), f.Close(), syncDir(dir)) // a crash of the machine is a kill too
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
