package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// stockState is the state of an ID as the processor on stock Goka keeps it.
type stockState struct {
	Count, Hash uint64
	Sum, Max    int64
	LastMs      int64
	Hits        []int64
	Busy        bool
}

// stockEvent is an event as encoding/json reads it.
type stockEvent struct {
	ID    string      `json:"id"`
	Time  int64       `json:"time"`
	Value json.Number `json:"value"`
	Hash  uint64      `json:"hash"`
	Hit   bool        `json:"hit"`
}

// fold counts an event in and tells whether the flag changed.
func (s *stockState) fold(e *stockEvent) (bool, error) {
	value, err := hundredths(e.Value.String())
	if err != nil {
		return false, err
	}
	if s.Count == 0 || value > s.Max {
		s.Max = value
	}
	s.Count++
	s.Hash += e.Hash
	s.Sum += value
	s.LastMs = max(s.LastMs, e.Time)
	if e.Hit {
		s.Hits = append(s.Hits, e.Time)
	}
	s.Hits = slices.DeleteFunc(s.Hits, func(ms int64) bool { return ms < s.LastMs-recentMs })
	if !s.Busy && len(s.Hits) >= raiseAt || s.Busy && len(s.Hits) < clearBelow {
		s.Busy = !s.Busy
		return true, nil
	}
	return false, nil
}

func (s *stockState) found() *found {
	return &found{
		count: s.Count, sum: cents(s.Sum), hash: fmt.Sprint(s.Hash), max: cents(s.Max), recent: uint64(len(s.Hits)), busy: s.Busy,
	}
}

// runStock is the job on Goka as it comes, at least once: its own builders and settings, but for the session timeout, which is
// that of the run, and the log.
func (t *task) runStock(ctx context.Context, log *slog.Logger) error {
	cfg := goka.DefaultConfig()
	cfg.Consumer.Group.Session.Timeout = time.Duration(t.SessionMs) * time.Millisecond
	cfg.Consumer.Group.Heartbeat.Interval = cfg.Consumer.Group.Session.Timeout / 4
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	goka.ReplaceGlobalConfig(cfg)
	flags := goka.Stream(t.Job + "-flags")
	graph := goka.DefineGroup(goka.Group(t.Job),
		goka.Input(goka.Stream(t.Job+"-events"), jsonCodec[stockEvent]{}, func(ctx goka.Context, msg any) {
			st, ok := ctx.Value().(*stockState)
			if !ok {
				st = &stockState{}
			}
			changed, err := st.fold(msg.(*stockEvent))
			if err != nil {
				ctx.Fail(err)
			}
			ctx.SetValue(st)
			if changed {
				c := codecs.FlagChange{ID: ctx.Key(), Flag: flagBusy, Raised: st.Busy, Version: st.Count}
				c.Why = codecs.Why{TimeMs: st.LastMs, Topic: string(ctx.Topic()), Partition: ctx.Partition(), Offset: ctx.Offset(), Rules: "00"}
				_, value := c.Encode()
				ctx.Emit(flags, ctx.Key(), value)
			}
		}),
		goka.Persist(jsonCodec[stockState]{}),
		goka.Output(flags, bytesCodec{}),
	)
	topics := goka.NewTopicManagerConfig()
	topics.Table.Replication = min(3, len(t.Brokers))
	topics.Stream.Replication = topics.Table.Replication
	proc, err := goka.NewProcessor(t.Brokers, graph,
		goka.WithClientID(t.Instance),
		// Goka's hash is another than that of the events' producer, and all an ID's events must meet on its partition.
		goka.WithHasher(eos.NewHasher),
		goka.WithStorageBuilder(storage.DefaultBuilder(filepath.Join(t.Dir, "stock"))),
		goka.WithTopicManagerBuilder(goka.TopicManagerBuilderWithTopicManagerConfig(topics)),
		goka.WithLogger(printLogger{log}),
	)
	if err != nil {
		return err
	}
	return proc.Run(ctx)
}

// jsonCodec is the simplest codec there is.
type jsonCodec[T any] struct{}

func (jsonCodec[T]) Encode(v any) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec[T]) Decode(data []byte) (any, error) {
	v := new(T)
	return v, json.Unmarshal(data, v)
}

// bytesCodec leaves bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Encode(v any) ([]byte, error)    { return v.([]byte), nil }
func (bytesCodec) Decode(data []byte) (any, error) { return data, nil }

type printLogger struct{ log *slog.Logger }

func (l printLogger) Print(args ...any)                 { l.log.Info(fmt.Sprint(args...)) }
func (l printLogger) Println(args ...any)               { l.log.Info(fmt.Sprint(args...)) }
func (l printLogger) Printf(format string, args ...any) { l.log.Info(fmt.Sprintf(format, args...)) }
