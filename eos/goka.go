package eos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"strings"
	"sync"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
)

// Options are the public options of Goka behind which the unit stands.
func (u *Unit) Options() []goka.ProcessorOption {
	return []goka.ProcessorOption{
		goka.WithClientID(u.cfg.Instance),
		goka.WithConsumerGroupBuilder(u.newGroup),
		goka.WithConsumerSaramaBuilder(func(brokers []string, _ string) (sarama.Consumer, error) {
			cfg, err := u.saramaConfig()
			if err != nil {
				return nil, err
			}
			return sarama.NewConsumer(brokers, cfg)
		}),
		goka.WithProducerBuilder(func([]string, string, func() hash.Hash32) (goka.Producer, error) {
			return refusingProducer{}, nil
		}),
		goka.WithTopicManagerBuilder(func([]string) (goka.TopicManager, error) { return topicManager{u}, nil }),
		goka.WithStorageBuilder(func(_ string, partition int32) (storage.Storage, error) {
			return u.gokaStorage(partition)
		}),
		goka.WithHasher(NewHasher),
		goka.WithNilHandling(goka.NilProcess),
		goka.WithLogger(gokaLogger{u.log}),
	}
}

// claimRecordsMax is how many records of a claim sarama holds besides those of the answer in hand. It counts them only, and a
// record may have megabytes: the batches, which are bounded by bytes, gather the rest.
const claimRecordsMax = 64

func (u *Unit) saramaConfig() (*sarama.Config, error) {
	kafka := *u.cfg.Kafka
	kafka.Dial = u.links.Dial
	cfg, err := kafka.Sarama()
	if err != nil {
		return nil, err
	}
	cfg.ClientID = u.cfg.Instance
	cfg.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{fencingStrategy{goka.StrictCopartitioningStrategy, u}}
	cfg.Consumer.Group.Session.Timeout = u.cfg.SessionTimeout
	cfg.Consumer.Group.Heartbeat.Interval = u.cfg.SessionTimeout / 4
	cfg.Consumer.Fetch.Default = 4 << 20
	cfg.ChannelBufferSize = claimRecordsMax
	if u.cfg.weak.noStable {
		cfg.Consumer.IsolationLevel = sarama.ReadUncommitted // sarama requires stable offsets with the other
	}
	return cfg, nil
}

// batch is what Goka takes for one message: consecutive records of one partition of one topic.
// Goka's own work for each message (two channels, a context, statistics under a lock) is then paid
// once a batch, and a record keeps what Goka's message would lose: a null key, headers in order.
type batch struct {
	session   *session
	topic     string
	partition int32
	records   []*sarama.ConsumerMessage
	bytes     int // of the records
	highWater int64
}

// batchRegistry hands batches through Goka's codec, which sees bytes alone: a ticket of 8 bytes.
type batchRegistry struct {
	mu   sync.Mutex // guards the fields below
	next uint64
	open map[uint64]*batch
}

func (r *batchRegistry) init() { r.open = map[uint64]*batch{} }

func (r *batchRegistry) put(b *batch) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	r.open[r.next] = b
	return binary.BigEndian.AppendUint64(nil, r.next)
}

func (r *batchRegistry) take(ticket []byte) (*batch, bool) {
	if len(ticket) != 8 {
		return nil, false
	}
	n := binary.BigEndian.Uint64(ticket)
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.open[n]
	delete(r.open, n)
	return b, ok
}

// drop forgets the batches of a session that ended before Goka took them.
func (r *batchRegistry) drop(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, b := range r.open {
		if b.session == s {
			delete(r.open, n)
		}
	}
}

// BatchCodec is the Goka codec of the input and of the loop stream.
func (u *Unit) BatchCodec() goka.Codec { return batchCodec{u} }

type batchCodec struct{ u *Unit }

func (c batchCodec) Encode(any) ([]byte, error) {
	return nil, errors.New("eos: batches are not written; emit through Work")
}

func (c batchCodec) Decode(ticket []byte) (any, error) {
	b, ok := c.u.batches.take(ticket)
	if !ok {
		return nil, errors.New("eos: no batch for this ticket")
	}
	return b, nil
}

// batchClaim is a claim that delivers batches.
type batchClaim struct {
	sarama.ConsumerGroupClaim
	session *session
	out     chan *sarama.ConsumerMessage
}

func newBatchClaim(s *session, claim sarama.ConsumerGroupClaim) *batchClaim {
	return &batchClaim{ConsumerGroupClaim: claim, session: s, out: make(chan *sarama.ConsumerMessage)}
}

// Messages delivers one message a batch.
func (c *batchClaim) Messages() <-chan *sarama.ConsumerMessage { return c.out }

// pump makes batches of what arrives until ctx or the claim ends.
func (c *batchClaim) pump(ctx context.Context) {
	defer close(c.out)
	in := c.ConsumerGroupClaim.Messages()
	for {
		select {
		case <-ctx.Done():
			return
		case first, ok := <-in:
			if !ok || !c.deliver(ctx, first, in) {
				return
			}
		}
	}
}

