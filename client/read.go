package client

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// State is what is known of one ID. Those that a cache gives are shared: nobody may change them.
type State = pb.State

// Why is the event that raised a flag, and the rules by which it did.
type Why = pb.Why

// Status is how a view stands.
type Status = pb.StatusResponse

// Freshness says which commit of a partition an answer shows, and how old that is.
type Freshness struct {
	Partition int32
	// Position is the input offset before which every event of the partition was applied or refused; Time is the time of
	// the last event before it.
	Position int64
	Time     time.Time
	Commit   uint64
	// Age is how long ago the answer is known to have covered the end of the input, TableAge that of the table.
	Age, TableAge time.Duration
}

// NotKnown is an age that is not known.
const NotKnown = time.Duration(-1)

// Answer is the state of an ID and how fresh it is.
type Answer struct {
	State *State
	Freshness
	// Cached tells that it comes from a cache's memory. The state is then as of the commit that is named or a later one, and
	// Age counts from when a view was last asked.
	Cached bool
}

// option is one of a read or a watch.
type options struct {
	atLeast []string
	wait    *time.Duration
	maxAge  *time.Duration
	limit   int32
	page    string
	from    string
	on      string
}

// Option is what a read or a watch asks beyond being true.
type Option func(*options)

// AtLeast asks for an answer that comes after these events were applied or refused: places PARTITION@OFFSET of the input,
// as any producer was told, or tokens that Produce gave.
func AtLeast(tokens ...string) Option {
	return func(o *options) { o.atLeast = append(o.atLeast, tokens...) }
}

// Wait is how long to wait for the events of AtLeast: 2 s where it is not given, 30 s at most. A context that ends sooner
// shortens it, so that the answer can still say how far the view is.
func Wait(d time.Duration) Option { return func(o *options) { o.wait = &d } }

// MaxAge refuses an answer that is older, or whose age is not known.
func MaxAge(d time.Duration) Option { return func(o *options) { o.maxAge = &d } }

// PageSize is how many states a list asks for at once: 1 to 1,000 (default 1,000).
func PageSize(n int) Option { return func(o *options) { o.limit = int32(min(n, 1<<30)) } }

// PageToken begins a list at a page, by the Next of the one before.
func PageToken(token string) Option { return func(o *options) { o.page = token } }

// OnView asks that view alone, by its URL as in Config.Views.
func OnView(url string) Option { return func(o *options) { o.on = strings.TrimRight(url, "/") } }

const (
	waitDefault  = 2 * time.Second
	pageSize     = 1000
	batchIDsMax  = 1000 // of one request
	batchesAhead = 4    // requests of one BatchGet at the same time
)

// reading is what reads have in common, as they send it.
type reading struct {
	atLeast      string
	wait, maxAge *durationpb.Duration
	on           *endpoint
	waiting      time.Duration // 0: there is nothing to wait for
}

func (c *Client) reading(ctx context.Context, o *options) (r reading, err error) {
	if o.on != "" {
		i := slices.IndexFunc(c.views, func(v *endpoint) bool { return v.url == o.on })
		if i < 0 {
			return r, invalidf("%s is none of the client's views", o.on)
		}
		r.on = c.views[i]
	}
	if o.maxAge != nil {
		r.maxAge = durationpb.New(*o.maxAge)
	}
	if len(o.atLeast) == 0 {
		return r, nil
	}
	r.atLeast, r.waiting = strings.Join(o.atLeast, ","), waitDefault
	if o.wait != nil {
		r.waiting = *o.wait
	}
	if end, ok := ctx.Deadline(); ok { // the answer is to come while somebody is there to hear it
		if left := time.Until(end); left-left/8 < r.waiting {
			r.waiting = max(left-left/8, 0)
		}
	}
	r.wait = durationpb.New(r.waiting)
	return r, nil
}

func chosen(opts []Option) *options {
	o := &options{limit: pageSize}
	for _, opt := range opts {
		opt(o)
	}
	return o
}

// Get gives the state of one ID. ErrNotFound says that no event of it was counted.
func (c *Client) Get(ctx context.Context, id string, opts ...Option) (Answer, error) {
	a, _, err := c.get(ctx, id, chosen(opts))
	return a, err
}

func (c *Client) get(ctx context.Context, id string, o *options) (a Answer, asked time.Time, err error) {
	r, err := c.reading(ctx, o)
	if err != nil {
		return a, asked, err
	}
	req := &pb.GetRequest{Id: id, AtLeast: r.atLeast, Wait: r.wait, MaxAge: r.maxAge}
	res, _, asked, err := ask(ctx, c, &call[pb.GetResponse]{
		on: r.on, wait: r.waiting, again: readAgain,
		do: func(ctx context.Context, rpc tidemarkv1connect.ViewClient) (*pb.GetResponse, error) {
			return rpc.Get(ctx, req)
		},
	})
	if err != nil {
		return a, asked, err
	}
	a.State = res.State
	if res.AsOf != nil {
		a.Freshness = asOfCommit(res.AsOf)
	}
	a.Age, a.TableAge = ageOf(res.Age), ageOf(res.TableAge)
	return a, asked, nil
}

// Status tells how a view stands; of several, that which is asked next.
func (c *Client) Status(ctx context.Context, opts ...Option) (*Status, error) {
	r, err := c.reading(ctx, chosen(opts))
	if err != nil {
		return nil, err
	}
	res, _, _, err := ask(ctx, c, &call[pb.StatusResponse]{
		on: r.on, again: readAgain,
		do: func(ctx context.Context, rpc tidemarkv1connect.ViewClient) (*pb.StatusResponse, error) {
			return rpc.Status(ctx, &pb.StatusRequest{})
		},
	})
	if err != nil {
		return nil, err
	}
	if n := len(res.Partitions); n > 0 {
		c.partitions.Store(int32(n))
	}
	return res, nil
}

func ageOf(d *durationpb.Duration) time.Duration {
	if d == nil {
		return NotKnown
	}
	return d.AsDuration()
}

func freshnessOf(m *pb.Freshness) Freshness {
	f := Freshness{Partition: m.Partition, Position: m.Position, Commit: m.Commit, Age: ageOf(m.Age), TableAge: ageOf(m.TableAge)}
	if m.Time != nil {
		f.Time = m.Time.AsTime()
	}
	return f
}

func freshnessesOf(all []*pb.Freshness) []Freshness {
	out := make([]Freshness, len(all))
	for i, m := range all {
		out[i] = freshnessOf(m)
	}
	return out
}

// older gives the greater age; one that is not known is greater than all.
func older(a, b time.Duration) time.Duration {
	if a == NotKnown || b == NotKnown {
		return NotKnown
	}
	return max(a, b)
}
