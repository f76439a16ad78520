package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// written gives every event a token.
func written(req *pb.ProduceRequest) (*pb.ProduceResponse, error) {
	res := &pb.ProduceResponse{}
	for i := range req.Events {
		res.Results = append(res.Results, &pb.ProduceResult{Token: fmt.Sprintf("0@%d", i)})
	}
	return res, nil
}

// TestProduce_IsSentAgainOnlyWhereNothingWasWritten: what a view answers, what the caller is told, and how often it was sent.
func TestProduce_IsSentAgainOnlyWhereNothingWasWritten(t *testing.T) {
	for _, test := range []struct {
		what    string
		first   error // the first answer; later ones are that all was written
		kind    error
		results int
		sent    int64
	}{
		{"written", nil, nil, 4, 1},
		{"over limits", refusal(connect.CodeResourceExhausted, 0), nil, 4, 2},
		{"refused", refusal(connect.CodeInvalidArgument, 0), ErrInvalid, 0, 1},
		{"not allowed", refusal(connect.CodePermissionDenied, 0), ErrDenied, 0, 1},
		{"not there", refusal(connect.CodeUnimplemented, 0), ErrInvalid, 0, 1},
		{"unavailable, and no more is said", refusal(connect.CodeUnavailable, 1), ErrUnknown, 0, 1},
		{"internal", refusal(connect.CodeInternal, 0), ErrUnknown, 0, 1},
	} {
		view := &fake{}
		view.produce = func(req *pb.ProduceRequest) (*pb.ProduceResponse, error) {
			if view.asked.Load() == 1 && test.first != nil {
				return nil, test.first
			}
			return written(req)
		}
		c := mustClient(t, nil, view.serve(t))
		results, err := c.Produce(t.Context(), []byte("1"), []byte("2"), []byte("3"), []byte("4"))
		if !errors.Is(err, test.kind) || len(results) != test.results || view.asked.Load() != test.sent {
			t.Errorf("%s: got %d results, %v, sent %d times; want %d, %v, %d times", test.what, len(results), err, view.asked.Load(), test.results, test.kind, test.sent)
		}
	}
}

// TestProduce_AnErrorSaysWhatHoldsOfAll: who sends all again after ErrNotWritten or ErrInvalid must double nothing, whatever the
// view's code is. Each event's result has its own.
func TestProduce_AnErrorSaysWhatHoldsOfAll(t *testing.T) {
	const acked = connect.Code(0)
	means := map[connect.Code]error{
		acked: nil, connect.CodeUnavailable: ErrNotWritten, connect.CodeAborted: ErrNotWritten, connect.CodeInvalidArgument: ErrInvalid, connect.CodeUnknown: ErrUnknown,
	}
	for _, test := range []struct {
		code connect.Code
		each [2]connect.Code
		want error
	}{
		{connect.CodeUnavailable, [2]connect.Code{connect.CodeUnavailable, connect.CodeUnavailable}, ErrNotWritten},
		{connect.CodeInvalidArgument, [2]connect.Code{connect.CodeAborted, connect.CodeInvalidArgument}, ErrInvalid},
		{connect.CodeUnknown, [2]connect.Code{connect.CodeUnavailable, connect.CodeUnknown}, ErrUnknown},
		{connect.CodeUnknown, [2]connect.Code{acked, connect.CodeUnknown}, ErrUnknown},
		{connect.CodeUnknown, [2]connect.Code{acked, connect.CodeUnavailable}, ErrUnknown},
		{connect.CodeUnavailable, [2]connect.Code{acked, connect.CodeUnavailable}, ErrUnknown},
		{connect.CodeInvalidArgument, [2]connect.Code{acked, connect.CodeInvalidArgument}, ErrUnknown},
	} {
		told := &pb.ProduceResponse{}
		for _, code := range test.each {
			if code == acked {
				told.Results = append(told.Results, &pb.ProduceResult{Token: "0@7"})
				continue
			}
			told.Results = append(told.Results, &pb.ProduceResult{Error: &pb.ProduceError{Code: code.String(), Message: "said the test"}})
		}
		view := &fake{produce: func(*pb.ProduceRequest) (*pb.ProduceResponse, error) { return nil, refusal(test.code, 1, told) }}
		results, err := mustClient(t, nil, view.serve(t)).Produce(t.Context(), []byte("1"), []byte("2"))
		if !errors.Is(err, test.want) || len(results) != len(test.each) || view.asked.Load() != 1 {
			t.Errorf("%s of %v: got %d results, %v, sent %d times; want %v, once", test.code, test.each, len(results), err, view.asked.Load(), test.want)
			continue
		}
		for i, code := range test.each {
			if want := means[code]; !errors.Is(results[i].Err, want) || (results[i].Token != "") != (want == nil) {
				t.Errorf("%s of %v: event %d: got %+v, want %v", test.code, test.each, i, results[i], want)
			}
		}
	}
}

