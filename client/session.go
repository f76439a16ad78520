package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
)

// Session reads its own writes: it remembers the newest event of each partition that was written, and its reads come after
// those, whichever views answer. It may be used from any number of goroutines.
//
// It does not promise that what two reads give never goes back: two views may be at different commits, both of which come
// after what the session wrote.
type Session struct {
	client *Client

	mu     sync.Mutex // guards newest
	newest map[int32]token
}

// Session begins a session.
func (c *Client) Session() *Session { return &Session{client: c, newest: map[int32]token{}} }

// Produce is Client.Produce, and remembers what was written.
func (s *Session) Produce(ctx context.Context, events ...[]byte) ([]Produced, error) {
	results, err := s.client.Produce(ctx, events...)
	for i := range results {
		if t := results[i].Token; t != "" {
			if bad := s.Remember(t); bad != nil {
				return results, errors.Join(err, bad)
			}
		}
	}
	return results, err
}

// Remember takes in tokens of another session (its Tokens), or of events that another program wrote.
func (s *Session) Remember(tokens ...string) error {
	var all []token
	for _, list := range tokens {
		for text := range strings.SplitSeq(list, ",") {
			if text == "" {
				continue
			}
			t, err := parseToken(text)
			if err != nil {
				return err
			}
			all = append(all, t)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range all {
		if was, ok := s.newest[t.partition]; ok {
			t = later(was, t)
		}
		s.newest[t.partition] = t
	}
	return nil
}

// Wrote takes in what a Kafka producer was acknowledged for an event of an ID: its partition and offset. ErrWrongPartition
// says that the producer places keys otherwise than Kafka's default partitioner does, so that the place tells nothing of the ID.
func (s *Session) Wrote(ctx context.Context, id string, partition int32, offset int64) error {
	n, err := s.client.partitionCount(ctx)
	if err != nil {
		return err
	}
	if home := Partition(id, n); home != partition {
		return &Error{kind: ErrWrongPartition, Message: fmt.Sprintf("an event of ID %q was written to partition %d, but lives on %d of %d: "+
			"its producer does not place keys as Kafka's default partitioner does", id, partition, home, n)}
	}
	return s.Remember(fmt.Sprintf("%d@%d", partition, offset))
}

// Tokens names what the session has written, for Remember, also in another process, or for AtLeast of a list.
func (s *Session) Tokens() string {
	return strings.Join(s.tokens(func(int32) bool { return true }), ",")
}

// tokens gives those of some partitions, in their order.
func (s *Session) tokens(on func(int32) bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []token
	for p, t := range s.newest {
		if on(p) {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b token) int { return cmp.Compare(a.partition, b.partition) })
	texts := make([]string, len(all))
	for i, t := range all {
		texts[i] = t.text
	}
	return texts
}

// homes gives the partitions on which IDs live. ok is false where the session has written nothing, and so asks for nothing.
func (s *Session) homes(ctx context.Context, ids ...string) (on map[int32]bool, ok bool, err error) {
	s.mu.Lock()
	ok = len(s.newest) > 0
	s.mu.Unlock()
	if !ok {
		return nil, false, nil
	}
	n, err := s.client.partitionCount(ctx)
	if err != nil {
		return nil, false, err
	}
	on = make(map[int32]bool, 1)
	for _, id := range ids {
		on[Partition(id, n)] = true
	}
	return on, true, nil
}

// after adds to a read the tokens of partitions: the views refuse those of others.
func (s *Session) after(on map[int32]bool, opts []Option) []Option {
	if tokens := s.tokens(func(p int32) bool { return on[p] }); len(tokens) > 0 {
		return append(slices.Clip(opts), AtLeast(tokens...))
	}
	return opts
}

// atHome makes a read of IDs, which gives the partitions that it was answered from. Where those are others than the session asked for,
// the job was given another number of partitions, and the answer may be older than what was written: it is asked again.
func (s *Session) atHome(ctx context.Context, ids []string, opts []Option, read func([]Option) ([]int32, error)) error {
	for attempt := 1; ; attempt++ {
		on, ok, err := s.homes(ctx, ids...)
		if err != nil {
			return err
		}
		from, err := read(s.after(on, opts))
		if !ok || !slices.ContainsFunc(from, func(p int32) bool { return !on[p] }) {
			return err
		}
		s.client.partitions.Store(0)
		if attempt >= max(s.client.cfg.AttemptsMax, 2) || !pause(ctx, backoff(attempt, backoffFirst, backoffMax)) {
			return &Error{kind: ErrNotReady, Message: fmt.Sprintf("answers are from partitions %d, and views say that the IDs live elsewhere: "+
				"the views are not of one job, or its number of partitions is being changed", from)}
		}
	}
}

// Get is Client.Get after what was written.
func (s *Session) Get(ctx context.Context, id string, opts ...Option) (a Answer, err error) {
	err = s.atHome(ctx, []string{id}, opts, func(opts []Option) (from []int32, err error) {
		a, err = s.client.Get(ctx, id, opts...)
		e := (*Error)(nil)
		switch {
		case err == nil:
			from = []int32{a.Partition}
		case errors.As(err, &e) && e.AsOf != nil && e.kind != ErrWrongPartition:
			from = []int32{e.AsOf.Partition}
		}
		return from, err
	})
	if err != nil {
		return Answer{}, err
	}
	return a, nil
}

// BatchGet is Client.BatchGet after what was written.
func (s *Session) BatchGet(ctx context.Context, ids []string, opts ...Option) (b *Batch, err error) {
	err = s.atHome(ctx, ids, opts, func(opts []Option) (from []int32, err error) {
		if b, err = s.client.BatchGet(ctx, ids, opts...); err != nil {
			return nil, err
		}
		for i := range b.AsOf {
			from = append(from, b.AsOf[i].Partition)
		}
		return from, nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// List is Client.List after what was written before it was called.
func (s *Session) List(ctx context.Context, prefix string, opts ...Option) iter.Seq2[*State, error] {
	return s.client.List(ctx, prefix, s.all(opts)...)
}

// ListByFlag is Client.ListByFlag after what was written before it was called.
func (s *Session) ListByFlag(ctx context.Context, flag string, opts ...Option) iter.Seq2[*State, error] {
	return s.client.ListByFlag(ctx, flag, s.all(opts)...)
}

func (s *Session) all(opts []Option) []Option {
	if tokens := s.tokens(func(int32) bool { return true }); len(tokens) > 0 {
		opts = append(slices.Clip(opts), AtLeast(tokens...))
	}
	return opts
}
