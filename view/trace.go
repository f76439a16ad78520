package view

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// scope names the instrumentation.
const scope = "github.com/tidemark/tidemark/view"

// w3c is how a trace goes from one program to the next.
var w3c = propagation.TraceContext{}

// traced makes a span of each request, as the child of its caller's. IDs stay here: a span has the route and not the path. What
// never ends or is asked every few seconds has no span.
func traced(h http.Handler, spans trace.TracerProvider) http.Handler {
	if spans == nil {
		return h
	}
	tracer := spans.Tracer(scope)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := routeOf(r.URL)
		switch route {
		case "/v1/watch", "/tidemark.v1.View/Watch", "/healthz", "/readyz", "/metrics", "/grpc.health.v1.Health/Check":
			h.ServeHTTP(w, r)
			return
		}
		ctx := w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, r.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route)))
		defer span.End()
		if !span.IsRecording() {
			h.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		s := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(s, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", s.status))
		if s.status >= 500 {
			span.SetStatus(codes.Error, http.StatusText(s.status))
		}
	})
}

// routes are those of REST that are paths.
var routes = map[string]bool{
	"/v1/ids": true, "/v1/ids:batchGet": true, "/v1/watch": true, "/v1/events": true, "/v1/status": true,
	"/healthz": true, "/readyz": true, "/metrics": true, "/openapi.json": true, "/": true,
}

// procedures are the paths of RPC.
var procedures = func() map[string]bool {
	all := map[string]bool{"/grpc.health.v1.Health/Check": true}
	methods := pb.File_tidemark_v1_view_proto.Services().ByName("View").Methods()
	for i := range methods.Len() {
		all["/"+tidemarkv1connect.ViewName+"/"+string(methods.Get(i).Name())] = true
	}
	return all
}()

// routeOf is the pattern that a path follows: without the ID or flag in it, and of paths that are not there "other".
func routeOf(u *url.URL) string {
	path := u.EscapedPath()
	switch {
	case routes[path]:
		return path
	case strings.HasPrefix(path, IDPath):
		return "/v1/ids/{id}"
	case strings.HasPrefix(path, flagPath) && strings.HasSuffix(path, flagEnd) && len(path) >= len(flagPath+flagEnd):
		return "/v1/flags/{flag}/ids"
	case procedures[path]:
		return path
	}
	return "other"
}

// statusWriter keeps the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find the server's own writer.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Flush implements http.Flusher, for the protocols that ask for it by type.
func (s *statusWriter) Flush() { _ = http.NewResponseController(s.ResponseWriter).Flush() }

// continued gives a request whose context has the trace of its caller, whether or not this process makes spans: events carry it
// on.
func continued(r *http.Request) *http.Request {
	if r.Header.Get("Traceparent") == "" || trace.SpanContextFromContext(r.Context()).IsValid() {
		return r
	}
	return r.WithContext(w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header)))
}

// waiting makes a span, where the request has one, of the time until an event of the input is visible.
func waiting(ctx context.Context, at named, until func() error) error {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return until()
	}
	_, span := parent.TracerProvider().Tracer(scope).Start(ctx, "wait until visible", trace.WithAttributes(
		attribute.Int("messaging.destination.partition.id", int(at.partition)), attribute.Int64("messaging.kafka.offset", at.offset)))
	defer span.End()
	err := until()
	if err != nil {
		span.SetStatus(codes.Error, failureOf(err).code.String())
	}
	return err
}
