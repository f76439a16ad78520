package view

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/eos"
)

// idBytesMax is the length of the longest ID.
const idBytesMax = 1024

// ErrNotFound says that no event of the ID was counted, as of the answer's position.
var ErrNotFound = errors.New("not found")

// Unavailable says that the view cannot answer now without guessing.
type Unavailable struct{ Why string }

func (u *Unavailable) Error() string { return "not ready: " + u.Why }

// Invalid says what is wrong with a request.
type Invalid struct{ What string }

func (i *Invalid) Error() string { return i.What }

// Entry is the state of one ID.
type Entry struct {
	ID    string
	State codecs.State // without the rules' own part
}

// AsOf says how fresh an answer is.
type AsOf struct {
	Partition int32
	// Position is the input offset up to which every event was applied or refused; TimeMs is the time of the last one
	// before it, 0 where there is none.
	Position int64
	TimeMs   int64
	// Commit is the number of the partition's commit that the answer shows.
	Commit uint64
	// Age is how long ago the view last knew that the answer covers the end of the input; TableAge the same of the
	// table. Negative: not known since the view started.
	Age, TableAge time.Duration
}

// NotKnown is an age that is not known.
const NotKnown = time.Duration(-1)

func (p *partition) asOf(s *published, now time.Time) AsOf {
	a := AsOf{Partition: p.number, Commit: s.position.Seq}
	if src := s.position.Source(p.view.cfg.Input); src != nil {
		a.Position, a.TimeMs = src.Next, src.TimeMs
	}
	a.Age, a.TableAge = p.ages(now)
	return a
}

// Get gives the state of one ID from one commit. ErrNotFound comes with a true AsOf; *Invalid and *Unavailable do not.
func (v *View) Get(id string, into *codecs.State) (AsOf, error) {
	if err := checkID(id); err != nil {
		return AsOf{}, err
	}
	parts := v.all()
	if parts == nil {
		return AsOf{}, &Unavailable{v.Ready().Error()}
	}
	p := parts[eos.Place([]byte(id), int32(len(parts)))]
	s, err := p.hold()
	if err != nil {
		return AsOf{}, err
	}
	defer s.release()
	asOf := p.asOf(s, time.Now())
	stored, err := s.snap.Get([]byte(id))
	switch {
	case errors.Is(err, eos.ErrNotFound):
		return asOf, ErrNotFound
	case err != nil:
		return AsOf{}, p.unreadable(err)
	}
	return asOf, p.decode(id, stored, into)
}

func checkID(id string) error {
	if len(id) == 0 || len(id) > idBytesMax || !utf8.ValidString(id) {
		return &Invalid{fmt.Sprintf("an ID is UTF-8 of 1 to %d bytes, got %d bytes", idBytesMax, len(id))}
	}
	return nil
}

// unreadable turns a failed read into an answer. Damage is being repaired by the follower, which sees it too.
func (p *partition) unreadable(err error) error {
	return &Unavailable{fmt.Sprintf("partition %d cannot be read: %v", p.number, err)}
}

func (p *partition) decode(id string, stored []byte, into *codecs.State) error {
	if err := into.UnmarshalBinary(stored, p.view.cfg.Schema); err != nil {
		return &Unavailable{fmt.Sprintf("the local state of %q does not decode: %v", id, err)}
	}
	return nil
}

// Filter says which IDs a list has, in byte order.
type Filter struct {
	Prefix string // they begin with it
	Flag   string // they bear it; "" is any. Not together with Prefix
	After  string // they come after it
	Limit  int    // how many at most, 1 or more
}

// List gives a page of the states that the filter asks for, each partition's from one commit. more tells that there are
// others behind the last one. The cost grows with the page and the number of partitions, not with the table.
func (v *View) List(f Filter) (page []Entry, more bool, asOf []AsOf, err error) {
	if f.Flag != "" && !slices.Contains(v.cfg.Schema.Flags, f.Flag) {
		return nil, false, nil, &Invalid{fmt.Sprintf("the job has no flag %q; it has %q", f.Flag, v.cfg.Schema.Flags)}
	}
	if err := v.Ready(); err != nil {
		return nil, false, nil, &Unavailable{err.Error()}
	}
	now := time.Now()
	var runs []*run
	defer func() {
		for _, r := range runs {
			r.end()
		}
	}()
	for _, p := range v.all() {
		s, err := p.hold()
		if err != nil {
			return nil, false, nil, err
		}
		r := f.start(p, s)
		runs = append(runs, r)
		asOf = append(asOf, p.asOf(s, now))
		if err := r.step(); err != nil {
			return nil, false, nil, err
		}
	}
	for len(page) <= f.Limit {
		var least *run
		for _, r := range runs {
			if !r.done && (least == nil || r.id < least.id) {
				least = r
			}
		}
		if least == nil {
			return page, false, asOf, nil
		}
		if len(page) == f.Limit {
			return page, true, asOf, nil
		}
		e := Entry{ID: least.id}
		if err := least.state(&e.State); err != nil {
			return nil, false, nil, err
		}
		page = append(page, e)
		if err := least.step(); err != nil {
			return nil, false, nil, err
		}
	}
	return page, true, asOf, nil
}

// run goes through what one partition has of a list.
type run struct {
	part    *partition
	from    *published
	it      *eos.DiskIterator
	indexed int // bytes before the ID in an index key; 0: the table itself
	id      string
	done    bool
}

func (f *Filter) start(p *partition, s *published) *run {
	r := &run{part: p, from: s}
	if f.Flag != "" {
		first := indexKey(f.Flag, "")
		r.indexed = len(first)
		start, limit := first, append([]byte(f.Flag), 1)
		if f.After != "" {
			start = append(indexKey(f.Flag, f.After), 0)
		}
		r.it = s.snap.Index(start, limit)
		return r
	}
	start := []byte(f.Prefix)
	if after := f.After + "\x00"; f.After != "" && after > f.Prefix {
		start = []byte(after)
	}
	r.it = s.snap.Records(start, following(f.Prefix))
	return r
}

// following is the first key behind all that begin with prefix; nil is none.
func following(prefix string) []byte {
	limit := []byte(prefix)
	for len(limit) > 0 {
		last := len(limit) - 1
		if limit[last]++; limit[last] != 0 {
			return limit
		}
		limit = limit[:last]
	}
	return nil
}

func (r *run) step() error {
	if r.it.Next() {
		r.id = string(r.it.Key()[r.indexed:])
		return nil
	}
	r.done = true
	if err := r.it.Err(); err != nil {
		return r.part.unreadable(err)
	}
	return nil
}

func (r *run) state(into *codecs.State) error {
	if r.indexed == 0 {
		return r.part.decode(r.id, r.it.Value(), into)
	}
	stored, err := r.from.snap.Get([]byte(r.id))
	if err != nil {
		return r.part.unreadable(fmt.Errorf("flag index names %q: %w", r.id, err))
	}
	return r.part.decode(r.id, stored, into)
}

func (r *run) end() {
	r.it.Release()
	r.from.release()
}
