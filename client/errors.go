package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// What can go wrong, for errors.Is. An *Error is one of these, and says more.
var (
	// ErrNotFound says that no event of the ID was counted, as of Error.AsOf.
	ErrNotFound = errors.New("not found")
	// ErrNotReady says that the view is not complete, and so does not answer.
	ErrNotReady = errors.New("not ready")
	// ErrTooOld says that the answer is older than MaxAge, or of an age that is not known.
	ErrTooOld = errors.New("too old")
	// ErrLate says that the event of AtLeast was not applied or refused in time; Error.AsOf says how far the partition is.
	ErrLate = errors.New("late")
	// ErrWrongPartition says that an event of AtLeast lies on a partition on which nothing that was asked for lives: its
	// producer places keys otherwise than Kafka's default partitioner does.
	ErrWrongPartition = errors.New("wrong partition")
	// ErrGone says that a token is of a topic that is no more.
	ErrGone = errors.New("gone")
	// ErrRateLimited says that a limit is reached; Error.RetryAfter says when to ask again.
	ErrRateLimited = errors.New("rate limited")
	// ErrInvalid says that the request is wrong, and asking again will not help.
	ErrInvalid = errors.New("invalid")
	// ErrDenied says that the view does not know who asks, or that they may not; or that Config.Token gave no token, and nothing
	// was asked.
	ErrDenied = errors.New("denied")
	// ErrUnreachable says that no answer came.
	ErrUnreachable = errors.New("unreachable")
	// ErrInternal is a fault of the view.
	ErrInternal = errors.New("internal")
	// ErrNotWritten says of an event, or of all of a request, that it was not written, and may be sent again.
	ErrNotWritten = errors.New("not written")
	// ErrUnknown says of an event that it may have been written, or be written yet, or not; of a request, that an event of it was or
	// may be. To send it again may count twice.
	ErrUnknown = errors.New("outcome unknown")
)

// Error is why there is no answer. errors.Is tells it from others by what ErrNotFound and its like name, and by the error of
// the context where that has ended.
type Error struct {
	View string // that was asked last
	// Code is the service's, such as "not_found"; "" where no answer came.
	Code    string
	Message string
	// AsOf says as of when it is so, where that is known.
	AsOf *Freshness
	// RetryAfter is when it is worth asking again; 0: not said.
	RetryAfter time.Duration

	kind     error
	cause    error               // where no answer came
	produced *pb.ProduceResponse // of Produce: what the answer tells of the events one by one
}

func (e *Error) Error() string {
	what := "tidemark: " + e.kind.Error()
	if e.Message != "" {
		what += ": " + e.Message
	}
	if e.View != "" {
		what += " (" + e.View + ")"
	}
	return what
}

// Unwrap gives the kind, and the cause where no answer came.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

// lasting tells whether asking again will not mend it. That there is no token for once says nothing of the next time.
func (e *Error) lasting() bool {
	var none *noToken
	return e.kind == ErrInvalid || e.kind == ErrDenied && !errors.As(e.cause, &none)
}

// failureOf reads what a request to a view came back with.
func failureOf(ctx context.Context, v *endpoint, err error) *Error {
	out := &Error{View: v.url, Message: err.Error(), cause: err, kind: ErrUnreachable}
	var refused *noToken
	if errors.As(err, &refused) {
		out.kind = ErrDenied
		return out
	}
	if ended := ctx.Err(); ended != nil && !connect.IsWireError(err) {
		out.kind = ended
		return out
	}
	var answer *connect.Error
	if !errors.As(err, &answer) {
		return out
	}
	out.Message = answer.Message()
	out.RetryAfter = retryAfter(answer)
	if !connect.IsWireError(err) {
		// A proxy's refusal has no body that Connect knows, but a status.
		if kind := kinds[answer.Code()]; kind == ErrDenied || kind == ErrRateLimited {
			out.kind = kind
		}
		return out
	}
	out.cause, out.Code, out.AsOf = nil, answer.Code().String(), asOfOf(answer)
	out.kind, out.produced = kinds[answer.Code()], producedDetail(answer)
	switch {
	case out.kind == nil:
		out.kind = ErrInternal
	case out.kind == ErrNotReady && out.AsOf != nil:
		out.kind = ErrTooOld
	case out.kind == ErrInvalid && out.AsOf != nil:
		out.kind = ErrWrongPartition
	case out.kind == ErrLate && out.AsOf == nil: // the time of the attempt, of whose end the view heard first
		out.kind, out.cause = ErrUnreachable, context.DeadlineExceeded
	}
	return out
}

// kinds is what codes mean; docs/view.md has the table. What is not here is a fault of the view.
var kinds = map[connect.Code]error{
	connect.CodeInvalidArgument:    ErrInvalid,
	connect.CodeUnimplemented:      ErrInvalid,
	connect.CodeNotFound:           ErrNotFound,
	connect.CodeFailedPrecondition: ErrGone,
	connect.CodeUnauthenticated:    ErrDenied,
	connect.CodePermissionDenied:   ErrDenied,
	connect.CodeResourceExhausted:  ErrRateLimited,
	connect.CodeUnavailable:        ErrNotReady,
	connect.CodeDeadlineExceeded:   ErrLate,
}

func asOfOf(err *connect.Error) *Freshness {
	for _, d := range err.Details() {
		if d.Type() != "tidemark.v1.Freshness" {
			continue
		}
		m := &pb.Freshness{}
		if proto.Unmarshal(d.Bytes(), m) == nil {
			f := freshnessOf(m)
			return &f
		}
	}
	return nil
}

func retryAfter(err *connect.Error) time.Duration {
	seconds, convErr := strconv.ParseUint(err.Meta().Get("Retry-After"), 10, 31)
	if convErr != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

func invalidf(format string, args ...any) *Error {
	return &Error{kind: ErrInvalid, Message: fmt.Sprintf(format, args...)}
}
