package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// known is what a decoded state is compared with.
type known struct {
	version uint64
	sum     string
}

func knownOf(states []string) ([]known, error) {
	out := make([]known, len(states))
	for n, state := range states {
		var s struct {
			Version uint64 `json:",string"`
			Totals  struct{ Sum string }
		}
		if err := json.Unmarshal([]byte(state), &s); err != nil {
			return nil, err
		}
		out[n] = known{s.Version, s.Totals.Sum}
	}
	return out, nil
}

func (k *known) is(id int, s *pb.State) bool {
	return s.GetId() == idText(id) && s.Version == k.version && s.Totals["sum"].GetStringValue() == k.sum
}

// grpcCaller asks by grpc-go. Callers share connections, as that client is meant to be used.
type grpcCaller struct {
	c     *grpc.ClientConn
	known []known
}

// openGRPC gives callers that share one connection, or have one each.
func openGRPC(addr string, known []known, each bool) func(context.Context, int) (*session, error) {
	return func(_ context.Context, callers int) (*session, error) {
		var open []*grpc.ClientConn
		s := &session{close: func() error {
			var errs []error
			for _, c := range open {
				errs = append(errs, c.Close())
			}
			return errors.Join(errs...)
		}}
		for n := range callers {
			if n == 0 || each {
				c, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					return nil, errors.Join(err, s.close())
				}
				open = append(open, c)
			}
			s.callers = append(s.callers, &grpcCaller{open[len(open)-1], known})
		}
		return s, nil
	}
}

func (g *grpcCaller) get(ctx context.Context, id int) error {
	var resp pb.GetResponse
	err := g.c.Invoke(ctx, "/tidemark.v1.View/Get", &pb.GetRequest{Id: idText(id)}, &resp)
	if err != nil || !g.known[id].is(id, resp.State) || resp.AsOf == nil {
		return wrong(id, resp.String(), err)
	}
	return nil
}

func (g *grpcCaller) batch(ctx context.Context, ids []int) error {
	req := &pb.BatchGetRequest{Ids: make([]string, len(ids))}
	for i, id := range ids {
		req.Ids[i] = idText(id)
	}
	var resp pb.BatchGetResponse
	if err := g.c.Invoke(ctx, "/tidemark.v1.View/BatchGet", req, &resp); err != nil || len(resp.Results) != len(ids) {
		return wrong(ids[0], fmt.Sprintf("%d results", len(resp.Results)), err)
	}
	for i, id := range ids {
		if r := resp.Results[i]; r.Id != req.Ids[i] || !g.known[id].is(id, r.State) {
			return wrong(id, r.String(), nil)
		}
	}
	return nil
}
