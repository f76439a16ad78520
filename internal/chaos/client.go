package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// The transports over which views are read.
const (
	overREST    = "REST"
	overGRPC    = "gRPC"
	overConnect = "Connect"
)

// reads are the questions that name events.
type reads interface {
	Get(context.Context, *pb.GetRequest) (*pb.GetResponse, error)
	BatchGet(context.Context, *pb.BatchGetRequest) (*pb.BatchGetResponse, error)
	List(context.Context, *pb.ListRequest) (*pb.ListResponse, error)
}

// client reaches one view over every transport that it has. Its connections are kept, and find the view again where it listens
// after a restart.
type client struct {
	view *slot
	base string
	http *http.Client
	grpc tidemarkv1connect.ViewClient
	over map[string]reads // by transport
	// close lets the connections go that are not in use.
	close func()
}

func newClient(view *slot, connections int) *client {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		addr, err := os.ReadFile(view.task.Addr)
		if err != nil {
			return nil, err
		}
		return (&net.Dialer{}).DialContext(ctx, network, string(addr))
	}
	http2 := &http.Transport{DialContext: dial, Protocols: &http.Protocols{}}
	http2.Protocols.SetUnencryptedHTTP2(true)
	c := &client{
		view: view, base: "http://" + view.task.Instance, http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: connections}},
	}
	c.grpc = tidemarkv1connect.NewViewClient(&http.Client{Transport: http2}, c.base, connect.WithGRPC())
	c.over = map[string]reads{
		overREST: rest{c}, overGRPC: c.grpc, overConnect: tidemarkv1connect.NewViewClient(c.http, c.base),
	}
	c.close = func() {
		c.http.CloseIdleConnections()
		http2.CloseIdleConnections()
	}
	return c
}

// refusal is an error that a view answered over REST.
type refusal struct {
	status  int
	Code    connect.Code
	Message string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %v: %s", r.status, r.Code, r.Message) }

// errMalformed is an answer that is none.
var errMalformed = errors.New("not what a view may answer")

// saidNo gives the code of an error that a view itself answered; ok is false where nothing came from it. The status of REST has
// to be that of the code.
func saidNo(err error) (code connect.Code, ok bool) {
	var over *refusal
	switch {
	case errors.Is(err, errMalformed):
		return connect.CodeInternal, true
	case errors.As(err, &over) && statusOf[over.Code] == over.status:
		return over.Code, true
	case errors.As(err, &over):
		return connect.CodeUnknown, true
	}
	return connect.CodeOf(err), connect.IsWireError(err)
}

var statusOf = map[connect.Code]int{
	connect.CodeInvalidArgument: http.StatusBadRequest, connect.CodeNotFound: http.StatusNotFound, connect.CodeFailedPrecondition: http.StatusGone,
	connect.CodeUnavailable: http.StatusServiceUnavailable, connect.CodeDeadlineExceeded: http.StatusGatewayTimeout,
}

// rest asks over REST, in the messages of the service's definition: JSON is their mapping.
type rest struct{ *client }

func (c rest) Get(ctx context.Context, req *pb.GetRequest) (*pb.GetResponse, error) {
	res := &pb.GetResponse{}
	return res, c.get(ctx, "/v1/ids/"+url.PathEscape(req.Id), url.Values{}, req.AtLeast, req.Wait, res)
}

func (c rest) List(ctx context.Context, req *pb.ListRequest) (*pb.ListResponse, error) {
	res := &pb.ListResponse{}
	return res, c.get(ctx, "/v1/ids", url.Values{"prefix": {req.Prefix}, "limit": {fmt.Sprint(req.GetLimit())}}, req.AtLeast, req.Wait, res)
}

func (c rest) BatchGet(ctx context.Context, req *pb.BatchGetRequest) (*pb.BatchGetResponse, error) {
	body, err := protojson.Marshal(req)
	if err != nil {
		return nil, err
	}
	res := &pb.BatchGetResponse{}
	return res, c.do(ctx, http.MethodPost, "/v1/ids:batchGet", body, res)
}

func (c rest) get(ctx context.Context, path string, query url.Values, atLeast string, wait *durationpb.Duration, res proto.Message) error {
	if atLeast != "" {
		query.Set("at_least", atLeast)
	}
	if wait != nil {
		query.Set("wait", fmt.Sprintf("%dms", wait.AsDuration().Milliseconds()))
	}
	return c.do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, res)
}

func (c rest) do(ctx context.Context, method, path string, body []byte, res proto.Message) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return refused(resp.StatusCode, text)
	}
	if err := protojson.Unmarshal(text, res); err != nil {
		return fmt.Errorf("%w: %w in %q", errMalformed, err, text)
	}
	return nil
}

// refused is the error that a view answered.
func refused(status int, text []byte) error {
	no := &refusal{status: status}
	if err := json.Unmarshal(text, no); err != nil {
		return fmt.Errorf("%w: %d, %w in %q", errMalformed, status, err, text)
	}
	return no
}
