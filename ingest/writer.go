package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"github.com/tidemark/tidemark/view"
)

// writer is the producer for the input topic as it is now: a topic that is made again, or takes other sizes, gets another one.
// So a token's topic is the one that was written to: a client that has learnt a topic's ID takes no other for it (kgo v1.22.2,
// metadata.go: recreatedFrom).
type writer struct {
	client   *kgo.Client
	topic    string
	topicID  [16]byte
	bytesMax int32 // of a record batch

	// Produce requests of which a byte was sent, and those of which no answer came.
	sent, lost atomic.Uint64
	learnt     atomic.Bool // the client knows the topic
}

// past is what a writer has done up to a moment.
type past struct{ sent, lost uint64 }

func (w *writer) past() past { return past{w.sent.Load(), w.lost.Load()} }

func newWriter(cfg *Config, topic string, id [16]byte, bytesMax int32) (*writer, error) {
	w := &writer{topic: topic, topicID: id, bytesMax: bytesMax}
	options := []kgo.Opt{
		kgo.DefaultProduceTopic(topic),
		kgo.WithHooks(hooks{w}),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int { return w.place })),
		kgo.ProducerBatchMaxBytes(bytesMax),
		kgo.ProducerLinger(cfg.Linger),
		kgo.ProduceRequestTimeout(max(cfg.Timeout/2, 100*time.Millisecond)),
		// The client gives an event up only while it can say that it is not written, so a little before its caller is answered.
		kgo.RecordDeliveryTimeout(max(cfg.Timeout*3/4, time.Second)),
		// What callers have on its way is bounded by Admit; the client must never make one of them wait.
		kgo.MaxBufferedRecords(1 << 30),
	}
	if cfg.weak.plain {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	var err error
	w.client, err = kgo.NewClient(cfg.Kafka.Franz(options...)...)
	return w, err
}

// place gives an event the partition on which its ID lives, and what has no key none: learn's record, which so goes nowhere.
func (w *writer) place(r *kgo.Record, partitions int) int {
	if r.Key == nil {
		w.learnt.Store(true)
		return -1
	}
	return int(eos.Place(r.Key, int32(partitions)))
}

// learn has the client learn the topic before the first event, and fails where that is not the writer's: it was made again since
// it was looked up. A topic that has its ID before and after has had it all the time.
func (w *writer) learn(ctx context.Context) error {
	if err := w.client.ProduceSync(ctx, &kgo.Record{}).FirstErr(); !w.learnt.Load() {
		return fmt.Errorf("learn of the input topic %s: %w", w.topic, err)
	}
	id, err := topicID(ctx, w.client, w.topic)
	if err == nil && id != w.topicID {
		err = fmt.Errorf("the input topic %s was made again meanwhile", w.topic)
	}
	return err
}

// topicID looks a topic up. It asks a broker: what the client remembers would prove nothing.
func topicID(ctx context.Context, cl *kgo.Client, topic string) ([16]byte, error) {
	req, t := kmsg.NewPtrMetadataRequest(), kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err == nil && len(resp.Topics) != 1 {
		err = kerr.UnknownTopicOrPartition
	} else if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		return [16]byte{}, fmt.Errorf("look up the input topic %s: %w", topic, err)
	}
	return resp.Topics[0].TopicID, nil
}

// hooks count for a writer. kgo calls them before it settles the records of the request.
type hooks struct{ *writer }

const produceKey = int16(kmsg.Produce)

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (h hooks) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, bytes int, _, _ time.Duration, err error) {
	if key != produceKey || bytes == 0 {
		return
	}
	if h.sent.Add(1); err != nil {
		h.lost.Add(1)
	}
}

// OnBrokerRead implements kgo.HookBrokerRead.
func (h hooks) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == produceKey && err != nil {
		h.lost.Add(1)
	}
}

