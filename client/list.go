package client

import (
	"context"
	"iter"
	"time"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// Filter says which IDs are meant.
type Filter struct{ id, prefix, flag string }

// Everything is every ID.
func Everything() Filter { return Filter{} }

// ID is one ID.
func ID(id string) Filter { return Filter{id: id} }

// Prefix is the IDs that begin with it.
func Prefix(prefix string) Filter { return Filter{prefix: prefix} }

// Flag is the IDs that bear it.
func Flag(name string) Filter { return Filter{flag: name} }

// Page is a part of a list, in byte order of the ID, and each partition's from one commit.
type Page struct {
	States []*State
	Next   string // for PageToken: where the next page begins, in any view of the job; "" on the last one
	AsOf   []Freshness
	View   string // that gave it

	asked time.Time
}

// List gives the states of the IDs that begin with prefix, in byte order of the ID; "" is all. It asks for a page at a time,
// as they are taken. An ID that exists throughout is neither skipped nor given twice, whatever happens meanwhile, and whichever
// views answer. An error is the last thing that it gives.
func (c *Client) List(ctx context.Context, prefix string, opts ...Option) iter.Seq2[*State, error] {
	return states(c.Pages(ctx, Prefix(prefix), opts...))
}

// ListByFlag gives the states of the IDs that bear a flag, as List does.
func (c *Client) ListByFlag(ctx context.Context, flag string, opts ...Option) iter.Seq2[*State, error] {
	if flag == "" {
		return func(yield func(*State, error) bool) { yield(nil, invalidf("no flag is named")) }
	}
	return states(c.Pages(ctx, Flag(flag), opts...))
}

func states(pages iter.Seq2[*Page, error]) iter.Seq2[*State, error] {
	return func(yield func(*State, error) bool) {
		for page, err := range pages {
			if err != nil {
				yield(nil, err)
				return
			}
			for _, s := range page.States {
				if !yield(s, nil) {
					return
				}
			}
		}
	}
}

// Pages is List and ListByFlag by whole pages, with what each is as of, and where to go on later: its Next goes into
// PageToken. A filter of one ID has no pages.
func (c *Client) Pages(ctx context.Context, what Filter, opts ...Option) iter.Seq2[*Page, error] {
	return func(yield func(*Page, error) bool) {
		o := chosen(opts)
		if what.id != "" {
			yield(nil, invalidf("a list is of a prefix, a flag or everything; one ID is for Get"))
			return
		}
		for {
			page, err := c.page(ctx, what, o)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(page, nil) || page.Next == "" {
				return
			}
			o.page = page.Next
		}
	}
}

func (c *Client) page(ctx context.Context, what Filter, o *options) (*Page, error) {
	r, err := c.reading(ctx, o)
	if err != nil {
		return nil, err
	}
	q := &call[pb.ListResponse]{on: r.on, wait: r.waiting, again: readAgain}
	if what.flag == "" {
		req := &pb.ListRequest{Prefix: what.prefix, Limit: &o.limit, PageToken: o.page, AtLeast: r.atLeast, Wait: r.wait, MaxAge: r.maxAge}
		q.do = func(ctx context.Context, rpc tidemarkv1connect.ViewClient) (*pb.ListResponse, error) {
			return rpc.List(ctx, req)
		}
	} else {
		req := &pb.ListByFlagRequest{Flag: what.flag, Limit: &o.limit, PageToken: o.page, AtLeast: r.atLeast, Wait: r.wait, MaxAge: r.maxAge}
		q.do = func(ctx context.Context, rpc tidemarkv1connect.ViewClient) (*pb.ListResponse, error) {
			res, err := rpc.ListByFlag(ctx, req)
			if err != nil {
				return nil, err
			}
			return &pb.ListResponse{States: res.States, NextPageToken: res.NextPageToken, AsOf: res.AsOf}, nil
		}
	}
	res, by, asked, err := ask(ctx, c, q)
	if err != nil {
		return nil, err
	}
	if n := len(res.AsOf); n > 0 {
		c.partitions.Store(int32(n))
	}
	return &Page{States: res.States, Next: res.NextPageToken, AsOf: freshnessesOf(res.AsOf), View: by.url, asked: asked}, nil
}
