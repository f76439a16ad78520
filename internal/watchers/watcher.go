package watchers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/internal/history"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// watcher takes what it is told and writes it down, through all resumes.
type watcher struct {
	ask       *pb.WatchRequest
	transport transport
	begun     chan struct{} // closed with the first event ever

	mu      sync.Mutex // guards the fields below
	watch   history.Watch
	fault   error // what no watcher may meet
	resumed int
	slow    int       // resets because it was slow
	live    time.Time // when it was first told something after it came or came back; zero: not yet
	delays  []time.Duration
}

// transport is the way to a view.
type transport int

const (
	sse1 transport = iota // server-sent events over HTTP/1.1, a connection each
	sse2                  // over HTTP/2, many on a connection
	grpc                  // many on a connection
	transports
)

// clients are shared by all watchers of a transport.
type clients [transports]*http.Client

func newClients() *clients {
	c := &clients{}
	for i := range c {
		t := &http.Transport{MaxIdleConns: -1, DisableCompression: true, Protocols: &http.Protocols{}, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: inFlightBytes}}
		t.Protocols.SetHTTP1(transport(i) == sse1)
		t.Protocols.SetUnencryptedHTTP2(transport(i) != sse1)
		c[i] = &http.Client{Transport: t}
	}
	return c
}

func (c *clients) close() {
	for _, client := range c {
		client.CloseIdleConnections()
	}
}

// newWatcher gives the n-th watcher: of 200, 1 is of everything, 2 are of the flag, 40 of a prefix and the others of one ID;
// half of them speak gRPC.
func newWatcher(n, ids int) *watcher {
	w := &watcher{ask: &pb.WatchRequest{}, transport: []transport{grpc, sse1, grpc, sse2}[n/200%4], begun: make(chan struct{})}
	switch k := n % 200; {
	case k == 0:
	case k <= 2:
		w.ask.Flag = flagHigh
	case k <= 42:
		w.ask.Prefix = prefixOf(n)
	default:
		w.ask.Id = idOf(n % ids)
	}
	w.watch = history.Watch{
		Name: fmt.Sprintf("watcher %d (id %q, prefix %q, flag %q, transport %d)", n, w.ask.Id, w.ask.Prefix, w.ask.Flag, w.transport),
		ID:   w.ask.Id, Prefix: w.ask.Prefix, Flag: w.ask.Flag,
	}
	return w
}

type delivery = history.Delivery

// told is one event.
type told struct {
	place, reset string
	change       *delivery // nil of a heartbeat
	sent         string    // when the last event of the change's state was
}

// run watches one view after the other until the context ends.
func (w *watcher) run(ctx context.Context, fleet *fleet, c *clients) {
	for ctx.Err() == nil {
		view := fleet.any()
		if view == "" {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		var err error
		if w.transport == grpc {
			err = w.callGRPC(ctx, c[grpc], view)
		} else {
			err = w.readSSE(ctx, c[w.transport], view)
		}
		var wrong *wrongAnswer
		if errors.As(err, &wrong) && ctx.Err() == nil {
			w.mu.Lock()
			w.fault = err
			w.mu.Unlock()
			return
		}
		w.mu.Lock()
		w.live = time.Time{}
		if ctx.Err() == nil {
			w.resumed++
		}
		w.mu.Unlock()
		pause(ctx, 20*time.Millisecond)
	}
}

// wrongAnswer is one that no kill explains.
type wrongAnswer struct{ what string }

func (w *wrongAnswer) Error() string { return w.what }

// take writes an event down, and with it the place to go on from. How long a change took is noted of those that were sent while
// the watcher was live.
func (w *watcher) take(e told) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ask.From == "" && e.place != "" {
		close(w.begun)
	}
	if e.place != "" {
		w.ask.From = e.place
	}
	now := time.Now()
	if w.live.IsZero() {
		w.live = now
	}
	switch {
	case strings.HasPrefix(e.reset, "slow"):
		w.slow++
	case e.reset != "":
		return &wrongAnswer{"reset: " + e.reset}
	case e.change != nil:
		w.watch.Events = append(w.watch.Events, *e.change)
		if ns, err := strconv.ParseInt(e.sent, 10, 64); err == nil {
			if sent := time.Unix(0, ns); sent.After(w.live) {
				w.delays = append(w.delays, now.Sub(sent))
			}
		}
	}
	return nil
}

func (w *watcher) readSSE(ctx context.Context, c *http.Client, view string) error {
	q := url.Values{}
	for name, value := range map[string]string{"id": w.ask.Id, "prefix": w.ask.Prefix, "flag": w.ask.Flag} {
		if value != "" {
			q.Set(name, value)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, view+"/v1/watch?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	if w.ask.From != "" {
		req.Header.Set("Last-Event-ID", w.ask.From)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		if resp.StatusCode == http.StatusServiceUnavailable {
			return errors.New(string(body))
		}
		return &wrongAnswer{resp.Status + " " + string(body)}
	}
	e, data := told{}, ""
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.place = value
		case "data":
			data = value
		case "":
			if data == "" {
				continue
			}
			if err := e.parse(data); err != nil {
				return err
			}
			if err := w.take(e); err != nil {
				return err
			}
			e, data = told{}, ""
		}
	}
}

// parse reads the data of a server-sent event.
func (e *told) parse(data string) error {
	var d struct {
		ID     string
		State  json.RawMessage
		AsOf   json.RawMessage `json:"as_of"` // one of a change, many of a heartbeat
		Reason string
	}
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		return &wrongAnswer{err.Error()}
	}
	if e.reset = d.Reason; d.ID == "" {
		return nil
	}
	var asOf struct {
		Partition int32
		Commit    uint64 `json:",string"`
	}
	if err := json.Unmarshal(d.AsOf, &asOf); err != nil {
		return &wrongAnswer{err.Error()}
	}
	e.change = &delivery{Partition: asOf.Partition, Commit: asOf.Commit, ID: interned(d.ID), Deleted: string(d.State) == "null"}
	var s struct {
		Version uint64 `json:",string"`
		Totals  struct{ Sent string }
	}
	if err := json.Unmarshal(d.State, &s); err != nil {
		return &wrongAnswer{err.Error()}
	}
	e.change.Version, e.change.Content, e.sent = s.Version, interned(string(d.State)), s.Totals.Sent
	return nil
}

// texts are kept once, however many watchers are told them.
var texts sync.Map

func interned(s string) string {
	kept, _ := texts.LoadOrStore(s, s)
	return kept.(string)
}

func (w *watcher) callGRPC(ctx context.Context, c *http.Client, view string) error {
	stream, err := tidemarkv1connect.NewViewClient(c, view, connect.WithGRPC()).Watch(ctx, w.ask)
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		e := told{place: m.Place, reset: m.GetReset_().GetReason()}
		if c := m.GetChange(); c != nil {
			e.change = &delivery{
				Partition: c.AsOf.Partition, Commit: c.AsOf.Commit, ID: interned(c.Id), Version: c.State.GetVersion(), Deleted: c.State == nil,
			}
			e.sent = c.State.GetTotals()[totalSent].GetStringValue()
		}
		if err := w.take(e); err != nil {
			return err
		}
	}
	switch err := stream.Err(); connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeResourceExhausted, connect.CodeUnimplemented:
		return &wrongAnswer{err.Error()}
	default:
		return err
	}
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
