package view

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/wire"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// Producer writes events into the job's input topic; package ingest has it. A view without one takes no events.
type Producer interface {
	// Admit takes bytes of a request into account, before they are kept. A *TooMany says that there is no room for them.
	// What was admitted is given back by Release.
	Admit(bytes int64) error
	Release(bytes int64)
	// Produce writes the events of one request, in order, and gives what became of each, in order. All are checked before
	// the first is written; where one is refused, none is written unless partial says so. An error says that nothing was
	// written. Once writing has begun it goes on though ctx ends. The events are the caller's again when it returns.
	Produce(ctx context.Context, events [][]byte, partial bool) ([]Produced, error)
}

// Produced is what became of one event: the token of one that was acknowledged, or why there is none.
type Produced struct {
	Token string
	// Code is 0 for an event that was acknowledged; else CodeInvalidArgument: the job would refuse it, for the reason that dead
	// letters would have; CodeAborted: not written, because of others; CodeUnavailable: not written; CodeUnknown: it may be written.
	Code            connect.Code
	Reason, Message string
}

// The largest request, and the most events in one: each costs an answer, however short it is.
const (
	produceBytesMax  = 1 << 20
	produceEventsMax = 10_000
)

// events are those of one request.
type events struct {
	list    [][]byte
	lines   []int32 // where they stand in the body; nil: one after the other
	partial bool
}

// produce writes events. Where one of them was not acknowledged, that is the error, unless the caller has asked to be told
// of each.
func (v *View) produce(ctx context.Context, e events) (*producedAnswer, error) {
	if v.cfg.Producer == nil {
		return nil, errNoProducer
	}
	size := 0
	for _, event := range e.list {
		size += len(event)
	}
	switch {
	case len(e.list) == 0:
		return nil, &Invalid{"there is no event in the request"}
	case len(e.list) > produceEventsMax:
		return nil, &Invalid{fmt.Sprintf("a request has at most %d events, got %d; nothing was written", produceEventsMax, len(e.list))}
	case size > produceBytesMax:
		return nil, &Invalid{fmt.Sprintf("the events of a request are at most %d bytes, got %d; nothing was written", produceBytesMax, size)}
	}
	results, err := v.cfg.Producer.Produce(ctx, e.list, e.partial)
	if err != nil {
		return nil, err
	}
	a := &producedAnswer{results, e.lines}
	if e.partial {
		return a, nil
	}
	if f := a.failure(); f != nil {
		return nil, f
	}
	return a, nil
}

var errNoProducer = notAllowed("this view takes no events; start it with --ingest if it is to")

// serveEvents is POST /v1/events.
func (v *View) serveEvents(w http.ResponseWriter, r *http.Request) error {
	producer := v.cfg.Producer
	if producer == nil {
		w.Header().Set("Allow", "")
		return errNoProducer
	}
	e := events{}
	q, err := query(r, "partial")
	if err != nil {
		return err
	}
	if e.partial, err = q.bool("partial"); err != nil {
		return err
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return &Invalid{"the body is not encoded, got Content-Encoding " + strconv.QuoteToASCII(encoding)}
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != mediaEvent && media != mediaEvents {
		// Named, or a page of another site could make a browser send events: these two it asks for first.
		return &Invalid{fmt.Sprintf("the body is %s (one event) or %s (one a line), and Content-Type says which; got %s", mediaEvent, mediaEvents, strconv.QuoteToASCII(r.Header.Get("Content-Type")))}
	}
	in := &admitted{ReadCloser: http.MaxBytesReader(w, r.Body, produceBytesMax), producer: producer}
	defer in.release()
	body, err := io.ReadAll(in)
	if full := (*TooMany)(nil); errors.As(err, &full) {
		return full
	} else if err != nil {
		return &Invalid{"the body cannot be read, and nothing was written: " + err.Error()}
	}
	if e.list, e.lines = [][]byte{body}, []int32{1}; media == mediaEvents {
		e.list, e.lines = lines(body)
	} else if blank(body) {
		e.list = nil
	}
	return reply(w)(v.produce(continued(r).Context(), e))
}

// The media types of a body.
const (
	mediaEvent  = "application/json"
	mediaEvents = "application/x-ndjson"
)

// lines gives the lines of a body without their ends, and their numbers from 1 on. Blank ones are passed over. One more than
// may be in a request is enough to refuse it.
func lines(body []byte) (list [][]byte, numbers []int32) {
	number := int32(0)
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		number++
		if line = bytes.TrimSuffix(line, []byte("\r")); blank(line) {
			continue
		}
		list, numbers = append(list, line), append(numbers, number)
		if len(list) > produceEventsMax {
			break
		}
	}
	return list, numbers
}

// blank tells whether there is nothing but what JSON takes for space.
func blank(text []byte) bool { return len(bytes.Trim(text, " \t\r\n")) == 0 }

// admitted is a body whose bytes the producer takes into account as they come: who has sent nothing yet takes no room.
type admitted struct {
	io.ReadCloser
	producer Producer
	ahead    int64 // to be taken into account with the first bytes
	bytes    int64
}