// TestProduce_AConnectionThatBreaksIsNoProof: the events were written and no answer came. The control sends them again, as
// reads are, and they are there twice.
func TestProduce_AConnectionThatBreaksIsNoProof(t *testing.T) {
	log := func() (*atomic.Int64, string) {
		events := &atomic.Int64{}
		view := &fake{produce: func(req *pb.ProduceRequest) (*pb.ProduceResponse, error) {
			if events.Add(int64(len(req.Events))) == 1 {
				panic(http.ErrAbortHandler)
			}
			return written(req)
		}}
		return events, view.serve(t)
	}
	events, url := log()
	c := mustClient(t, nil, url)
	if results, err := c.Produce(t.Context(), []byte("1")); !errors.Is(err, ErrUnknown) || results != nil || events.Load() != 1 {
		t.Errorf("got %v, %v, with %d events written; want %v and one", results, err, events.Load(), ErrUnknown)
	}
	events, url = log()
	c = mustClient(t, nil, url)
	_, _, _, err := ask(t.Context(), c, &call[pb.ProduceResponse]{again: readAgain, do: func(ctx context.Context, rpc tidemarkv1connect.ViewClient) (*pb.ProduceResponse, error) {
		return rpc.Produce(ctx, &pb.ProduceRequest{Events: [][]byte{[]byte("1")}})
	}})
	if err != nil || events.Load() != 2 {
		t.Errorf("the control: got %v with %d events written, want it sent again", err, events.Load())
	}
}

func TestProduce_GoesToAnotherViewWhereOneIsNotReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	view := &fake{produce: written}
	c := mustClient(t, nil, closed, view.serve(t))
	for range 4 {
		if results, err := c.Produce(t.Context(), []byte("1")); err != nil || len(results) != 1 || results[0].Token == "" {
			t.Errorf("got %v, %v", results, err)
		}
	}
	nowhere := mustClient(t, nil, closed)
	if _, err := nowhere.Produce(t.Context(), []byte("1")); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknown) {
		t.Errorf("no view is there: got %v, want %v: nothing was written", err, ErrUnreachable)
	}
	// A transport that does not tell what it does proves nothing.
	silent := mustClient(t, func(cfg *Config) { cfg.Transport = inMemory{} }, "http://nobody")
	if _, err := silent.Produce(t.Context(), []byte("1")); !errors.Is(err, ErrUnknown) {
		t.Errorf("a transport that tells nothing: got %v, want %v", err, ErrUnknown)
	}
	slow := &fake{}
	hold := make(chan struct{})
	slow.produce = func(req *pb.ProduceRequest) (*pb.ProduceResponse, error) { <-hold; return written(req) }
	c = mustClient(t, nil, slow.serve(t))
	if _, err := c.Produce(within(t, 50*time.Millisecond), []byte("1")); !errors.Is(err, ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context that ends meanwhile: got %v, want %v", err, ErrUnknown)
	}
	close(hold)
}

// placed is a view of a job with some partitions, which can grow. It notes the tokens that it is asked with.
type placed struct {
	fake
	n   int32
	got string
}

func mustPlaced(t *testing.T, n int32) (*placed, *Session) {
	t.Helper()
	p := &placed{}
	p.grow(n)
	p.get = func(req *pb.GetRequest) (*pb.GetResponse, error) {
		p.got = req.AtLeast
		return &pb.GetResponse{State: &pb.State{Id: req.Id}, AsOf: &pb.AsOf{Partition: Partition(req.Id, p.n)}}, nil
	}
	p.batch = func(req *pb.BatchGetRequest) (*pb.BatchGetResponse, error) {
		p.got = req.AtLeast
		res := &pb.BatchGetResponse{}
		for _, id := range req.Ids {
			res.Results = append(res.Results, &pb.Found{Id: id})
			res.AsOf = append(res.AsOf, &pb.Freshness{Partition: Partition(id, p.n)})
		}
		return res, nil
	}
	p.produce = func(req *pb.ProduceRequest) (*pb.ProduceResponse, error) {
		res := &pb.ProduceResponse{}
		for _, id := range req.Events { // an event is its ID here
			res.Results = append(res.Results, &pb.ProduceResult{Token: p.token(string(id))})
		}
		return res, nil
	}
	return p, mustClient(t, nil, p.serve(t)).Session()
}

