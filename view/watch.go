package view

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark/tidemark/eos"
)

// WatchConfig bounds what watchers may cost; each field's zero value is its default.
type WatchConfig struct {
	Max          int // watchers in all (default 20,000)
	PerClientMax int // watchers of one client (default 1,000)
	// QueueBytesMax is how much a watcher may have waiting and still be given a commit (default 1 MiB); past it, it is slow.
	QueueBytesMax int
	Heartbeat     time.Duration // how often a watcher hears that it lives, and how fresh it is (default 15 s)
	WriteTimeout  time.Duration // how long a transport tries to write to a watcher that takes nothing (default 30 s)
	// Horizon is how old a version may be that a resumed watcher has missed (default 1 h). It is the job's watch.horizon,
	// which the table has as its min.compaction.lag.ms.
	Horizon time.Duration

	weak weakWatch
}

// weakWatch takes protections away: the controls of their tests.
type weakWatch struct {
	uncounted bool // nobody looks whether records are missing
	seatless  bool // a commit is told whole, wherever a watcher stands
	forgetful bool // which versions cleared a flag is not remembered
	// patient, where it is set, has the follower wait for slow watchers while it says so.
	patient func() bool
}

func (c *WatchConfig) fill() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.Heartbeat, 15 * time.Second}, {&c.WriteTimeout, 30 * time.Second}, {&c.Horizon, time.Hour}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, n := range []struct {
		field *int
		value int
	}{{&c.Max, 20_000}, {&c.PerClientMax, 1000}, {&c.QueueBytesMax, 1 << 20}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
}

// WatchRequest says what to watch: at most one of ID, Prefix and Flag; none is everything.
type WatchRequest struct {
	ID     string
	Prefix string // the IDs begin with it
	Flag   string // the IDs bear it; the version that clears it is told too
	// From is the place of the last event that was taken, from any view of the job. "" and "now": what is committed from
	// now on; the last commit that could be read before may be told too.
	From string
	// Client is whom the watcher counts for, where the number for each is bounded.
	Client string
}

// TooMany says that a limit on watchers is reached.
type TooMany struct{ What string }

func (t *TooMany) Error() string { return t.What }

// ErrWatchEnded is what Next gives behind a reset, and after Close.
var ErrWatchEnded = errors.New("the watch has ended")

// EventKind tells events apart.
type EventKind byte

// The kinds of events.
const (
	Changed   EventKind = iota // a committed version
	Heartbeat                  // the watcher lives; the first one comes at once and says where it begins
	Reset                      // versions may have been missed; it is the last one
)

// The first word of a reset's reason.
const (
	ResetGone = "gone" // the place, or what came after it, is no longer there: read again, and watch from now on
	ResetSlow = "slow" // too much was waiting: the place of the last event that was taken still holds
)

// Event is one thing that a watcher is told.
type Event struct {
	Kind   EventKind
	Change *Change // of Changed

	// Of Heartbeat: the ages of what was told so far, the greatest of the partitions watched. NotKnown also while the watcher
	// has yet to be told what reads show already.
	Age, TableAge time.Duration
	AsOf          []AsOf // of each partition watched, the commit up to which everything was told; nil where the ages are not known for that

	Reason string // of Reset: "gone: …" or "slow: …"

	origin *origin
	from   place // the place before it; of Changed its own partition's spot is the change's
	shared bool  // other watchers are told it with the same place
}

// Gone tells of a Reset that the place is gone; else the last one that was told still holds.
func (e *Event) Gone() bool { return e.Kind == Reset && strings.HasPrefix(e.Reason, ResetGone) }

// Place is where to go on after the event, in this view or another one of the job. A Reset has none.
func (e *Event) Place() string {
	switch e.Kind {
	case Changed:
		return e.origin.text(e.from, e.Change.AsOf.Partition, e.Change.after)
	case Heartbeat:
		return e.origin.text(e.from, -1, spot{})
	}
	return ""
}

// Form is a form in which a transport sends events.
type Form int

// The forms.
const (
	FormSSE Form = iota
	FormProto
	FormJSON
	formsMax
)

// Encoded gives what encode makes of the event. Where others are told the same, it is made once and shared: nobody may
// change it.
func (e *Event) Encoded(f Form, encode func(*Event) []byte) []byte {
	if !e.shared {
		return encode(e)
	}
	span := 0
	if len(e.from.spots) > 1 {
		span = 1
	}
	slot := &e.Change.forms[span][f]
	if b := slot.Load(); b != nil {
		return *b
	}
	b := encode(e)
	slot.Store(&b) // two may do it at once, with the same result
	return b
}

// Watch begins a watch. From its beginning on the watcher is told each committed version of the IDs asked for once, and
// those of an ID in order, or it gets a Reset. What it is told, a Get of this view knows. Close must follow.
//
// What a place lacks is read from the table again, as fast as the watcher takes it, before it joins those who hear of
// commits as they come. A place is gone when a version after it is older than the horizon or no longer in the table, and
// when the table is another one.
//
// *Invalid says what is wrong with the request, *TooMany which limit is reached, *Unavailable that the view is not ready.
func (v *View) Watch(q WatchRequest) (*Watcher, error) {
	key, err := v.subjectOf(&q)
	if err != nil {
		return nil, err
	}
	if err := v.Ready(); err != nil {
		return nil, &Unavailable{err.Error()}
	}
	return v.hub.join(key, &q)
}

