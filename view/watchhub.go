package view

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark/tidemark/eos"
)

// hub hands each commit to those who watch what it changed. The follower tells it of commits after they can be read, in
// the order of their partitions; it waits for no watcher.
//
// A watcher is settled when it hears of every commit as it comes; it then stands where the feeds stand, and nothing is
// kept of its place. One that resumes has seats, a place in each partition, until passes have brought all of them level
// with the feeds (watchcatchup.go). Whatever comes to it by either way is told only from its seat's offset on, and moves
// the seat in the same critical section: so nothing is told twice, and nothing between the two ways is lost.
type hub struct {
	view *View
	cfg  *WatchConfig
	// watching is changed under mu. The follower asks it before it gathers what only watchers need.
	watching atomic.Int64

	mu       sync.Mutex // guards the fields below, and what Watcher says
	origin   origin     // set before the first watcher
	feeds    []feed     // one for each partition
	subjects map[subjectKey]*subject
	lengths  map[int]int // of prefixes that are watched: how many subjects have it
	clients  map[string]int
	catching map[*Watcher]struct{} // those with seats
	waiting  []*Watcher            // to be caught up, the longest waiting first
	passes   int                   // that are running
	ended    error
	wake     chan struct{}          // holds one: somebody waits, or a pass has ended
	touched  map[*subject][]*Change // scratch
	found    []*subject             // scratch
}

// feed is the stream of commits of one partition.
type feed struct {
	up bool // commits come; else the partition is being loaded
	at spot // behind the last commit that was told
	// start is the first offset that the partition still had, as last seen.
	start int64
}

// subject is what one or more watchers watch.
type subject struct {
	key      subjectKey
	watchers map[*Watcher]struct{}
	catching int // of them, those with seats
}

type subjectKey struct {
	kind subjectKind
	name string
}

type subjectKind byte

const (
	everything subjectKind = iota
	withID
	withPrefix
	withFlag
)

func newHub(v *View) *hub {
	return &hub{
		view: v, cfg: &v.cfg.Watch, subjects: map[subjectKey]*subject{}, lengths: map[int]int{}, clients: map[string]int{},
		catching: map[*Watcher]struct{}{}, wake: make(chan struct{}, 1), touched: map[*subject][]*Change{},
	}
}

// begin is called once, before the first feed is opened.
func (h *hub) begin(f found) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.origin = origin{max(h.view.cfg.Names.Generation, 1), f.id, f.partitions}
	h.feeds = make([]feed, f.partitions)
}

// close ends every watch.
func (h *hub) close(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = err
	for _, s := range h.subjects {
		for w := range s.watchers {
			h.drop(w)
			w.end(err, "", false)
		}
	}
}

// join makes a watcher that begins at the request's place.
func (h *hub) join(key subjectKey, q *WatchRequest) (*Watcher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.admit(q.Client); err != nil {
		return nil, err
	}
	w := &Watcher{hub: h, client: q.Client, joined: time.Now(), wake: make(chan struct{}, 1), subject: h.subjects[key]}
	if key.kind == withID {
		w.first = partitionOf(key.name, h.origin.partitions)
	}
	if w.subject == nil {
		w.subject = &subject{key: key, watchers: map[*Watcher]struct{}{}}
	}
	first, n := w.partitions()
	for _, f := range h.feeds[first : first+n] {
		if !f.up {
			return nil, &Unavailable{"a partition is being loaded"}
		}
	}
	gone := ""
	if q.From != "" && q.From != placeNow {
		p, why, err := h.origin.parse(q.From)
		if err == nil && why == "" {
			p, err = p.narrow(first, n)
		}
		if err != nil {
			return nil, err
		}
		gone = why
		for _, s := range p.spots {
			w.seats = append(w.seats, seat{spot: s})
		}
	}
	h.enter(w)
	if gone != "" {
		h.gone(w, gone)
	} else if w.seats != nil {
		h.catching[w] = struct{}{}
		w.subject.catching++
		h.seatAll(w)
	}
	return w, nil
}

