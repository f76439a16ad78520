package client

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
)

// How a cache is filled and kept right.
//
// A watch is opened on a view, and what it says first has a place: whatever is committed behind that is told from there on.
// Then the states are read from the same view, whose reads are never behind what it tells; so what was committed before the
// place is in them. Then the watch goes on from the place, and tells the rest. Versions that the load has seen already
// come again: each page is of one commit in each partition, so those up to that commit are passed over, and nothing goes back.
//
// How old it is by then, the watch cannot tell: what it says may have been under way for any time, in a network that stalls or
// before a process that was frozen. So the view is asked, beside the watch: its answer says as of which commits it is and how old, and
// once the watch has told everything up to those, what is held is as old, counted from when it was asked.

// run loads the cache and keeps it right, until the context ends. Whatever breaks that, it begins anew.
func (k *Cache) run(ctx context.Context, failed chan<- error) {
	for failures := 0; ctx.Err() == nil; {
		err := k.once(ctx, &failures)
		k.held.Store(nil)
		why := err.Error()
		k.why.Store(&why)
		var failure *Error
		if errors.As(err, &failure) && failure.lasting() {
			select {
			case failed <- err: // whoever waits for the first load hears it
			default:
			}
		}
		failures++
		pause(ctx, backoff(failures, backoffFirst, avoidMax))
	}
}

// once loads the cache and keeps it right until it must be loaded anew.
func (k *Cache) once(ctx context.Context, failures *int) error {
	place, at, err := k.begin(ctx)
	if err != nil {
		return err
	}
	held, err := k.load(ctx, at)
	if err != nil {
		return err
	}
	k.held.Store(held)
	k.loads.Add(1)
	*failures = 0
	return k.follow(ctx, held, place)
}

// begin finds a view and the place from which on it tells everything.
func (k *Cache) begin(ctx context.Context) (place string, at *endpoint, err error) {
	w := &watching{client: k.client, what: k.what}
	err = w.run(ctx, func(e *Event) bool {
		i := slices.IndexFunc(k.client.views, func(v *endpoint) bool { return v.url == e.View })
		place, at = e.Place, k.client.views[i]
		return place == ""
	})
	return place, at, err
}

// load reads the states from a view.
func (k *Cache) load(ctx context.Context, at *endpoint) (*contents, error) {
	if k.what.id != "" {
		return k.loadOne(ctx, at)
	}
	var held *contents
	for page, err := range k.client.Pages(ctx, k.what, OnView(at.url)) {
		if err != nil {
			return nil, err
		}
		if held == nil {
			held = newContents(&k.cfg, page)
		}
		held.add(page)
	}
	return held, nil
}

// loadOne is load of a single ID.
func (k *Cache) loadOne(ctx context.Context, at *endpoint) (*contents, error) {
	page, err := k.pageOfOne(ctx, at)
	if err != nil {
		return nil, err
	}
	held := newContents(&k.cfg, page)
	held.add(page)
	return held, nil
}

// pageOfOne is a page of the single ID. Of the other partitions, it is as of nothing.
func (k *Cache) pageOfOne(ctx context.Context, at *endpoint) (*Page, error) {
	n, err := k.client.partitionCount(ctx)
	if err != nil {
		return nil, err
	}
	a, asked, err := k.client.get(ctx, k.what.id, &options{on: at.url})
	fresh := a.Freshness
	if e := (*Error)(nil); errors.Is(err, ErrNotFound) && errors.As(err, &e) && e.AsOf != nil {
		fresh = *e.AsOf
	} else if err != nil {
		return nil, err
	}
	page := &Page{AsOf: slices.Repeat([]Freshness{{Age: fresh.Age, TableAge: fresh.TableAge}}, int(n)), asked: asked}
	page.AsOf[Partition(k.what.id, n)] = fresh
	if a.State != nil {
		page.States = []*State{a.State}
	}
	return page, nil
}

// follow keeps what is held right, from a place on, until it may no longer be.
func (k *Cache) follow(ctx context.Context, held *contents, place string) error {
	var gone error
	var proving sync.WaitGroup
	defer proving.Wait()
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	proving.Go(func() { k.prove(following, held) })
	w := &watching{client: k.client, what: k.what, place: place, began: true, link: func(to *endpoint) {
		held.view.Store(to)
		if to != nil {
			k.first.Do(func() { close(k.answers) })
		}
	}}
	err := w.run(ctx, func(e *Event) bool {
		switch e.Kind {
		case Changed:
			held.change(e, k.what.flag)
		case Alive:
			held.alive(e)
		case Reset:
			gone = errors.New("the watch was reset: " + e.Reason)
			if k.cfg.weak.resetless {
				why := "passed over: " + gone.Error()
				k.why.Store(&why)
				gone = nil
			}
		}
		return gone == nil
	})
	return errors.Join(err, gone)
}

// prove asks the view that is watched, again and again, how old what is held is. It is of the same table as the watch.
func (k *Cache) prove(ctx context.Context, held *contents) {
	for pause(ctx, k.cfg.askEvery) {
		at := held.view.Load()
		if at == nil {
			continue
		}
		page, err := k.glance(ctx, at)
		if err != nil {
			continue // it ages meanwhile
		}
		for !held.covers(page) {
			select {
			case <-held.grown:
			case <-ctx.Done():
				return
			}
		}
		held.provenBy(page)
	}
}

// glance asks for as little as can be had as the load has it.
func (k *Cache) glance(ctx context.Context, at *endpoint) (*Page, error) {
	if k.what.id != "" {
		return k.pageOfOne(ctx, at)
	}
	return k.client.page(ctx, k.what, &options{on: at.url, limit: 1})
}

// bears tells whether a state bears a flag; "" is any.
func bears(s *State, flag string) bool { return flag == "" || s.Flags[flag] != nil }

// stateBytes is about what a state takes in memory: several times its encoding, which is mostly the messages and maps that
// it is decoded into. A test holds it to what is measured.
func stateBytes(s *State) int64 {
	return int64(entryBytes + len(s.Id) + proto.Size(s) + 400*len(s.Flags) + 130*len(s.Totals))
}
