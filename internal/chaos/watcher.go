package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/internal/history"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// How long a watcher stays with a view that tells it nothing, and with one that does. Both are drawn for each stream.
const (
	patienceMin, patienceMax = 2 * time.Second, 20 * time.Second
	stayMin, stayMax         = 5 * time.Second, 60 * time.Second
)

// Why a watcher went to another view.
var (
	errSilent = errors.New("silent")
	errMoved  = errors.New("moved of its own accord")
)

const (
	streamEnded = "the stream broke off"
	streamSlow  = "reset: slow"
)

// watcher follows one subject. Where its stream ends it goes on from its last place, on another view.
type watcher struct {
	what    history.Watch // without what it was told
	sse     bool          // or gRPC
	clients []*client     // the first one at first
	rng     *rand.Rand

	place string        // after the last event that was taken whole
	begun chan struct{} // closed when the first place is known

	mu      sync.Mutex // guards the fields below
	told    []history.Delivery
	answers []answer       // the same, for the ledger
	resumed map[string]int // by the reason
	wrong   []string
}

// streamed is what a stream says at once.
type streamed struct {
	place  string
	change *changed
	reset  string // the reason
}

// changed is a change as it was told.
type changed struct {
	id      string
	state   *stateJSON // nil: deleted
	content string     // of the state, as it was sent; "" over gRPC
	asOf    asOfJSON
}

// run follows until ctx ends.
func (w *watcher) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		why, told := w.follow(ctx, w.clients[n%len(w.clients)])
		switch {
		case ctx.Err() != nil:
		case told:
			w.mu.Lock()
			w.resumed[why]++
			w.mu.Unlock()
		default: // that view is away or not ready
			_ = pause(ctx, 50*time.Millisecond)
		}
	}
}

// follow takes what one view tells, and answers why it ended, and whether it was told anything.
func (w *watcher) follow(ctx context.Context, c *client) (why string, told bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := patienceMin + time.Duration(w.rng.Int64N(int64(patienceMax-patienceMin)))
	silence := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer silence.Stop()
	stay := time.AfterFunc(stayMin+time.Duration(w.rng.Int64N(int64(stayMax-stayMin))), func() { cancel(errMoved) })
	defer stay.Stop()
	reset := ""
	take := func(e *streamed) error {
		silence.Reset(patience)
		reset, told = e.reset, true
		return w.take(e)
	}
	var err error
	if w.sse {
		err = w.followSSE(ctx, c, take)
	} else {
		err = w.followRPC(ctx, c, take)
	}
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) || errors.Is(cause, errMoved) {
		return cause.Error(), told
	}
	code, said := saidNo(err)
	switch {
	case strings.HasPrefix(reset, "slow"):
		return streamSlow, told
	case reset != "":
		w.convict("reset: " + reset)
	case said && code != connect.CodeUnavailable:
		w.convict(fmt.Sprintf("%s: %v", c.view.task.Instance, err))
	}
	return streamEnded, told
}

// take keeps one event. Only now is its place where to go on.
func (w *watcher) take(e *streamed) error {
	if c := e.change; c != nil {
		d := history.Delivery{Partition: c.asOf.Partition, Commit: c.asOf.Commit, ID: c.id, Deleted: c.state == nil, Content: c.content}
		a := answer{view: w.what.Name, id: c.id, asked: time.Now(), age: -1, asOf: place{c.asOf.Partition, c.asOf.Commit, c.asOf.Position}}
		if c.state != nil {
			holds, err := c.state.found()
			if err != nil {
				return fmt.Errorf("%w: state of %s: %w", errMalformed, c.id, err)
			}
			d.Version, a.version, a.holds = c.state.Version, c.state.Version, holds
		}
		w.mu.Lock()
		w.told, w.answers = append(w.told, d), append(w.answers, a)
		w.mu.Unlock()
	}
	if e.place == "" || e.reset != "" {
		return nil
	}
	if w.place == "" {
		close(w.begun)
	}
	w.place = e.place
	return nil
}

func (w *watcher) convict(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, what)
}

// followRPC takes a stream of answers over gRPC.
func (w *watcher) followRPC(ctx context.Context, c *client, take func(*streamed) error) error {
	stream, err := c.grpc.Watch(ctx, &pb.WatchRequest{Id: w.what.ID, Prefix: w.what.Prefix, Flag: w.what.Flag, From: w.place})
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		e := &streamed{place: m.Place, reset: m.GetReset_().GetReason()}
		if change := m.GetChange(); change != nil {
			at := change.AsOf
			e.change = &changed{id: change.Id, asOf: asOfJSON{Partition: at.GetPartition(), Position: at.GetPosition(), Commit: at.GetCommit()}}
			if st := change.State; st != nil {
				e.change.state = stateOf(st)
			}
		}
		if err := take(e); err != nil {
			return err
		}
	}
	return stream.Err()
}

// stateOf is what is compared of a state.
func stateOf(st *pb.State) *stateJSON {
	s := &stateJSON{ID: st.Id, Version: st.Version, Count: st.Count, Totals: map[string]string{}, Flags: map[string]json.RawMessage{}}
	for name, total := range st.Totals {
		s.Totals[name] = total.GetStringValue()
	}
	for name := range st.Flags {
		s.Flags[name] = nil
	}
	return s
}

// followSSE takes server-sent events.
func (w *watcher) followSSE(ctx context.Context, c *client, take func(*streamed) error) error {
	body, err := c.stream(ctx, &w.what, w.place)
	if err != nil {
		return err
	}
	defer body.Close()
	for in := newEvents(body); ; {
		sent, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		e := &streamed{place: sent.id}
		switch sent.event {
		case "change":
			e.change = &changed{}
			err = e.change.parse(sent.data)
		case "reset":
			var reset struct{ Reason string }
			err = json.Unmarshal(sent.data, &reset)
			e.reset = reset.Reason
		}
		if err != nil {
			return fmt.Errorf("%w: %w in %s", errMalformed, err, sent.data)
		}
		if err := take(e); err != nil {
			return err
		}
	}
}

func (c *changed) parse(data []byte) error {
	var change struct {
		ID    string
		State json.RawMessage
		AsOf  asOfJSON `json:"as_of"`
	}
	if err := json.Unmarshal(data, &change); err != nil {
		return err
	}
	c.id, c.asOf = change.ID, change.AsOf
	if string(change.State) == "null" {
		return nil
	}
	c.content = string(change.State)
	return json.Unmarshal(change.State, &c.state)
}
