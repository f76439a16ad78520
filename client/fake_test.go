package client

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// fake is a view that fails in the ways that a test wants. What it is not told to do is unimplemented.
type fake struct {
	tidemarkv1connect.UnimplementedViewHandler
	asked   atomic.Int64
	get     func(*pb.GetRequest) (*pb.GetResponse, error)
	batch   func(*pb.BatchGetRequest) (*pb.BatchGetResponse, error)
	list    func(*pb.ListRequest) (*pb.ListResponse, error)
	watch   func(context.Context, *pb.WatchRequest, *connect.ServerStream[pb.WatchResponse]) error
	produce func(*pb.ProduceRequest) (*pb.ProduceResponse, error)
	status  *pb.StatusResponse
	headers func(http.Header)

	once    sync.Once
	handler http.Handler
}

func (f *fake) Get(_ context.Context, req *pb.GetRequest) (*pb.GetResponse, error) {
	return f.get(req)
}

func (f *fake) BatchGet(_ context.Context, req *pb.BatchGetRequest) (*pb.BatchGetResponse, error) {
	return f.batch(req)
}

func (f *fake) List(_ context.Context, req *pb.ListRequest) (*pb.ListResponse, error) {
	return f.list(req)
}

func (f *fake) Watch(ctx context.Context, req *pb.WatchRequest, out *connect.ServerStream[pb.WatchResponse]) error {
	return f.watch(ctx, req, out)
}

func (f *fake) Produce(_ context.Context, req *pb.ProduceRequest) (*pb.ProduceResponse, error) {
	return f.produce(req)
}

func (f *fake) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return f.status, nil
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked.Add(1)
	if f.headers != nil {
		f.headers(r.Header)
	}
	f.once.Do(func() { _, f.handler = tidemarkv1connect.NewViewHandler(f) })
	f.handler.ServeHTTP(w, r)
}

// serve serves it on loopback.
func (f *fake) serve(t testing.TB) (url string) {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// inMemory is a transport that needs no network, so that a test's time can be its own.
type inMemory map[string]http.Handler

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	h := m[r.URL.Host]
	if h == nil {
		return nil, errors.New("no such host: " + r.URL.Host)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec.Result(), r.Context().Err()
}

// answers gives the state of any ID, from partition 0.
func answers(req *pb.GetRequest) (*pb.GetResponse, error) {
	return &pb.GetResponse{State: &pb.State{Id: req.Id, Version: 1}, AsOf: &pb.AsOf{Position: 7, Commit: 3}}, nil
}

// refusal is an error as a view sends it.
func refusal(code connect.Code, retryAfter int, details ...proto.Message) error {
	err := connect.NewError(code, errors.New("refused by the test"))
	if retryAfter > 0 {
		err.Meta().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	for _, m := range details {
		d, bad := connect.NewErrorDetail(m)
		if bad != nil {
			panic(bad)
		}
		err.AddDetail(d)
	}
	return err
}

func refuses(code connect.Code, retryAfter int, details ...proto.Message) func(*pb.GetRequest) (*pb.GetResponse, error) {
	return func(*pb.GetRequest) (*pb.GetResponse, error) { return nil, refusal(code, retryAfter, details...) }
}

// within is a context that ends before the test does.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