func (p *placed) grow(n int32) {
	p.n, p.status = n, &pb.StatusResponse{Partitions: slices.Repeat([]*pb.PartitionStatus{{}}, int(n))}
}

func (p *placed) token(id string) string {
	return fmt.Sprintf("%d@%d.1.topic", Partition(id, p.n), len(id))
}

// asked gives the tokens with which a session asks for an ID.
func (p *placed) asked(t *testing.T, s *Session, id string) string {
	t.Helper()
	p.got = "not asked"
	if _, err := s.Get(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return p.got
}

// TestSession_SendsTheTokensOfTheIDsPartition: a view refuses those of others, and one that is left out is a stale answer.
func TestSession_SendsTheTokensOfTheIDsPartition(t *testing.T) {
	view, s := mustPlaced(t, 4)
	if at := view.asked(t, s, "a"); at != "" {
		t.Errorf("nothing was written: got %q", at)
	}
	home, other := Partition("a", 4), "b"
	for Partition(other, 4) == home {
		other += "b"
	}
	if _, err := s.Produce(t.Context(), []byte("a"), []byte(other)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", other} {
		if at := view.asked(t, s, id); at != view.token(id) {
			t.Errorf("%s: got %q, want %q", id, at, view.token(id))
		}
	}
	if _, err := s.BatchGet(t.Context(), []string{"a", other}); err != nil || strings.Count(view.got, "@") != 2 {
		t.Errorf("a batch of both: got %q (%v)", view.got, err)
	}
	for _, test := range []struct{ token, want string }{
		{"%d@0", "%d@1.1.topic"},                   // older
		{"%d@9", "%d@9"},                           // newer, as a Kafka producer was told
		{"%d@3.1.made-again", "%d@3.1.made-again"}, // of another topic: its offsets begin anew
	} {
		if err := s.Remember(fmt.Sprintf(test.token, home)); err != nil {
			t.Fatal(err)
		}
		if at, want := view.asked(t, s, "a"), fmt.Sprintf(test.want, home); at != want {
			t.Errorf("after %s: got %q, want %q", test.token, at, want)
		}
	}
	heir := mustClient(t, nil, view.serve(t)).Session()
	if err := heir.Remember(s.Tokens()); err != nil || heir.Tokens() != s.Tokens() || s.Tokens() == "" {
		t.Errorf("handed on: got %q (%v), want %q", heir.Tokens(), err, s.Tokens())
	}
	if err := s.Remember("3@x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("no token: got %v", err)
	}
	if err := s.Wrote(t.Context(), "a", (home+1)%4, 5); !errors.Is(err, ErrWrongPartition) {
		t.Errorf("another partitioner: got %v, want %v", err, ErrWrongPartition)
	}
	if err := s.Wrote(t.Context(), "a", home, 77); err != nil || view.asked(t, s, "a") != fmt.Sprintf("%d@77", home) {
		t.Errorf("a producer's place: got %q (%v)", view.got, err)
	}
}

// TestSession_LearnsThatTheJobHasMorePartitions from an answer, before it believes one that may be older than what it wrote.
func TestSession_LearnsThatTheJobHasMorePartitions(t *testing.T) {
	view, s := mustPlaced(t, 4)
	if _, err := s.Produce(t.Context(), []byte("a")); err != nil {
		t.Fatal(err)
	}
	view.asked(t, s, "a")
	view.grow(64)
	moved := "a"
	for Partition(moved, 64) < 4 {
		moved += "a"
	}
	if _, err := s.Produce(t.Context(), []byte(moved)); err != nil {
		t.Fatal(err)
	}
	if at := view.asked(t, s, moved); at != view.token(moved) {
		t.Errorf("got %q, want %q", at, view.token(moved))
	}
}