func (v *View) subjectOf(q *WatchRequest) (subjectKey, error) {
	key := subjectKey{kind: everything}
	for _, f := range []subjectKey{{withID, q.ID}, {withPrefix, q.Prefix}, {withFlag, q.Flag}} {
		switch {
		case f.name == "":
		case key.kind != everything:
			return key, &Invalid{"a watch is of one of id, prefix and flag"}
		default:
			key = f
		}
	}
	switch key.kind {
	case withID:
		return key, checkID(q.ID)
	case withPrefix:
		return key, checkPrefix(q.Prefix)
	case withFlag:
		if !slices.Contains(v.cfg.Schema.Flags, q.Flag) {
			return key, &Invalid{fmt.Sprintf("the job has no flag %q; it has %q", q.Flag, v.cfg.Schema.Flags)}
		}
	}
	return key, nil
}

// Watcher is told of changes. Its queue is filled by the follower of the table while it is live, and by a catchUp while it
// is behind. Next and Close are for one goroutine.
type Watcher struct {
	hub     *hub
	subject *subject
	client  string
	first   int32 // the first partition watched
	joined  time.Time

	// Guarded by hub.mu.
	seats   []seat // nil when all are live at the feeds' spots
	waiting bool   // to be caught up
	pass    *pass  // that catches it up
	closed  bool

	wake chan struct{} // holds one: there is something to take

	mu     sync.Mutex // guards the fields below
	queue  []delivery
	bytes  int // in the queue, and in what Next gave last
	handed int // of bytes, what Next gave last
	full   bool
	ended  error  // after the queue is empty
	reset  string // the reason, after the queue is empty and before ended

	heard time.Time // when Next last gave a heartbeat; Next's own
}

// seat is where a watcher that is not settled stands in one partition.
type seat struct {
	spot
	live bool // commits reach it as they come; else a pass reads the table for it
}

// delivery is what one commit is to a watcher. All who are told the same share it.
type delivery struct {
	changes []*Change
	from    place
	shared  bool
	bytes   int
}

// Next waits until there is something to tell and appends all of it to into. Every Heartbeat interval, as soon as nothing else
// is there to tell, it gives a heartbeat; a second after one that could not say how fresh the watch is, the next. Its error is ctx's, or tells why the watch has ended: ErrWatchEnded, or that the view has.
func (w *Watcher) Next(ctx context.Context, into []Event) ([]Event, error) {
	w.release()
	interval := w.hub.cfg.Heartbeat
	wait := interval - time.Since(w.heard)
	if w.heard.IsZero() {
		wait = 0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		events, err := w.take(into)
		if err != nil || len(events) > len(into) {
			return events, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return into, context.Cause(ctx)
		case <-timer.C:
			if e, told, idle := w.hub.heartbeat(w); idle {
				w.heard = time.Now()
				if !told { // it is to hear soon after that how fresh it is
					w.heard = w.heard.Add(min(interval, time.Second) - interval)
				}
				return append(into, e), nil
			}
			timer.Reset(interval) // something has come
		}
	}
}

// release counts what Next gave before as taken. A watcher that was full goes on being caught up when
// little is left.
func (w *Watcher) release() {
	w.mu.Lock()
	w.bytes -= w.handed
	w.handed = 0
	drained := w.full && w.bytes <= w.hub.cfg.QueueBytesMax/4
	if drained {
		w.full = false
	}
	w.mu.Unlock()
	if drained {
		w.hub.drained(w)
	}
}

// take moves the queue into events.
func (w *Watcher) take(into []Event) ([]Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.queue {
		for _, c := range d.changes {
			into = append(into, Event{Kind: Changed, Change: c, origin: &w.hub.origin, from: d.from, shared: d.shared})
		}
	}
	clear(w.queue)
	w.queue, w.handed = w.queue[:0], w.bytes
	if w.reset != "" {
		into = append(into, Event{Kind: Reset, Reason: w.reset, origin: &w.hub.origin})
		w.reset = ""
	} else if len(w.queue) == 0 && w.handed == 0 && w.ended != nil {
		return into, w.ended
	}
	return into, nil
}

// offer puts a delivery into the queue, unless more than most bytes are there already.
func (w *Watcher) offer(d delivery, most int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != nil {
		return true // nobody takes it
	}
	if w.bytes > most {
		w.full = true
		return false
	}
	w.queue = append(w.queue, d)
	w.bytes += d.bytes
	w.signal()
	return true
}

// end ends the watch with a reset, if there is a reason for one. A slow watcher's queue is given up; its place is not.
func (w *Watcher) end(err error, reset string, giveUp bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != nil {
		return
	}
	w.ended, w.reset = err, reset
	if giveUp {
		w.queue, w.bytes = nil, w.handed
	}
	w.signal()
}

func (w *Watcher) isFull() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.full
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close ends the watch. It may be called again.
func (w *Watcher) Close() {
	w.hub.leave(w)
	w.end(ErrWatchEnded, "", true)
}

// partitions are those that the watcher hears of.
func (w *Watcher) partitions() (first, n int32) {
	if w.subject.key.kind == withID {
		return w.first, 1
	}
	return 0, w.hub.origin.partitions
}

// seat gives the watcher's seat in a partition, nil where it has none: it is settled, or does not watch it.
func (w *Watcher) seat(partition int32) *seat {
	if i := partition - w.first; i >= 0 && int(i) < len(w.seats) {
		return &w.seats[i]
	}
	return nil
}

// place is where a watcher with seats stands.
func (w *Watcher) place() place {
	p := place{w.first, make([]spot, len(w.seats))}
	for i := range w.seats {
		p.spots[i] = w.seats[i].spot
	}
	return p
}

func partitionOf(id string, partitions int32) int32 { return eos.Place([]byte(id), partitions) }
