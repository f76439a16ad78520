package watchers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// Round is one round of Stall: how long versions took to reach those who took them.
type Round struct {
	Stalled  bool // watchers that take nothing were there too
	Told     int
	P50, P99 time.Duration
	Slow     int // resets of those that took nothing
}

// stallEvery is how often in a round one more watcher comes that takes nothing.
const stallEvery = 2 * time.Second

// Stall measures what watchers that take nothing cost the others: in turn, a round without any, and one in which they
// come one after the other, over HTTP/1.1 and on the connection that the others' gRPC streams share. cfg.For is a round's length.
func Stall(ctx context.Context, cfg Config, rounds int) (all []Round, err error) {
	cfg.Views = 1
	w, err := begin(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	if err := w.watch(ctx, cfg.Watchers); err != nil {
		return nil, err
	}
	if _, err := w.stream.produce(ctx, cfg.Rate, cfg.For/4); err != nil { // so that all is warm
		return nil, err
	}
	for i := range 2 * rounds {
		r, err := w.round(ctx, (i+i/2)%2 == 1) // without, with, with, without: the order favours neither
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(cfg.Out, "round %d, stalled watchers: %-5t  told %d, p50 %v, p99 %v, %d resets of slow ones\n",
			i+1, r.Stalled, r.Told, r.P50.Round(10*time.Microsecond), r.P99.Round(10*time.Microsecond), r.Slow)
		all = append(all, r)
	}
	return all, nil
}

func (w *world) round(ctx context.Context, stalled bool) (r Round, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before, err := slowResets(ctx, w.fleet.any())
	if err != nil {
		return r, err
	}
	w.delays() // those of before
	ended := make(chan error, 1)
	if r.Stalled = stalled; stalled {
		stalling, stop := context.WithCancel(ctx)
		defer func() { stop(); err = errors.Join(err, <-ended) }()
		go func() { ended <- w.stall(stalling) }()
	}
	if _, err := w.stream.produce(ctx, w.cfg.Rate, w.cfg.For); err != nil {
		return r, err
	}
	delays := w.delays()
	r.Told = len(delays)
	r.P50, r.P99 = quantiles(delays)
	after, err := slowResets(ctx, w.fleet.any())
	r.Slow = after - before
	return r, err
}

// delays takes what the watchers have measured.
func (w *world) delays() (all []time.Duration) {
	for _, one := range w.watchers {
		one.mu.Lock()
		all = append(all, one.delays...)
		one.delays = nil
		one.watch.Events = nil // nobody judges them here
		one.mu.Unlock()
	}
	return all
}

// stall has watchers of everything come until the context ends, of which none takes anything.
func (w *world) stall(ctx context.Context) error {
	client := tidemarkv1connect.NewViewClient(w.clients[grpc], w.fleet.any(), connect.WithGRPC())
	for n := 0; ctx.Err() == nil; n++ {
		if n%2 == 0 {
			conn, err := net.Dial("tcp", strings.TrimPrefix(w.fleet.any(), "http://"))
			if err != nil {
				return err
			}
			defer conn.Close() // with the round
			if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
				return err
			}
			if _, err := io.WriteString(conn, "GET /v1/watch HTTP/1.1\r\nHost: view\r\n\r\n"); err != nil {
				return err
			}
		} else if _, err := client.Watch(ctx, &pb.WatchRequest{}); err != nil && ctx.Err() == nil {
			return err
		}
		pause(ctx, stallEvery)
	}
	return nil
}

// slowResets asks a view's metrics how many watchers were reset because they were slow.
func slowResets(ctx context.Context, view string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, view+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), `tidemark_view_watch_resets_total{reason="slow"} `); ok {
			return strconv.Atoi(n)
		}
	}
	return 0, nil
}

// ErrNobodyStalled says that rounds have shown nothing.
var ErrNobodyStalled = errors.New("in a round no watcher was slow: raise the rate, or the size of states")

// Cost is by how much the median p99 of the rounds with watchers that take nothing is above that of those without; 0.1 is ten
// percent. ErrNobodyStalled: in a round with them none was reset as slow.
func Cost(rounds []Round) (float64, error) {
	var p99 [2][]time.Duration
	for _, r := range rounds {
		which := 0
		if r.Stalled {
			which = 1
		}
		if r.Stalled && r.Slow == 0 {
			return 0, ErrNobodyStalled
		}
		p99[which] = append(p99[which], r.P99)
	}
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(all[len(all)/2]+all[(len(all)-1)/2]) / 2
	}
	return median(p99[1])/median(p99[0]) - 1, nil
}
