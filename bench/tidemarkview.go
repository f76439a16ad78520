package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
	"github.com/tidemark/tidemark/view"
)

func init() { roles["tidemark-view"] = runTidemarkView }

// lookEvery is how exactly it is known when something became visible; what is reported is never too early.
const lookEvery = 500 * time.Microsecond

// runTidemarkView is Tidemark's view as `tidemark view` runs it. It asks its own view what it shows, in place of a client
// whose thousands of requests per second would be measured too; what a request costs is measured afterwards.
func runTidemarkView(ctx context.Context, t *task, ready func(report)) (report, error) {
	set, err := rules.Load([]byte(t.Rules))
	if err != nil {
		return report{}, err
	}
	v, err := view.New(view.Config{
		Kafka: &eos.Kafka{Brokers: t.Brokers, ClientID: "bench-view"}, Names: eos.Names{Job: t.Job, Generation: 1}, Input: t.Topic,
		Schema: set.Schema(), Dir: filepath.Join(t.Dir, "view"), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return report{}, err
	}
	runCtx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- v.Run(runCtx) }()
	if err := waitFor(ctx, done, func() bool { return v.Ready() == nil }); err != nil {
		stop()
		return report{}, err
	}
	ready(report{})
	end := report{}
	end.Samples, err = watch(ctx, v, done)
	if err == nil {
		end.GetNs, err = timeRequests(v.Handler())
	}
	stop()
	return end, errors.Join(err, <-done)
}

// watch notes, until ctx ends, each moment at which a partition began to show more of the input.
func watch(ctx context.Context, v *view.View, done chan error) (map[int32][]visit, error) {
	seen, next := map[int32][]visit{}, make([]int64, partitions)
	probes := probeIDs()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for p, id := range probes {
			var state codecs.State
			asOf, err := v.Get(ctx, id, view.Read{}, &state)
			if err != nil && !errors.Is(err, view.ErrNotFound) {
				return nil, err
			}
			if asOf.Position > next[p] {
				next[p] = asOf.Position
				seen[int32(p)] = append(seen[int32(p)], visit{AtNs: time.Now().UnixNano(), Next: asOf.Position})
			}
		}
		select {
		case err := <-done:
			done <- err
			return nil, errors.New("the view ended by itself")
		case <-ctx.Done():
			return seen, nil
		case <-tick.C:
		}
	}
}

// probeIDs are IDs of each partition.
func probeIDs() []string {
	ids := make([]string, partitions)
	for n, found := 0, 0; found < partitions; n++ {
		if p := eos.Place([]byte(idText(n)), partitions); ids[p] == "" {
			ids[p] = idText(n)
			found++
		}
	}
	return ids
}

// timeRequests gives the median of requests for one ID, over a connection that is kept.
func timeRequests(h http.Handler) (median int64, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() {
		err = errors.Join(err, srv.Close())
		<-served
	}()
	took := make([]int64, 500)
	for i := range took {
		start := time.Now()
		resp, err := http.Get(fmt.Sprintf("http://%s/v1/ids/%s", l.Addr(), probeIDs()[0]))
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return 0, err
		}
		took[i] = time.Since(start).Nanoseconds()
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
