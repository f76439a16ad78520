package view

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/codecs"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

const benchIDs = 200_000

func benchID(n int) string { return fmt.Sprintf("id-%08d", n) }

// benchView is a view of 200,000 IDs, which all benchmarks share.
func benchView(b *testing.B) *running {
	w := mustTable(b, embedded(b), 4)
	w.begin()
	for n := 0; n < benchIDs; {
		changes := make([]change, 20_000)
		for i := range changes {
			changes[i] = change{benchID(n), 1, int64(n % 100)}
			n++
		}
		w.commit(changes...)
	}
	r := w.view(b.TempDir()).ready()
	for p := range w.partitions {
		r.covers(p, w.seq[p])
		r.levelSince(p, time.Now())
	}
	return r
}

// BenchmarkReads has client and server in one process, on the same cores: its figures compare ways of reading with each
// other, and nothing else.
func BenchmarkReads(b *testing.B) {
	r := benchView(b)
	b.Run("core/get", func(b *testing.B) {
		b.ReportAllocs()
		var s codecs.State
		for b.Loop() {
			if _, err := r.Get(b.Context(), someID(), Read{}, &s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("core/batch100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a, err := r.batch(b.Context(), &pb.BatchGetRequest{Ids: hundredIDs()})
			if err != nil {
				b.Fatal(err)
			}
			a.appendProto(nil)
		}
	})
	for _, conns := range []int{1, 16} {
		b.Run(fmt.Sprintf("http/get/%d", conns), func(b *testing.B) {
			c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns, MaxConnsPerHost: conns, DisableCompression: true}}
			defer c.CloseIdleConnections()
			load(b, conns, func(context.Context) error {
				resp, err := c.Get(r.url + "/v1/ids/" + someID())
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				return err
			})
		})
		b.Run(fmt.Sprintf("grpc/get/%d", conns), func(b *testing.B) {
			c := tidemarkv1connect.NewViewClient(h2c(b), r.url, connect.WithGRPC())
			load(b, conns, func(ctx context.Context) error {
				_, err := c.Get(ctx, &pb.GetRequest{Id: someID()})
				return err
			})
		})
		b.Run(fmt.Sprintf("grpc/batch100/%d", conns), func(b *testing.B) {
			c := tidemarkv1connect.NewViewClient(h2c(b), r.url, connect.WithGRPC())
			load(b, conns, func(ctx context.Context) error {
				_, err := c.BatchGet(ctx, &pb.BatchGetRequest{Ids: hundredIDs()})
				return err
			})
		})
	}
}

// BenchmarkHandler is reads without sockets.
func BenchmarkHandler(b *testing.B) {
	r := benchView(b)
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		h := r.Handler()
		for b.Loop() {
			rec := &discard{header: http.Header{}}
			h.ServeHTTP(rec, mustRequest(b, "/v1/ids/"+someID()))
			if rec.status != 200 {
				b.Fatal(rec.status)
			}
		}
	})
	b.Run("batch100", func(b *testing.B) {
		b.ReportAllocs()
		h := r.Handler()
		for b.Loop() {
			rec := &discard{header: http.Header{}}
			body := `{"ids":["` + strings.Join(hundredIDs(), `","`) + `"]}`
			h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, BatchPath, strings.NewReader(body)))
			if rec.status != 200 {
				b.Fatal(rec.status)
			}
		}
	})
}

func someID() string { return benchID(rand.IntN(benchIDs)) }

func hundredIDs() []string {
	ids := make([]string, 100)
	for i := range ids {
		ids[i] = someID()
	}
	return ids
}

// load asks from several sides at once.
func load(b *testing.B, sides int, ask func(context.Context) error) {
	b.ReportAllocs()
	ctx := b.Context()
	work := make(chan struct{}, 1024)
	var asked sync.WaitGroup
	for range sides {
		asked.Go(func() {
			for range work {
				if err := ask(ctx); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	asked.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
}

// discard is a response that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