func (h *hub) admit(client string) error {
	switch {
	case h.ended != nil:
		return &Unavailable{h.ended.Error()}
	case h.watching.Load() >= int64(h.cfg.Max):
		return &TooMany{fmt.Sprintf("this view has %d watchers, which is its limit; ask another one", h.cfg.Max)}
	case h.clients[client] >= h.cfg.PerClientMax:
		return &TooMany{fmt.Sprintf("this client has %d watchers, which is the limit for one", h.cfg.PerClientMax)}
	}
	return nil
}

func (h *hub) enter(w *Watcher) {
	s := w.subject
	if len(s.watchers) == 0 {
		h.subjects[s.key] = s
		if s.key.kind == withPrefix {
			h.lengths[len(s.key.name)]++
		}
	}
	s.watchers[w] = struct{}{}
	h.clients[w.client]++
	h.watching.Add(1)
	h.view.metrics.watchers.Inc()
}

func (h *hub) leave(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(w)
}

// drop forgets a watcher.
func (h *hub) drop(w *Watcher) {
	if w.closed {
		return
	}
	w.closed = true
	h.settled(w)
	s := w.subject
	if delete(s.watchers, w); len(s.watchers) == 0 {
		delete(h.subjects, s.key)
		if s.key.kind == withPrefix {
			decrease(h.lengths, len(s.key.name))
		}
	}
	decrease(h.clients, w.client)
	h.watching.Add(-1)
	h.view.metrics.watchers.Dec()
}

func decrease[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// settled takes a watcher's seats away.
func (h *hub) settled(w *Watcher) {
	if w.seats == nil {
		return
	}
	w.seats = nil
	delete(h.catching, w)
	w.subject.catching--
	w.waiting = false // nextPass passes over it
	if w.pass != nil {
		delete(w.pass.members, w)
		w.pass = nil
	}
}

// gone resets a watcher whose place is no longer there.
func (h *hub) gone(w *Watcher, why string) {
	h.view.metrics.resets.WithLabelValues(ResetGone).Inc()
	h.drop(w)
	w.end(ErrWatchEnded, ResetGone+": "+why, false)
}

// slow resets a watcher for which too much is waiting.
func (h *hub) slow(w *Watcher) {
	h.view.metrics.resets.WithLabelValues(ResetSlow).Inc()
	h.drop(w)
	w.end(ErrWatchEnded, fmt.Sprintf("%s: more than %d bytes were waiting; the place of the last event still holds", ResetSlow, h.cfg.QueueBytesMax), true)
}

const goneHistory = "the place is of a history that the table no longer has"

// seatAll sees how a watcher's seats stand to the feeds. Where all are level it is settled; where one is behind, it waits
// to be caught up.
func (h *hub) seatAll(w *Watcher) {
	level, behind := true, false
	for i := range w.seats {
		s, f := &w.seats[i], &h.feeds[w.first+int32(i)]
		if s.next == f.at.next && s.records != f.at.records {
			h.gone(w, goneHistory)
			return
		}
		s.live = s.live || f.up && s.next >= f.at.next
		level = level && s.live && s.next <= f.at.next
		behind = behind || !s.live && f.up
	}
	switch {
	case level:
		h.settled(w)
	case behind && !w.waiting && w.pass == nil && !w.isFull():
		w.waiting = true
		h.waiting = append(h.waiting, w)
		h.signal()
	}
}

func (h *hub) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// follow is told by the follower what can now be read of a partition: everything before at. c is the commit that led there;
// nil where that is not known, because the partition was loaded or nobody was watching.
func (h *hub) follow(partition int32, at spot, c *commit) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &h.feeds[partition]
	if !f.up || c == nil {
		h.jump(partition, at)
		return nil
	}
	routed, err := h.route(c, false)
	if err != nil {
		return err
	}
	was, from := f.at, h.place()
	f.at = at
	if !c.follows(was) && !h.cfg.weak.uncounted {
		h.broken(partition)
		return nil
	}
	h.tell(partition, from, routed)
	for w := range h.catching {
		if s := w.seat(partition); s != nil && s.live {
			h.advance(w, s, c, routed[w.subject])
		}
	}
	return nil
}

