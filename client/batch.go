package client

import (
	"cmp"
	"context"
	"slices"
	"sync"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// Batch is the answer for many IDs.
type Batch struct {
	// States are in the order asked; nil: no event of the ID was counted.
	States []*State
	// AsOf has the partitions on which the IDs live, in order. Each partition's states are from one commit where at most
	// 1,000 IDs were asked for. More are asked for in several requests, and AsOf names the least commit and the greatest
	// ages among their answers.
	AsOf []Freshness
}

// BatchGet gives the states of any number of IDs. With an error there is no part of an answer.
func (c *Client) BatchGet(ctx context.Context, ids []string, opts ...Option) (*Batch, error) {
	if len(ids) == 0 {
		return &Batch{}, nil
	}
	o := chosen(opts)
	if len(ids) <= batchIDsMax {
		return c.batch(ctx, ids, o)
	}
	tokens, err := c.tokensOfParts(ctx, ids, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		running sync.WaitGroup
		parts   = make([]*Batch, 0, len(tokens))
		room    = make(chan struct{}, batchesAhead)
	)
	for ids := range slices.Chunk(ids, batchIDsMax) {
		part, mine := &Batch{}, *o
		mine.atLeast = tokens[len(parts)]
		parts = append(parts, part)
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			b, err := c.batch(ctx, ids, &mine)
			if err != nil {
				cancel(err) // the first one counts
				return
			}
			*part = *b
		})
	}
	running.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return join(parts), nil
}

// tokensOfParts gives each request of a batch those tokens whose partitions it asks: the view refuses others. One that none
// asks goes with the first, to be refused by name.
func (c *Client) tokensOfParts(ctx context.Context, ids []string, o *options) ([][]string, error) {
	tokens := make([][]string, (len(ids)+batchIDsMax-1)/batchIDsMax)
	if len(o.atLeast) == 0 {
		return tokens, nil
	}
	n, err := c.partitionCount(ctx)
	if err != nil {
		return nil, err
	}
	for _, token := range o.atLeast {
		at, err := parseToken(token)
		if err != nil {
			return nil, err
		}
		last, asked := -1, false
		for i, id := range ids {
			if part := i / batchIDsMax; part != last && Partition(id, n) == at.partition {
				tokens[part] = append(tokens[part], token)
				last, asked = part, true
			}
		}
		if !asked {
			tokens[0] = append(tokens[0], token)
		}
	}
	return tokens, nil
}

func (c *Client) batch(ctx context.Context, ids []string, o *options) (*Batch, error) {
	r, err := c.reading(ctx, o)
	if err != nil {
		return nil, err
	}
	req := &pb.BatchGetRequest{Ids: ids, AtLeast: r.atLeast, Wait: r.wait, MaxAge: r.maxAge}
	res, by, _, err := ask(ctx, c, &call[pb.BatchGetResponse]{
		on: r.on, wait: r.waiting, again: readAgain,
		do: func(ctx context.Context, rpc tidemarkv1connect.ViewClient) (*pb.BatchGetResponse, error) {
			return rpc.BatchGet(ctx, req)
		},
	})
	if err != nil {
		return nil, err
	}
	if len(res.Results) != len(ids) {
		return nil, &Error{View: by.url, kind: ErrInternal, Message: "a batch was answered in part"}
	}
	b := &Batch{States: make([]*State, len(ids)), AsOf: freshnessesOf(res.AsOf)}
	for i, found := range res.Results {
		b.States[i] = found.State
	}
	return b, nil
}

func join(parts []*Batch) *Batch {
	out := &Batch{}
	at := map[int32]*Freshness{}
	for _, part := range parts {
		out.States = append(out.States, part.States...)
		for i := range part.AsOf {
			f := &part.AsOf[i]
			was := at[f.Partition]
			if was == nil {
				at[f.Partition] = f
				continue
			}
			age, tableAge := older(was.Age, f.Age), older(was.TableAge, f.TableAge)
			if f.Commit < was.Commit {
				*was = *f
			}
			was.Age, was.TableAge = age, tableAge
		}
	}
	for _, f := range at {
		out.AsOf = append(out.AsOf, *f)
	}
	slices.SortFunc(out.AsOf, func(a, b Freshness) int { return cmp.Compare(a.Partition, b.Partition) })
	return out
}
