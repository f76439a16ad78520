package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// EventKind tells events apart.
type EventKind int

// The kinds of events.
const (
	// Began: what is committed from here on is told, and reads of the event's View come after it. It is told once at the
	// beginning of a watch without From, and once after each Reset. A version that was committed just before may be told before it.
	Began EventKind = iota + 1
	// Changed: a committed version.
	Changed
	// Alive: the watch lives; Age says how fresh what it told is.
	Alive
	// Reset: versions may have been missed. What was taken so far is to be read again, after the Began that follows.
	Reset
)

func (k EventKind) String() string {
	if name := map[EventKind]string{Began: "began", Changed: "changed", Alive: "alive", Reset: "reset"}[k]; name != "" {
		return name
	}
	return fmt.Sprintf("EventKind(%d)", int(k))
}

// Event is one thing that a watch tells.
type Event struct {
	Kind EventKind
	// Place is where to go on after the event, by From, in any view of the job. A Reset has none.
	Place string
	View  string // that told it

	// Of Changed: the version, nil where the ID was deleted, and the commit that made it.
	ID    string
	State *State
	AsOf  Freshness

	// Of Began and Alive: how long ago what was told was known to have covered the end of the input, and of the table, when the
	// view said so. For how long that was under way nobody knows.
	Age, TableAge time.Duration
	// Told has, of each partition watched, the commit up to which everything was told; nil where Age is not known.
	Told []Freshness

	Reason string // of Reset
}

// From begins a watch behind an event, by its Place: everything that was committed since is told first.
func From(place string) Option { return func(o *options) { o.from = place } }

// Watch tells every committed version of the IDs that the filter means, once, and those of an ID in order; what one commit
// coalesced is one version. With Flag, the version that clears it is told too.
//
// It goes on by itself when the view ends, is slow or falls silent, in another view where there is one, from where it was.
// Where that place is gone it tells a Reset, and begins anew. It ends with the context, or with an error that asking
// again does not mend (ErrInvalid; ErrDenied by a view): that is the last thing it gives.
func (c *Client) Watch(ctx context.Context, what Filter, opts ...Option) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		o := chosen(opts)
		r, err := c.reading(ctx, o)
		if err != nil {
			yield(Event{}, err)
			return
		}
		w := &watching{client: c, what: what, on: r.on, place: o.from, began: o.from != ""}
		if err := w.run(ctx, func(e *Event) bool { return yield(*e, nil) }); err != nil {
			yield(Event{}, err)
		}
	}
}

// watching is a watch under way.
type watching struct {
	client *Client
	what   Filter
	on     *endpoint // nil: any
	place  string    // of the last event; "": what is committed from now on
	began  bool      // Began was told
	// link is told to which view the watch is connected, and nil when it no longer is; nil: nobody.
	link func(to *endpoint)
	// linked tells that it is connected: something has come.
	linked bool
}

// errTaken says that whom the events go to wants no more.
var errTaken = errors.New("no more is wanted")

// run tells events until take has enough (nil), the context ends, or an error stands that asking again does not mend.
func (w *watching) run(ctx context.Context, take func(*Event) bool) error {
	var tried []*endpoint
	for failures := 0; ; {
		v := w.on
		if v == nil {
			v = w.client.pick(tried)
		}
		err := w.stream(ctx, v, take)
		if w.linked {
			w.linked, tried, failures = false, nil, 0
			if w.link != nil {
				w.link(nil)
			}
		}
		if errors.Is(err, errTaken) {
			return nil
		}
		if err == nil { // a reset
			continue
		}
		failure := failureOf(ctx, v, err)
		if failure.lasting() || ctx.Err() != nil {
			return failure
		}
		v.note(failure)
		failures++
		tried = append(tried, v)
		if len(tried) == len(w.client.views) {
			tried = nil
		}
		if !pause(ctx, w.client.delay(w.on, tried, failure, failures)) {
			<-ctx.Done() // a watch goes on to the very end
			return failureOf(ctx, v, ctx.Err())
		}
	}
}

// errSilent is why a stream was given up.
var errSilent = errors.New("no word in time, not even a heartbeat")

// stream tells what one view says. It returns nil where a reset ended that.
func (w *watching) stream(ctx context.Context, v *endpoint, take func(*Event) bool) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(w.client.cfg.Silence, func() { cancel(errSilent) })
	defer silence.Stop()
	stream, err := v.rpc.Watch(ctx, &pb.WatchRequest{Id: w.what.id, Prefix: w.what.prefix, Flag: w.what.flag, From: w.place})
	if err != nil {
		return err
	}
	defer func() {
		cancel(nil) // first, for Close waits for the end of the answer
		_ = stream.Close()
	}()
	for stream.Receive() {
		silence.Stop() // how long the events are worked on is not the view's doing
		v.well()
		if !w.linked {
			w.linked = true
			if w.link != nil {
				w.link(v)
			}
		}
		if more, err := w.tell(stream.Msg(), v, take); err != nil || !more {
			return err
		}
		silence.Reset(w.client.cfg.Silence)
	}
	switch err := stream.Err(); {
	case errors.Is(context.Cause(ctx), errSilent):
		return errSilent
	case err != nil:
		return err
	}
	return errors.New("the stream has ended")
}

// tell makes an event of an answer. false is that the stream ends with it.
func (w *watching) tell(m *pb.WatchResponse, v *endpoint, take func(*Event) bool) (more bool, err error) {
	e := Event{Place: m.Place, View: v.url, Age: NotKnown, TableAge: NotKnown}
	switch said := m.Event.(type) {
	case *pb.WatchResponse_Change:
		e.Kind, e.ID, e.State = Changed, said.Change.Id, said.Change.State
		if said.Change.AsOf != nil {
			e.AsOf = asOfCommit(said.Change.AsOf)
		}
	case *pb.WatchResponse_Heartbeat:
		e.Kind, e.Age, e.TableAge = Alive, ageOf(said.Heartbeat.Age), ageOf(said.Heartbeat.TableAge)
		for _, p := range said.Heartbeat.AsOf {
			e.Told = append(e.Told, asOfCommit(p))
		}
		if !w.began {
			e.Kind, w.began = Began, true
		}
	case *pb.WatchResponse_Reset_:
		if strings.HasPrefix(said.Reset_.Reason, "slow") {
			return false, nil // the place still holds, and nothing is lost from there
		}
		e.Kind, e.Place, e.Reason = Reset, "", said.Reset_.Reason
		w.began = false
	default:
		return true, nil // of a later version of the service
	}
	w.place = e.Place
	if !take(&e) {
		return false, errTaken
	}
	return e.Kind != Reset, nil
}

// asOfCommit is a commit whose age nobody told.
func asOfCommit(m *pb.AsOf) Freshness {
	f := Freshness{Partition: m.Partition, Position: m.Position, Commit: m.Commit, Age: NotKnown, TableAge: NotKnown}
	if m.Time != nil {
		f.Time = m.Time.AsTime()
	}
	return f
}