// jump opens a feed at a spot without telling how it got there. Whoever has not been there reads the table.
func (h *hub) jump(partition int32, at spot) {
	f := &h.feeds[partition]
	was := f.at
	f.up, f.at = true, at
	for _, s := range h.subjects {
		for w := range s.watchers {
			first, n := w.partitions()
			if partition < first || partition >= first+n || w.seats == nil && at == was {
				continue
			}
			if w.seats == nil {
				h.unsettle(w)
				w.seat(partition).spot = was
			}
			w.seat(partition).live = false
			h.seatAll(w)
		}
	}
}

// unsettle gives a watcher seats where the feeds stand.
func (h *hub) unsettle(w *Watcher) {
	first, n := w.partitions()
	w.seats = make([]seat, n)
	for i := range w.seats {
		w.seats[i] = seat{h.feeds[first+int32(i)].at, true}
	}
	h.catching[w] = struct{}{}
	w.subject.catching++
}

// down closes a feed: its partition is loaded again.
func (h *hub) down(partition int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if int(partition) < len(h.feeds) {
		h.feeds[partition].up = false
		for w := range h.catching {
			if s := w.seat(partition); s != nil {
				s.live = false
			}
		}
	}
}

// broken resets all who heard of a partition's commits: the table has lost records before the view read them.
func (h *hub) broken(partition int32) {
	for _, s := range h.subjects {
		for w := range s.watchers {
			first, n := w.partitions()
			if s := w.seat(partition); partition >= first && partition < first+n && (s == nil || s.live) {
				h.gone(w, fmt.Sprintf("records of partition %d were compacted or deleted before this view read them", partition))
			}
		}
	}
}

// place is where the settled stand.
func (h *hub) place() place {
	p := place{spots: make([]spot, len(h.feeds))}
	for i := range h.feeds {
		p.spots[i] = h.feeds[i].at
	}
	return p
}

// drained lets a watcher that was full be caught up further.
func (h *hub) drained(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case w.closed || w.seats == nil:
	case w.pass != nil:
		w.pass.signal()
	default:
		h.seatAll(w)
	}
}

// heartbeat says where a watcher stands that has taken everything; idle tells whether it has. Its ages are those of what the
// watcher was told, and so not known while readers see more than that (told is false): it is behind, or a commit is about to
// be told.
func (h *hub) heartbeat(w *Watcher) (e Event, told, idle bool) {
	e = Event{Kind: Heartbeat, origin: &h.origin, Age: NotKnown, TableAge: NotKnown}
	first, n := w.partitions()
	parts := h.view.all()[first : first+n]
	var age, tableAge time.Duration
	now := time.Now()
	for _, p := range parts { // before it is seen what was told: level can mean more a moment later
		a, t := p.ages(now)
		age, tableAge = older(age, a), older(tableAge, t)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	idle = len(w.queue) == 0 && w.ended == nil
	if w.seats != nil {
		e.from = w.place()
		return e, false, idle
	}
	e.from = place{first, h.place().spots[first : first+n]}
	asOf := make([]AsOf, n)
	for i, p := range parts {
		var shown bool
		if asOf[i], shown = p.shows(e.from.spots[i], now); !shown {
			return e, false, idle
		}
	}
	e.Age, e.TableAge, e.AsOf = age, tableAge, asOf
	return e, true, idle
}

// level takes note of an answer of a partition's leader that left nothing to read. It resets those who wait for a place
// behind the partition's end, which only a table that was cut off does not have.
func (h *hub) level(b *eos.Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.feeds[b.Partition].start = b.Start
	for w := range h.catching {
		if s := w.seat(b.Partition); s != nil && s.live && s.next > b.HighWatermark && b.Asked.After(w.joined) {
			h.gone(w, fmt.Sprintf("the place lies behind the end of partition %d: the table was truncated", b.Partition))
		}
	}
}
