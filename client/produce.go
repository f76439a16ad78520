package client

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync/atomic"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// Produced is what became of one event: a token for AtLeast, or why there is none (ErrInvalid, ErrNotWritten, ErrUnknown).
type Produced struct {
	Token string
	Err   error
}

// Produce writes events, in the input's format, and answers when all replicas have them: what became of each, in order.
//
// Without an error each has its token. With one, it says what holds of all together: some were or may have been written
// (ErrUnknown), or none was (ErrNotWritten, ErrInvalid, ErrDenied, ErrRateLimited, ErrUnreachable). The results tell it of each,
// where there are any: of an error of ErrUnknown without them nothing is known. Events are sent again by themselves only where
// it is proved that none was written.
func (c *Client) Produce(ctx context.Context, events ...[]byte) ([]Produced, error) {
	req := &pb.ProduceRequest{Events: events}
	proof := &proof{}
	res, by, _, err := ask(ctx, c, &call[pb.ProduceResponse]{
		again: func(e *Error) bool { return proof.unwritten(e) && readAgain(e) },
		do: func(ctx context.Context, rpc tidemarkv1connect.ViewClient) (*pb.ProduceResponse, error) {
			*proof = attemptProof()
			return rpc.Produce(proof.trace(ctx), req)
		},
	})
	if err == nil && len(res.Results) != len(events) {
		return nil, &Error{View: by.url, kind: ErrUnknown, Message: "the answer tells of another number of events than were sent"}
	}
	if err == nil {
		return producedOf(by, res), nil
	}
	var failure *Error
	if !errors.As(err, &failure) || failure.View == "" {
		return nil, err
	}
	if told := failure.produced; told != nil && len(told.Results) == len(events) {
		results := producedOf(by, told)
		failure.kind = kindOf(results)
		return results, failure
	}
	if !proof.unwritten(failure) {
		failure.kind = ErrUnknown
	}
	return nil, failure
}

// kindOf is what the results say of all events together.
func kindOf(results []Produced) error {
	kind := ErrNotWritten
	for _, r := range results {
		switch {
		case r.Err == nil, errors.Is(r.Err, ErrUnknown):
			return ErrUnknown
		case errors.Is(r.Err, ErrInvalid):
			kind = ErrInvalid
		}
	}
	return kind
}

func producedOf(by *endpoint, res *pb.ProduceResponse) []Produced {
	out := make([]Produced, len(res.Results))
	for i, r := range res.Results {
		if out[i].Token = r.Token; r.Error == nil {
			continue
		}
		e := &Error{View: by.url, Code: r.Error.Code, Message: r.Error.Message, kind: ErrUnknown}
		if kind := eventKinds[r.Error.Code]; kind != nil {
			e.kind = kind
		}
		out[i].Err = e
	}
	return out
}

// eventKinds is what the code of an event means. What is not here may have been written.
var eventKinds = map[string]error{
	connect.CodeInvalidArgument.String():   ErrInvalid,
	connect.CodeAborted.String():           ErrNotWritten,
	connect.CodeUnavailable.String():       ErrNotWritten,
	connect.CodeResourceExhausted.String(): ErrNotWritten,
}

// proof is what is known of an attempt to produce: that it never got as far as a connection to send anything on.
type proof struct{ looked, connected *atomic.Bool }

func attemptProof() proof { return proof{&atomic.Bool{}, &atomic.Bool{}} }

func (p *proof) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { p.looked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { p.connected.Store(true) },
	})
}

// unwritten tells whether a failure proves that nothing was written: the view refused the request as a whole, or was never
// reached.
func (p *proof) unwritten(e *Error) bool {
	switch e.kind {
	case ErrInvalid, ErrDenied, ErrGone, ErrRateLimited:
		return true
	}
	// A transport that does not know httptrace proves nothing.
	return p.looked != nil && p.looked.Load() && !p.connected.Load()
}

// producedDetail is what an error tells of the events one by one.
func producedDetail(err *connect.Error) *pb.ProduceResponse {
	for _, d := range err.Details() {
		if d.Type() != "tidemark.v1.ProduceResponse" {
			continue
		}
		m := &pb.ProduceResponse{}
		if proto.Unmarshal(d.Bytes(), m) == nil {
			return m
		}
	}
	return nil
}
