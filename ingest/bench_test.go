package ingest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// BenchmarkIngest_REST writes over HTTP into a real Kafka, with callers, server, client and broker on the same machine:
//
//	go test -run '^$' -bench Ingest_REST -benchtime 10s ./ingest
//
// An operation is a request. p50 and p99 are those of requests.
func BenchmarkIngest_REST(b *testing.B) {
	c := kafkatest.MustCluster(b, kafkatest.Options{JVM: []string{"-Xmx1g", "-XX:TieredStopAtLevel=4"}})
	for _, load := range []struct {
		name           string
		events, caller int
		linger         time.Duration
	}{
		{"one event, 1 caller", 1, 1, 0},
		{"one event, 64 callers", 1, 64, 0},
		{"one event, 64 callers, linger 1ms", 1, 64, time.Millisecond},
		{"100 lines, 1 caller", 100, 1, 0},
		{"100 lines, 8 callers", 100, 8, 0},
		{"100 lines, 64 callers", 100, 64, 0},
	} {
		b.Run(load.name, func(b *testing.B) {
			w := mustJob(b, c.Addrs(), jobFile).produces(func(c *Config) { c.Linger = load.linger })
			transport := &http.Transport{MaxIdleConnsPerHost: load.caller}
			defer transport.CloseIdleConnections()
			client, media := &http.Client{Transport: transport}, one
			if load.events > 1 {
				media = many
			}
			took := make([][]time.Duration, load.caller)
			next := make(chan int, b.N)
			for n := range b.N {
				next <- n
			}
			close(next)
			b.ResetTimer()
			start := time.Now()
			var callers sync.WaitGroup
			for caller := range took {
				callers.Go(func() {
					var body bytes.Buffer
					for n := range next {
						body.Reset()
						for e := range load.events {
							fmt.Fprintf(&body, `{"id":"user-%d","time":"2026-01-02T03:04:05Z","value":%d,"type":"purchase","page":"/checkout/%d"}`+"\n", (n*load.events+e)%10_000, e%7, n%100)
						}
						began := time.Now()
						resp, err := client.Post(w.url+"/v1/events", media, &body)
						if err != nil {
							b.Error(err)
							return
						}
						answer, err := io.ReadAll(resp.Body)
						_ = resp.Body.Close()
						if err != nil || resp.StatusCode != http.StatusOK {
							b.Errorf("got %d %.200s (%v)", resp.StatusCode, answer, err)
							return
						}
						took[caller] = append(took[caller], time.Since(began))
					}
				})
			}
			callers.Wait()
			elapsed := time.Since(start)
			all := slices.Concat(took...)
			slices.Sort(all)
			if len(all) == 0 {
				return
			}
			b.ReportMetric(float64(len(all)*load.events)/elapsed.Seconds(), "events/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-p50")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "ms-p99")
			b.ReportMetric(0, "ns/op")
		})
	}
}
