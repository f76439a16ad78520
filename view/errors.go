package view

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/codecs"
)

// ErrNotFound says that no event of the ID was counted, as of the answer's position.
var ErrNotFound = errors.New("not found")

// Unavailable says that the view cannot answer now without guessing.
type Unavailable struct{ Why string }

func (u *Unavailable) Error() string { return "not ready: " + u.Why }

// TooOld says that the answer is older than the read accepts, or that its age is not known, and as of when it is.
type TooOld struct {
	What string
	AsOf AsOf // of the oldest partition that was asked
}

func (o *TooOld) Error() string { return o.Unwrap().Error() }

// Unwrap tells that it is an Unavailable too.
func (o *TooOld) Unwrap() error { return &Unavailable{o.What} }

// Elsewhere says that an event that a read named lies on a partition on which nothing that is asked for lives, and as of when
// that partition is.
type Elsewhere struct {
	What string
	AsOf AsOf
}

func (e *Elsewhere) Error() string { return e.What }

// Unwrap tells that it is an Invalid too.
func (e *Elsewhere) Unwrap() error { return &Invalid{e.What} }

// Invalid says what is wrong with a request.
type Invalid struct{ What string }

func (i *Invalid) Error() string { return i.What }

// Late says that an event that a read named was not covered in time, and as of when the partition is.
type Late struct {
	What string
	AsOf AsOf
}

func (l *Late) Error() string { return l.What }

// Gone says that what a token names is no more.
type Gone struct{ What string }

func (g *Gone) Error() string { return g.What }

// outcomes is the one table of what errors are over HTTP and RPC. Their codes are named alike.
var outcomes = map[connect.Code]int{
	connect.CodeInvalidArgument:    http.StatusBadRequest,
	connect.CodeUnauthenticated:    http.StatusUnauthorized,
	connect.CodePermissionDenied:   http.StatusForbidden,
	connect.CodeNotFound:           http.StatusNotFound,
	connect.CodeUnimplemented:      http.StatusMethodNotAllowed,
	connect.CodeFailedPrecondition: http.StatusGone,
	connect.CodeResourceExhausted:  http.StatusTooManyRequests,
	connect.CodeUnavailable:        http.StatusServiceUnavailable,
	connect.CodeDeadlineExceeded:   http.StatusGatewayTimeout,
	connect.CodeUnknown:            http.StatusGatewayTimeout,
	connect.CodeCanceled:           499, // nobody hears it
	connect.CodeInternal:           http.StatusInternalServerError,
}

// failure is an error as it is sent: one shape, whatever the transport.
type failure struct {
	code     connect.Code
	message  string
	asOf     *AsOf           // as of when, among the details
	produced *producedAnswer // what became of each event, among the details
}

func (f *failure) Error() string { return f.message }

func notFound(what string) error { return &failure{code: connect.CodeNotFound, message: what} }

func notAllowed(what string) error { return &failure{code: connect.CodeUnimplemented, message: what} }

func failureOf(err error) *failure {
	var (
		f           *failure
		invalid     *Invalid
		unavailable *Unavailable
		old         *TooOld
		elsewhere   *Elsewhere
		late        *Late
		gone        *Gone
		tooMany     *TooMany
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &old):
		return &failure{code: connect.CodeUnavailable, message: err.Error(), asOf: &old.AsOf}
	case errors.As(err, &elsewhere):
		return &failure{code: connect.CodeInvalidArgument, message: err.Error(), asOf: &elsewhere.AsOf}
	case errors.As(err, &invalid):
		return newFailure(connect.CodeInvalidArgument, err)
	case errors.As(err, &unavailable), errors.Is(err, errStopped):
		return newFailure(connect.CodeUnavailable, err)
	case errors.As(err, &late):
		f = newFailure(connect.CodeDeadlineExceeded, err)
		f.asOf = &late.AsOf
		return f
	case errors.As(err, &tooMany):
		return newFailure(connect.CodeResourceExhausted, err)
	case errors.As(err, &gone):
		return newFailure(connect.CodeFailedPrecondition, err)
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{code: connect.CodeDeadlineExceeded, message: "the caller's deadline passed"}
	case errors.Is(err, context.Canceled):
		return &failure{code: connect.CodeCanceled, message: "the caller has gone"}
	}
	return newFailure(connect.CodeInternal, err)
}

// newFailure makes the message text: what it quotes of a request may be any bytes, and JSON and Protobuf take UTF-8 alone.
func newFailure(code connect.Code, err error) *failure {
	return &failure{code: code, message: strings.ToValidUTF8(err.Error(), "\ufffd")}
}

// appendJSON appends the error as Connect does, so that one reader of errors is enough for both.
func (f *failure) appendJSON(dst []byte) []byte {
	dst = append(append(append(dst, `{"code":"`...), f.code.String()...), `","message":`...)
	dst = append(codecs.AppendJSONString(dst, f.message), `,"details":[`...)
	if f.asOf != nil {
		dst = append(dst, `{"type":"tidemark.v1.Freshness","value":"`...)
		dst = base64.RawStdEncoding.AppendEncode(dst, f.asOf.appendProto(nil, true))
		dst = append(f.asOf.appendJSON(append(dst, `","debug":`...), true), '}')
	}
	if f.produced != nil {
		dst = append(dst, `{"type":"tidemark.v1.ProduceResponse","value":"`...)
		dst = base64.RawStdEncoding.AppendEncode(dst, f.produced.appendProto(nil))
		dst = append(f.produced.appendJSON(append(dst, `","debug":`...)), '}')
	}
	return append(dst, `]}`...)
}

// fail answers an HTTP request with an error.
func fail(w http.ResponseWriter, err error) {
	f := failureOf(err)
	if f.code == connect.CodeUnavailable || f.code == connect.CodeResourceExhausted {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	send(w, outcomes[f.code], f.appendJSON(nil))
}

// retryAfter is when it is worth asking a view again that is not ready, in seconds.
const retryAfter = 1