// fits refuses an event that is larger than the topic takes.
func (w *writer) fits(id string, value []byte, headers []kgo.RecordHeader) *rules.Refusal {
	const batch, header = 128, 16 // what a batch has beside its records, and a header beside its texts
	n := codecs.RecordBytes([]byte(id), value, nil) + batch
	for i := range headers {
		n += len(headers[i].Key) + len(headers[i].Value) + header
	}
	if n > int(w.bytesMax) {
		return &rules.Refusal{Reason: reasonTooLarge, Detail: fmt.Sprintf("a record of %d bytes; the input topic takes %d (max.message.bytes)", n, w.bytesMax)}
	}
	return nil
}

const reasonTooLarge = "too_large"

// verdict says what an error of the client means for a record that was handed to it after before. It is not written where
// nothing was sent since, or where the broker refused it and the refused request is the only one since. In all other cases an
// earlier try may have been appended: its answer may be lost, and may have said so itself (NOT_ENOUGH_REPLICAS_AFTER_APPEND,
// REQUEST_TIMED_OUT), which the client does not tell.
func (w *writer) verdict(err error, before past) view.Produced {
	now := w.past()
	var refusal *kerr.Error
	refused := errors.As(err, &refusal) && !refusal.Retriable && now.sent <= before.sent+1 && now.lost == before.lost
	switch {
	case errors.Is(err, kerr.MessageTooLarge) && refused:
		return view.Produced{Code: connect.CodeInvalidArgument, Reason: reasonTooLarge, Message: "the input topic takes no record of that size (max.message.bytes)"}
	case refused, now.sent == before.sent:
		return view.Produced{Code: connect.CodeUnavailable, Message: "it was not written: " + err.Error()}
	}
	return view.Produced{Code: connect.CodeUnknown, Message: "it may have been written: " + err.Error()}
}

// closeWithin is how long what is on its way may take at the end.
const closeWithin = 3 * time.Second

// close ends the writer. What is not acknowledged by then is settled as not known.
func (w *writer) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	_ = w.client.Flush(ctx) // what it leaves, Close settles
	w.client.Close()
}

// Run looks the input topic up, makes the writer, and sees to it that it stays the right one, until ctx ends, which is no
// error. Brokers that are away, and a topic that does not exist yet, are waited for. What is on its way at the end has some
// seconds left.
func (i *Ingest) Run(ctx context.Context) error {
	cl, err := kgo.NewClient(i.cfg.Kafka.Franz()...)
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	defer cl.Close()
	defer func() {
		i.block("it has stopped")
		if w := i.writer.Swap(nil); w != nil {
			w.close(ctx)
		}
	}()
	for {
		wait := i.cfg.lookEvery
		if err := i.look(ctx, cl); err != nil && ctx.Err() == nil {
			wait = lookAgain
			i.block(err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// How long it may take to look the input topic up, and how soon it is done again after a failure.
const (
	lookWithin = 10 * time.Second
	lookAgain  = 500 * time.Millisecond
)

// look gives the writer its place, or another one its. A writer that is there stays where the topic cannot be looked up.
func (i *Ingest) look(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	id, err := topicID(ctx, cl, i.topic)
	if err != nil {
		return err
	}
	bytesMax, err := eos.MessageBytesMax(ctx, kadm.NewClient(cl), i.topic)
	if err != nil {
		return err
	}
	old := i.writer.Load()
	if old != nil && old.topicID == id && old.bytesMax == bytesMax {
		return nil
	}
	w, err := newWriter(&i.cfg, i.topic, id, bytesMax)
	if err != nil {
		return err
	}
	if !i.cfg.weak.late {
		if err := w.learn(ctx); err != nil {
			w.client.Close()
			return err
		}
	}
	i.writer.Store(w)
	i.log.Info("taking events", "topic", i.topic, "bytes_max", bytesMax)
	if old != nil {
		old.close(ctx)
	}
	return nil
}

// block notes why there is no writer, and says it once.
func (i *Ingest) block(why string) {
	if old := i.trouble.Swap(&why); old != nil && *old != why {
		i.log.Warn("no events can be taken", "cause", why)
	}
}