func (a *admitted) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	more := int64(n) + a.ahead
	if full := a.producer.Admit(more); full != nil {
		return 0, full
	}
	a.bytes, a.ahead = a.bytes+more, 0
	return n, err
}

func (a *admitted) release() { a.producer.Release(a.bytes) }

// produceRPC is the method Produce.
func (v *View) produceRPC(ctx context.Context, req *pb.ProduceRequest) (*producedAnswer, error) {
	return v.produce(ctx, events{list: req.Events, partial: req.Partial})
}

// admit puts the producer's account around an RPC whose protocol reads the body.
func (v *View) admit(rpc http.Handler) http.Handler {
	if v.cfg.Producer == nil {
		return rpc
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := &admitted{ReadCloser: r.Body, producer: v.cfg.Producer}
		defer in.release()
		for _, name := range []string{"Content-Encoding", "Connect-Content-Encoding", "Grpc-Encoding"} {
			if encoding := r.Header.Get(name); encoding != "" && encoding != "identity" {
				in.ahead = requestBytesMax // what it inflates to is not known before
			}
		}
		r = continued(r)
		r = r.WithContext(r.Context()) // the server looks at its own request's body for what is left of it
		r.Body = rpcBody{in}
		rpc.ServeHTTP(w, r)
	})
}

// rpcBody says in the protocols' way that there is no room.
type rpcBody struct{ *admitted }

func (b rpcBody) Read(p []byte) (int, error) {
	n, err := b.admitted.Read(p)
	if full := (*TooMany)(nil); errors.As(err, &full) {
		return n, connectError(full)
	}
	return n, err
}

// producedAnswer is a ProduceResponse.
type producedAnswer struct {
	results []Produced
	lines   []int32 // nil: the number of the event
}

func (a *producedAnswer) line(n int) int {
	if a.lines == nil {
		return n + 1
	}
	return int(a.lines[n])
}

func (a *producedAnswer) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"results":[`...)
	for n := range a.results {
		r := &a.results[n]
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(codecs.AppendJSONString(append(dst, `{"token":`...), r.Token), `,"error":`...)
		if r.Code == 0 {
			dst = append(dst, `null}`...)
			continue
		}
		dst = codecs.AppendJSONString(append(dst, `{"code":`...), r.Code.String())
		dst = codecs.AppendJSONString(append(dst, `,"message":`...), r.Message)
		dst = codecs.AppendJSONString(append(dst, `,"reason":`...), r.Reason)
		dst = append(strconv.AppendInt(append(dst, `,"line":`...), int64(a.line(n)), 10), `}}`...)
	}
	return append(dst, `]}`...)
}

func (a *producedAnswer) appendProto(dst []byte) []byte {
	for n := range a.results {
		r := &a.results[n]
		dst = wire.AppendMessage(dst, 1, func(b []byte) []byte {
			b = wire.AppendText(b, 1, r.Token)
			if r.Code == 0 {
				return b
			}
			return wire.AppendMessage(b, 2, func(b []byte) []byte {
				b = wire.AppendText(b, 1, r.Code.String())
				b = wire.AppendText(b, 2, r.Message)
				b = wire.AppendText(b, 3, r.Reason)
				return wire.AppendUint(b, 4, uint64(a.line(n)))
			})
		})
	}
	return dst
}

// failure is the error of a request in which an event was not acknowledged, nil where all were. Its code is one with which
// callers, and what stands between, may send the request again as it is only where none of it was written or may be.
func (a *producedAnswer) failure() error {
	is := func(code connect.Code) func(*Produced) bool { return func(r *Produced) bool { return r.Code == code } }
	lost := func(r *Produced) bool { return r.Code != 0 }
	has := func(kind func(*Produced) bool) bool {
		return slices.ContainsFunc(a.results, func(r Produced) bool { return kind(&r) })
	}
	switch {
	case !has(lost):
		return nil
	case has(is(connect.CodeUnknown)):
		return a.failureOf(connect.CodeUnknown, is(connect.CodeUnknown), "%s of %s may or may not have been written")
	case has(is(0)):
		return a.failureOf(connect.CodeUnknown, lost, "%s of %s were not written, and the others were; send no more than those again")
	case has(is(connect.CodeInvalidArgument)):
		return a.failureOf(connect.CodeInvalidArgument, is(connect.CodeInvalidArgument), "%s of %s would be refused by the job, and none was written")
	}
	return a.failureOf(connect.CodeUnavailable, lost, "%s of %s were not written")
}

// failureOf says of how many events something holds, and why it does of the first.
func (a *producedAnswer) failureOf(code connect.Code, kind func(*Produced) bool, what string) error {
	count, first := 0, 0
	for n := range a.results {
		if !kind(&a.results[n]) {
			continue
		}
		if count++; count == 1 {
			first = n
		}
	}
	why := a.results[first].Message
	if reason := a.results[first].Reason; reason != "" {
		why = reason + ": " + why
	}
	what = fmt.Sprintf(what, strconv.Itoa(count), countedEvents(len(a.results)))
	return &failure{code: code, message: fmt.Sprintf("%s; the first is at line %d: %s", what, a.line(first), why), produced: a}
}

func countedEvents(n int) string {
	if n == 1 {
		return "1 event"
	}
	return strconv.Itoa(n) + " events"
}
