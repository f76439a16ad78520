package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/internal/jobtest"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// load asks from so many sides at once.
func load(b *testing.B, sides int, ask func(context.Context) error) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(max(sides/runtime.GOMAXPROCS(0), 1))
	if sides == 1 {
		for b.Loop() {
			if err := ask(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := ask(b.Context()); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkGet has client and view in one process, on the same cores: its figures compare ways to ask with each other, and
// what the client adds to the bare call.
func BenchmarkGet(b *testing.B) {
	j := jobtest.MustStart(b, jobtest.Config{})
	v := j.MustView(b)
	at := write(b, j, "user-1", 40, 70)
	c := mustClient(b, nil, v.URL())
	if _, err := c.Get(b.Context(), "user-1", AtLeast(at.String()), Wait(20*time.Second)); err != nil {
		b.Fatal(err)
	}
	h2c := &http.Transport{Protocols: &http.Protocols{}, DisableCompression: true}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	defer h2c.CloseIdleConnections()
	h1 := newTransport(nil)
	defer h1.CloseIdleConnections()
	plain := connect.WithAcceptCompression("gzip", nil, nil)
	for _, sides := range []int{1, 16} {
		b.Run(fmt.Sprintf("client/%d", sides), func(b *testing.B) {
			load(b, sides, func(ctx context.Context) error {
				_, err := c.Get(ctx, "user-1")
				return err
			})
		})
		for _, way := range []struct {
			name      string
			transport *http.Transport
			options   []connect.ClientOption
		}{
			{"bare/connect-http1", h1, []connect.ClientOption{plain}},
			{"bare/connect-http2", h2c, []connect.ClientOption{plain}},
			{"bare/grpc-http2", h2c, []connect.ClientOption{plain, connect.WithGRPC()}},
			{"bare/connect-http1-gzip", h1, nil},
		} {
			rpc := tidemarkv1connect.NewViewClient(&http.Client{Transport: way.transport}, v.URL(), way.options...)
			b.Run(fmt.Sprintf("%s/%d", way.name, sides), func(b *testing.B) {
				load(b, sides, func(ctx context.Context) error {
					_, err := rpc.Get(ctx, &pb.GetRequest{Id: "user-1"})
					return err
				})
			})
		}
	}
}

// BenchmarkOverhead is what the client does to a Get without the network and the view: both are a function call here.
func BenchmarkOverhead(b *testing.B) {
	f := &fake{get: answers}
	hosts := inMemory{"view": f}
	c := mustClient(b, func(cfg *Config) { cfg.Transport = hosts }, "http://view")
	rpc := tidemarkv1connect.NewViewClient(&http.Client{Transport: hosts}, "http://view", connect.WithAcceptCompression("gzip", nil, nil))
	b.Run("client", func(b *testing.B) {
		load(b, 1, func(ctx context.Context) error {
			_, err := c.Get(ctx, "a")
			return err
		})
	})
	b.Run("bare", func(b *testing.B) {
		load(b, 1, func(ctx context.Context) error {
			_, err := rpc.Get(ctx, &pb.GetRequest{Id: "a"})
			return err
		})
	})
}

func BenchmarkCacheGet(b *testing.B) {
	const n = 200_000
	page := &Page{AsOf: make([]Freshness, 4), asked: time.Now()}
	ids := make([]string, n)
	for i := range n {
		s := typical(i)
		ids[i] = s.Id
		page.States = append(page.States, s)
	}
	k := &Cache{cfg: cacheConfig{entriesMax: n, bytesMax: 1 << 30, staleAfter: time.Hour}}
	held := newContents(&k.cfg, page)
	held.add(page)
	held.view.Store(&endpoint{})
	k.held.Store(held)
	for _, sides := range []int{1, 16} {
		b.Run(fmt.Sprint("hit/", sides), func(b *testing.B) {
			load(b, sides, func(ctx context.Context) error {
				_, err := k.Get(ctx, ids[rand.IntN(n)])
				return err
			})
		})
	}
	b.Run("none", func(b *testing.B) {
		load(b, 1, func(ctx context.Context) error {
			if _, err := k.Get(ctx, "nobody"); err == nil {
				return fmt.Errorf("found nobody")
			}
			return nil
		})
	})
}
