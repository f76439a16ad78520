package view

import (
	"context"
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

// oldest gives the greatest ages; one that is not known is greater than all.
func oldest(asOf []AsOf) (age, tableAge time.Duration) {
	for i := range asOf {
		age, tableAge = older(age, asOf[i].Age), older(tableAge, asOf[i].TableAge)
	}
	return age, tableAge
}

func older(a, b time.Duration) time.Duration {
	if a == NotKnown || b == NotKnown {
		return NotKnown
	}
	return max(a, b)
}

// tooOld refuses an answer with a partition whose age the read does not accept.
func (r *Read) tooOld(asOf ...AsOf) error {
	if r.MaxAge == nil {
		return nil
	}
	var refused *TooOld
	for i := range asOf {
		switch a := &asOf[i]; {
		case a.Age == NotKnown:
			return &TooOld{fmt.Sprintf("the age of the answer is not known, max_age is %s", *r.MaxAge), *a}
		case a.Age > *r.MaxAge && (refused == nil || a.Age > refused.AsOf.Age):
			refused = &TooOld{fmt.Sprintf("the answer is %s old, max_age is %s", a.Age.Round(time.Millisecond), *r.MaxAge), *a}
		}
	}
	if refused == nil {
		return nil
	}
	return refused
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

// serving gives the partitions, or why there is nothing to ask yet.
func (v *View) serving() ([]*partition, error) {
	parts := v.all()
	if parts == nil {
		if err := v.Ready(); err != nil {
			return nil, err
		}
		parts = v.all() // it has just begun
	}
	return parts, nil
}

// Get gives the state of one ID from one commit. ErrNotFound comes with a true AsOf; other errors do not.
func (v *View) Get(ctx context.Context, id string, read Read, into *codecs.State) (AsOf, error) {
	return v.get(ctx, id, read, func(p *partition, s *published) (bool, error) { return p.find(s, id, into) })
}

// finding reads from what a partition shows; false where no event of the ID was counted.
type finding func(*partition, *published) (found bool, err error)

func (v *View) get(ctx context.Context, id string, read Read, find finding) (AsOf, error) {
	if err := checkID(id); err != nil {
		return AsOf{}, err
	}
	parts, err := v.serving()
	if err != nil {
		return AsOf{}, err
	}
	p := parts[eos.Place([]byte(id), int32(len(parts)))]
	if err := v.fulfil(ctx, &read, parts, func(n int32) bool { return n == p.number }); err != nil {
		return AsOf{}, err
	}
	s, err := p.hold()
	if err != nil {
		return AsOf{}, err
	}
	defer s.release()
	asOf := p.asOf(s, time.Now())
	if err := read.tooOld(asOf); err != nil {
		return asOf, err
	}
	found, err := find(p, s)
	if err == nil && !found {
		err = ErrNotFound
	}
	return asOf, err
}

// find reads one ID; false where no event of it was counted.
func (p *partition) find(s *published, id string, into *codecs.State) (found bool, err error) {
	stored, err := s.snap.Get([]byte(id))
	switch {
	case errors.Is(err, eos.ErrNotFound):
		return false, nil
	case err != nil:
		return false, p.unreadable(err)
	}
	return true, p.decode(id, stored, into)
}

// batchMax is how many IDs a batch may ask for.
const batchMax = 1000

// BatchGet gives the states of IDs in the order asked, each partition's from one commit; nil is an ID of which no event was
// counted. asOf has the partitions on which the IDs live, in order.
func (v *View) BatchGet(ctx context.Context, ids []string, read Read) (states []*codecs.State, asOf []AsOf, err error) {
	var block []codecs.State
	asOf, err = v.batchGet(ctx, ids, read, func(on func(i int) (*partition, *published)) error {
		states, block = make([]*codecs.State, len(ids)), make([]codecs.State, len(ids))
		for i := range ids {
			p, s := on(i)
			found, err := p.find(s, ids[i], &block[i])
			if err != nil {
				return err
			}
			if found {
				states[i] = &block[i]
			}
		}
		return nil
	})
	if err != nil {
		return nil, asOf, err
	}
	return states, asOf, nil
}

// batchGet has find read the IDs, each from what its partition shows, which on tells.
func (v *View) batchGet(ctx context.Context, ids []string, read Read, find func(on func(i int) (*partition, *published)) error) (asOf []AsOf, err error) {
	if len(ids) == 0 || len(ids) > batchMax {
		return nil, &Invalid{fmt.Sprintf("a batch is of 1 to %d IDs, got %d", batchMax, len(ids))}
	}
	parts, err := v.serving()
	if err != nil {
		return nil, err
	}
	held := make([]*published, len(parts))
	on := make([]int32, len(ids))
	asked := make([]bool, len(parts))
	for i, id := range ids {
		if err := checkID(id); err != nil {
			return nil, err
		}
		on[i] = eos.Place([]byte(id), int32(len(parts)))
		asked[on[i]] = true
	}
	if err := v.fulfil(ctx, &read, parts, func(n int32) bool { return asked[n] }); err != nil {
		return nil, err
	}
	now := time.Now()
	for n, p := range parts {
		if !asked[n] {
			continue
		}
		if held[n], err = p.hold(); err != nil {
			return nil, err
		}
		defer held[n].release()
		asOf = append(asOf, p.asOf(held[n], now))
	}
	if err := read.tooOld(asOf...); err != nil {
		return asOf, err
	}
	if err := find(func(i int) (*partition, *published) { return parts[on[i]], held[on[i]] }); err != nil {
		return nil, err
	}
	return asOf, nil
}

func checkID(id string) error {
	if len(id) == 0 || len(id) > idBytesMax || !utf8.ValidString(id) {
		return &Invalid{fmt.Sprintf("an ID is UTF-8 of 1 to %d bytes, got %d bytes", idBytesMax, len(id))}
	}
	return nil
}

// checkPrefix refuses what no ID can begin with because of its length.
func checkPrefix(prefix string) error {
	if len(prefix) > idBytesMax {
		return &Invalid{fmt.Sprintf("a prefix is at most %d bytes long, as IDs are", idBytesMax)}
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

// pageBytesMax ends a page however many states were asked for: with large states a thousand of them would be a gigabyte.
const pageBytesMax = 8 << 20

// List gives a page of the states that the filter asks for, each partition's from one commit. more tells that there are
// others behind the last one. A page has at least one state, and ends with the one that brings it to pageBytesMax. The cost
// grows with the page and the number of partitions, not with the table.
func (v *View) List(ctx context.Context, f Filter, read Read) (page []Entry, more bool, asOf []AsOf, err error) {
	if f.Flag != "" && !slices.Contains(v.cfg.Schema.Flags, f.Flag) {
		return nil, false, nil, v.noFlag(f.Flag)
	}
	if err := v.Ready(); err != nil {
		return nil, false, nil, err
	}
	parts := v.all()
	if err := v.fulfil(ctx, &read, parts, func(int32) bool { return true }); err != nil {
		return nil, false, nil, err
	}
	now := time.Now()
	var runs []*run
	defer func() {
		for _, r := range runs {
			r.end()
		}
	}()
	for _, p := range parts {
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
	if err := read.tooOld(asOf...); err != nil {
		return nil, false, asOf, err
	}
	page, more, err = merge(runs, f.Limit)
	return page, more, asOf, err
}

// merge takes a page from the partitions in byte order of the ID.
func merge(runs []*run, limit int) (page []Entry, more bool, err error) {
	for bytes := 0; ; {
		var least *run
		for _, r := range runs {
			if !r.done && (least == nil || r.id < least.id) {
				least = r
			}
		}
		if least == nil {
			return page, false, nil
		}
		if len(page) == limit || bytes >= pageBytesMax {
			return page, true, nil
		}
		e := Entry{ID: least.id}
		n, err := least.state(&e.State)
		if err != nil {
			return nil, false, err
		}
		page, bytes = append(page, e), bytes+n
		if err := least.step(); err != nil {
			return nil, false, err
		}
	}
}

// ListByFlag is List of those that bear a flag.
func (v *View) ListByFlag(ctx context.Context, flag, after string, limit int, read Read) (page []Entry, more bool, asOf []AsOf, err error) {
	if flag == "" {
		return nil, false, nil, v.noFlag("")
	}
	return v.List(ctx, Filter{Flag: flag, After: after, Limit: limit}, read)
}

func (v *View) noFlag(flag string) error {
	return &Invalid{fmt.Sprintf("the job has no flag %q; it has %q", flag, v.cfg.Schema.Flags)}
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

// state reads the state of the ID in hand, and answers its size as stored.
func (r *run) state(into *codecs.State) (int, error) {
	if r.indexed == 0 {
		return len(r.it.Value()), r.part.decode(r.id, r.it.Value(), into)
	}
	stored, err := r.from.snap.Get([]byte(r.id))
	if err != nil {
		return 0, r.part.unreadable(fmt.Errorf("flag index names %q: %w", r.id, err))
	}
	return len(stored), r.part.decode(r.id, stored, into)
}

func (r *run) end() {
	r.it.Release()
	r.from.release()
}
