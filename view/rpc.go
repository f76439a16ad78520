package view

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// requestBytesMax is the largest request: a batch of the longest IDs fits.
const requestBytesMax = 2 << 20

// compressMinBytes is the smallest answer that is compressed for clients that take it. Connect's clients all do, and to
// compress one state takes longer than everything else that is done for it.
const compressMinBytes = 64 << 10

// rpc serves gRPC, gRPC-Web and Connect, with reflection and health. What view.proto names and nothing here serves is
// unimplemented.
func (v *View) rpc() http.Handler {
	mux := http.NewServeMux()
	options := []connect.HandlerOption{
		connect.WithCodec(protoCodec{}), connect.WithCodec(jsonCodec{"json"}), connect.WithCodec(jsonCodec{"json; charset=utf-8"}),
		connect.WithReadMaxBytes(requestBytesMax), connect.WithCompressMinBytes(compressMinBytes),
	}
	path, rest := tidemarkv1connect.NewViewHandler(tidemarkv1connect.UnimplementedViewHandler{})
	mux.Handle(path, rest)
	if v.cfg.Producer != nil {
		mux.Handle(tidemarkv1connect.ViewProduceProcedure, v.admit(unaryHandler(tidemarkv1connect.ViewProduceProcedure, "Produce", v.produceRPC, options...)))
	}
	unary(mux, tidemarkv1connect.ViewGetProcedure, "Get", v.one, options)
	unary(mux, tidemarkv1connect.ViewBatchGetProcedure, "BatchGet", v.batch, options)
	unary(mux, tidemarkv1connect.ViewListProcedure, "List", v.list, options)
	unary(mux, tidemarkv1connect.ViewListByFlagProcedure, "ListByFlag", v.listByFlag, options)
	unary(mux, tidemarkv1connect.ViewStatusProcedure, "Status", func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
		return v.status(), nil
	}, options)
	watch := connect.NewServerStreamHandler(tidemarkv1connect.ViewWatchProcedure, v.watchRPC, connect.WithSchema(schemaOf("Watch")), connect.WithHandlerOptions(options...))
	mux.HandleFunc(tidemarkv1connect.ViewWatchProcedure, func(w http.ResponseWriter, r *http.Request) {
		s := v.streaming(w)
		watch.ServeHTTP(s, r.WithContext(context.WithValue(r.Context(), streamKey{}, s)))
	})
	mux.Handle(grpchealth.NewHandler(health{v}))
	reflector := grpcreflect.NewStaticReflector(tidemarkv1connect.ViewName, grpchealth.HealthV1ServiceName)
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	return mux
}

// unary serves one method that reads.
func unary[Req, Res any](mux *http.ServeMux, procedure string, name protoreflect.Name, do func(context.Context, *Req) (*Res, error), options []connect.HandlerOption) {
	mux.Handle(procedure, unaryHandler(procedure, name, do, connect.WithIdempotency(connect.IdempotencyNoSideEffects), connect.WithHandlerOptions(options...)))
}

// unaryHandler is one method with one answer.
func unaryHandler[Req, Res any](procedure string, name protoreflect.Name, do func(context.Context, *Req) (*Res, error), options ...connect.HandlerOption) http.Handler {
	return connect.NewUnaryHandlerSimple(procedure, func(ctx context.Context, req *Req) (*Res, error) {
		res, err := do(ctx, req)
		if err != nil {
			return nil, connectError(err)
		}
		return res, nil
	}, connect.WithSchema(schemaOf(name)), connect.WithHandlerOptions(options...))
}

func schemaOf(method protoreflect.Name) protoreflect.MethodDescriptor {
	return pb.File_tidemark_v1_view_proto.Services().ByName("View").Methods().ByName(method)
}

// connectError is an error as the RPC protocols send it.
func connectError(err error) *connect.Error {
	f := failureOf(err)
	out := connect.NewError(f.code, errors.New(f.message))
	if f.code == connect.CodeUnavailable || f.code == connect.CodeResourceExhausted {
		out.Meta().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if f.asOf != nil {
		addDetail(out, &pb.Freshness{}, f.asOf.appendProto(nil, true))
	}
	if f.produced != nil {
		addDetail(out, &pb.ProduceResponse{}, f.produced.appendProto(nil))
	}
	return out
}

// detailBytesMax is the largest detail of an error: gRPC sends them in a trailer, of which some clients take 8 KiB in all.
const detailBytesMax = 4 << 10

// addDetail adds a message to an error, if it is not too large.
func addDetail(err *connect.Error, m proto.Message, written []byte) {
	if len(written) > detailBytesMax {
		return
	}
	if err := proto.Unmarshal(written, m); err != nil {
		panic(err) // it was written a line before
	}
	if detail, fault := connect.NewErrorDetail(m); fault == nil {
		err.AddDetail(detail)
	}
}

// protoCodec is Protobuf's encoding: answers write themselves.
type protoCodec struct{}

func (protoCodec) Name() string { return "proto" }

func (c protoCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend lets Connect use its own buffers.
func (protoCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	switch m := message.(type) {
	case answer:
		return m.appendProto(dst), nil
	case proto.Message:
		return proto.MarshalOptions{}.MarshalAppend(dst, m)
	}
	return nil, fmt.Errorf("%T is no message", message)
}

func (protoCodec) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", message)
	}
	return proto.Unmarshal(data, m)
}

// jsonCodec is the proto3 mapping with the names of view.proto. A field that is not known is refused: a misspelt max_age
// must not be passed over.
type jsonCodec struct{ name string }

func (c jsonCodec) Name() string { return c.name }

func (c jsonCodec) Marshal(message any) ([]byte, error) { return c.MarshalAppend(nil, message) }

// MarshalAppend lets Connect use its own buffers.
func (jsonCodec) MarshalAppend(dst []byte, message any) ([]byte, error) {
	switch m := message.(type) {
	case answer:
		return m.appendJSON(dst), nil
	case proto.Message:
		b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
		if err != nil {
			return nil, err
		}
		out := bytes.NewBuffer(dst)
		err = json.Compact(out, b) // protojson puts in spaces at random
		return out.Bytes(), err
	}
	return nil, fmt.Errorf("%T is no message", message)
}

func (jsonCodec) Unmarshal(data []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", message)
	}
	if len(data) == 0 {
		return errors.New("an empty body is no JSON object")
	}
	return protojson.Unmarshal(data, m)
}

// health answers gRPC's health checks as /readyz does.
type health struct{ view *View }

// Check implements grpchealth.Checker.
func (h health) Check(_ context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if req.Service != "" && req.Service != tidemarkv1connect.ViewName {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no such service: %q; this is %s", req.Service, tidemarkv1connect.ViewName))
	}
	if h.view.Ready() != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
