package chaos

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// The forms of a read.
const (
	formGet   = "get"
	formBatch = "batch"
	formList  = "list"
)

// answerSlack is the patience with an answer beyond the wait that its read asks for.
const answerSlack = time.Second

// question is a read of what was acknowledged. It names the events, or none: then it is a bare one, which is answered at once.
type question struct {
	form, over string
	events     []acked
	atLeast    string
	wait       time.Duration
}

func (q *question) String() string {
	return fmt.Sprintf("%s over %s, at_least=%s", q.form, q.over, q.atLeast)
}

// reply is what a view answered: what it counted of each ID that it has, and the position of each partition that it showed.
type reply struct {
	counts map[string]uint64
	asOf   map[int32]int64
}

// ask asks one view. An ID that is not found is an answer.
func (q *question) ask(ctx context.Context, c *client) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, q.wait+answerSlack)
	defer cancel()
	r := &reply{counts: map[string]uint64{}, asOf: map[int32]int64{}}
	on, id, wait := c.over[q.over], q.events[0].id, durationpb.New(q.wait)
	switch q.form {
	case formBatch:
		req := &pb.BatchGetRequest{AtLeast: q.atLeast, Wait: wait}
		for _, e := range q.events {
			req.Ids = append(req.Ids, e.id)
		}
		res, err := on.BatchGet(ctx, req)
		if err != nil {
			return nil, err
		}
		for i, found := range res.Results {
			if i >= len(req.Ids) || found.Id != req.Ids[i] {
				return nil, fmt.Errorf("%w: result %d of a batch of %q is of %q", errMalformed, i, req.Ids, found.Id)
			}
			r.take(found.State)
		}
		r.show(res.AsOf...)
	case formList:
		res, err := on.List(ctx, &pb.ListRequest{Prefix: id, Limit: proto.Int32(1), AtLeast: q.atLeast, Wait: wait})
		if err != nil {
			return nil, err
		}
		for _, st := range res.States {
			r.take(st)
		}
		r.show(res.AsOf...)
	default:
		res, err := on.Get(ctx, &pb.GetRequest{Id: id, AtLeast: q.atLeast, Wait: wait})
		if code, said := saidNo(err); said && code == connect.CodeNotFound {
			return r, nil
		} else if err != nil {
			return nil, err
		}
		r.take(res.State)
		r.asOf[res.AsOf.GetPartition()] = res.AsOf.GetPosition()
	}
	return r, nil
}

func (r *reply) take(st *pb.State) {
	if st != nil {
		r.counts[st.Id] = st.Count
	}
}

func (r *reply) show(all ...*pb.Freshness) {
	for _, f := range all {
		r.asOf[f.Partition] = f.Position
	}
}

// older names the IDs of which the reply does not have the events that were asked for. least sums up over partitions: an ID's
// events under different keys are counted apart.
func (q *question) older(r *reply) (missed []string) {
	least := map[string]uint64{}
	for _, e := range q.newest() {
		least[e.id] += e.least
	}
	for id, n := range least {
		if r.counts[id] < n {
			missed = append(missed, fmt.Sprintf("%s has %d events, %d were acknowledged before", id, r.counts[id], n))
		}
	}
	return missed
}

// ids is how many IDs the reply is held to.
func (q *question) ids() int {
	ids := map[string]bool{}
	for _, e := range q.events {
		ids[e.id] = true
	}
	return len(ids)
}

// newest leaves the last event of each ID in each partition.
func (q *question) newest() (all []acked) {
	type place struct {
		id        string
		partition int32
	}
	last := map[place]acked{}
	for _, e := range q.events {
		if at := (place{e.id, e.partition}); last[at].least < e.least {
			last[at] = e
		}
	}
	for _, e := range last {
		all = append(all, e)
	}
	return all
}

// claims names what the reply says itself to be: as of a position that does not cover an event of a partition that it shows, or more
// events of an ID than there can be. Both are wrong whatever the counts are.
func (q *question) claims(r *reply, most func(id string) uint64) (wrong []string) {
	for _, e := range q.events {
		if position, shown := r.asOf[e.partition]; q.atLeast != "" && shown && position <= e.offset {
			wrong = append(wrong, fmt.Sprintf("%s is answered as of %d", &e, position))
		}
	}
	for id, n := range r.counts {
		if most := most(id); n > most {
			wrong = append(wrong, fmt.Sprintf("%s has %d events, of %d that were produced", id, n, most))
		}
	}
	return wrong
}
