package view

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// BenchmarkHub_Follow is what a commit of 100 IDs costs the follower while 10,000 watchers take what they are told.
func BenchmarkHub_Follow(b *testing.B) {
	const watchers, ids = 10_000, 100
	for name, request := range map[string]func(i int) WatchRequest{
		"each another ID":     func(i int) WatchRequest { return WatchRequest{ID: fmt.Sprint("id", i)} },
		"everything":          func(int) WatchRequest { return WatchRequest{} },
		"a flag nobody bears": func(int) WatchRequest { return WatchRequest{Flag: "big"} },
	} {
		b.Run(name, func(b *testing.B) {
			schema := &codecs.Schema{Job: "b", InputTopic: "in", Digest: "d", Generation: 1, Totals: []string{"sum"}, Flags: []string{"big", "odd"}}
			v, err := New(Config{
				Kafka: &eos.Kafka{Brokers: []string{"none"}}, Names: eos.Names{Job: "b"}, Input: "in", Schema: schema, Dir: b.TempDir(),
				Watch: WatchConfig{PerClientMax: watchers, QueueBytesMax: 1 << 30},
			})
			if err != nil {
				b.Fatal(err)
			}
			h := v.hub
			h.begin(found{partitions: 1})
			if err := h.follow(0, spot{}, nil); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var taking sync.WaitGroup
			for i := range watchers {
				key, err := v.subjectOf(ptr(request(i)))
				if err != nil {
					b.Fatal(err)
				}
				w, err := h.join(key, ptr(request(i)))
				if err != nil {
					b.Fatal(err)
				}
				taking.Go(func() { takeAll(ctx, w) })
			}
			value := stateOf(change{"", 1, 2}).AppendBinary(nil, schema)
			at := spot{}
			b.ResetTimer()
			for range b.N {
				c := &commit{asOf: AsOf{}, end: spot{at.next + ids, at.records + ids}}
				for i := range int64(ids) {
					c.offsets = append(c.offsets, at.next+i)
					c.told = append(c.told, told{id: fmt.Sprint("id", i), offset: at.next + i, value: value})
				}
				c.flagsOf = func(*told) (was, is []bool, err error) { return nil, nil, nil }
				c.stored = func(t *told) ([]byte, error) { return t.value, nil }
				at = c.end
				if err := h.follow(0, at, c); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			cancel()
			taking.Wait()
		})
	}
}

// takeAll is a watcher's loop without heartbeats, for which there would have to be partitions.
func takeAll(ctx context.Context, w *Watcher) {
	defer w.Close()
	var events []Event
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		events, _ = w.take(events[:0])
		w.release()
	}
}

func ptr[T any](v T) *T { return &v }