// deliver begins a batch with first, and adds what has arrived, and what arrives while Goka is busy with the batch before. It
// tells whether Goka took it before ctx ended.
func (c *batchClaim) deliver(ctx context.Context, first *sarama.ConsumerMessage, in <-chan *sarama.ConsumerMessage) bool {
	recordsMax := c.session.unit.cfg.BatchRecordsMax
	b := &batch{session: c.session, topic: c.Topic(), partition: c.Partition(), records: make([]*sarama.ConsumerMessage, 0, min(recordsMax, len(in)+1))}
	b.add(first)
	msg := &sarama.ConsumerMessage{Topic: b.topic, Partition: b.partition, Value: c.session.unit.batches.put(b)}
	for {
		for !b.full(recordsMax) && len(in) > 0 {
			if next, ok := <-in; ok {
				b.add(next)
			}
		}
		more := in
		if b.full(recordsMax) {
			more = nil
		}
		// Only here: nobody else sees the batch before Goka takes it.
		b.highWater, msg.Offset = c.HighWaterMarkOffset(), b.records[len(b.records)-1].Offset
		select {
		case c.out <- msg:
			return true
		case <-ctx.Done():
			return false
		case next, ok := <-more:
			if !ok {
				in = nil // the claim is over, the batch is still to be taken
				continue
			}
			b.add(next)
		}
	}
}

// claimBatchBytes bounds what a batch adds to what is uncommitted before back-pressure is asked again; a larger record is a
// batch of its own.
const claimBatchBytes = 1 << 20

func (b *batch) add(msg *sarama.ConsumerMessage) {
	b.records = append(b.records, msg)
	b.bytes += len(msg.Key) + len(msg.Value)
	for _, h := range msg.Headers {
		b.bytes += len(h.Key) + len(h.Value)
	}
}

func (b *batch) full(recordsMax int) bool {
	return len(b.records) >= recordsMax || b.bytes >= claimBatchBytes
}

// refusingProducer: outputs go through Work, inside the transaction; Goka's own producer would not.
type refusingProducer struct{}

var errNotThroughGoka = errors.New("eos: emit and set values through Work, not through Goka's context: only the unit's transaction makes them exactly once")

func (refusingProducer) Emit(string, string, []byte) *goka.Promise { return refused() }

func (refusingProducer) EmitWithHeaders(string, string, []byte, goka.Headers) *goka.Promise {
	return refused()
}

func (refusingProducer) Close() error { return nil }

func refused() *goka.Promise {
	p, finish := goka.NewPromiseWithFinisher()
	finish(nil, errNotThroughGoka)
	return p
}

// gokaStorage lets Goka read what is committed (Processor.Get, iterators); writing is refused.
type gokaStorage struct {
	disk *Disk
}

func (u *Unit) gokaStorage(partition int32) (storage.Storage, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := u.disks[partition]
	if d == nil {
		return nil, fmt.Errorf("eos: partition %d is not recovered", partition)
	}
	return gokaStorage{d.disk}, nil
}

func (g gokaStorage) Open() error  { return nil }
func (g gokaStorage) Close() error { return nil } // the unit keeps databases open across sessions

func (g gokaStorage) Has(key string) (bool, error) {
	v, err := g.Get(key)
	return v != nil, err
}

func (g gokaStorage) Get(key string) ([]byte, error) {
	v, err := g.disk.Get([]byte(key))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return v, err
}

func (g gokaStorage) Set(string, []byte) error { return errNotThroughGoka }
func (g gokaStorage) Delete(string) error      { return errNotThroughGoka }

// GetOffset together with topicManager.GetOffset tells Goka that there is nothing left to recover:
// the unit recovered the table before Goka's Setup (goka v1.1.17, partition_table.go, load).
func (g gokaStorage) GetOffset(int64) (int64, error) { return recoveredOffset, nil }
func (g gokaStorage) SetOffset(int64) error          { return errNotThroughGoka }
func (g gokaStorage) MarkRecovered() error           { return nil }

func (g gokaStorage) Iterator() (storage.Iterator, error) {
	return nil, errors.New("eos: iterate through a view")
}

func (g gokaStorage) IteratorWithRange(_, _ []byte) (storage.Iterator, error) { return g.Iterator() }

const recoveredOffset = 0

// topicManager answers Goka's questions about topics from the unit's administrative client. Topics are
// made and checked by EnsureTopics before Goka starts.
type topicManager struct{ u *Unit }

func (t topicManager) EnsureTableExists(string, int) error                         { return nil }
func (t topicManager) EnsureStreamExists(string, int) error                        { return nil }
func (t topicManager) EnsureTopicExists(string, int, int, map[string]string) error { return nil }

func (t topicManager) Partitions(topic string) ([]int32, error) {
	ends, err := t.u.admin.ends(context.Background(), topic)
	if err != nil {
		return nil, err
	}
	out := make([]int32, len(ends))
	for i := range out {
		out[i] = int32(i)
	}
	return out, nil
}

// GetOffset: see gokaStorage.GetOffset.
func (t topicManager) GetOffset(string, int32, int64) (int64, error) { return recoveredOffset + 1, nil }
func (t topicManager) Close() error                                  { return nil }

// TableCodec is the Goka codec of the group table: committed bytes as they are.
func (u *Unit) TableCodec() goka.Codec { return rawCodec{} }

type rawCodec struct{}

func (rawCodec) Encode(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("eos: want bytes, got %T", v)
	}
	return b, nil
}

func (rawCodec) Decode(b []byte) (any, error) { return b, nil }

// gokaLogger passes what Goka says on, at a low level: the unit says the same in its own words.
type gokaLogger struct{ log *slog.Logger }

func (l gokaLogger) Print(v ...any)                 { l.log.Debug("goka: " + strings.TrimSpace(fmt.Sprint(v...))) }
func (l gokaLogger) Println(v ...any)               { l.Print(v...) }
func (l gokaLogger) Printf(format string, v ...any) { l.Print(fmt.Sprintf(format, v...)) }
