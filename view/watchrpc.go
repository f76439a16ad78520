package view

import (
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/codecs"
	"github.com/tidemark/tidemark/internal/wire"
	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// watchAnswer is a WatchResponse. What many watchers are told is written once for all of them.
type watchAnswer struct{ event *Event }

func (a *watchAnswer) appendJSON(dst []byte) []byte {
	return append(dst, a.event.Encoded(FormJSON, func(e *Event) []byte {
		b := append(append([]byte(`{"place":"`), e.resume()...), `","`...)
		b = append(append(b, e.name()...), `":`...)
		return append(e.appendData(b), '}')
	})...)
}

func (a *watchAnswer) appendProto(dst []byte) []byte {
	return append(dst, a.event.Encoded(FormProto, func(e *Event) []byte {
		b := wire.AppendText(nil, 1, e.resume())
		switch e.Kind {
		case Changed:
			b = wire.AppendMessage(b, 2, e.Change.appendProto)
		case Heartbeat:
			b = wire.AppendMessage(b, 3, e.appendProtoHeartbeat)
		case Reset:
			b = wire.AppendMessage(b, 4, func(b []byte) []byte { return wire.AppendText(b, 1, e.Reason) })
		}
		return b
	})...)
}

func (e *Event) appendProtoHeartbeat(dst []byte) []byte {
	dst = appendProtoAges(dst, 1, e.Age, e.TableAge)
	for i := range e.AsOf {
		dst = wire.AppendMessage(dst, 3, func(b []byte) []byte { return e.AsOf[i].appendProto(b, false) })
	}
	return dst
}

func (c *Change) appendProto(dst []byte) []byte {
	dst = wire.AppendText(dst, 1, c.ID)
	var s codecs.State
	if err := c.State(&s); err == nil { // else it was deleted
		dst = appendState(dst, 2, c.ID, &s, c.schema)
	}
	return wire.AppendMessage(dst, 3, func(b []byte) []byte { return c.AsOf.appendProto(b, false) })
}

// watchRPC serves a watch as a stream of answers, which ends with a reset.
func (v *View) watchRPC(ctx context.Context, req *connect.Request[pb.WatchRequest], out *connect.ServerStream[watchAnswer]) error {
	m := req.Msg
	watcher, err := v.Watch(WatchRequest{ID: m.Id, Prefix: m.Prefix, Flag: m.Flag, From: m.From, Client: clientOf(ctx, req.Peer().Addr)})
	if err != nil {
		return connectError(err)
	}
	defer watcher.Close()
	if s, ok := ctx.Value(streamKey{}).(*streamWriter); ok {
		s.begin()
	}
	for events := []Event(nil); ; clear(events) { // so that what was told can be freed
		events, err = watcher.Next(ctx, events[:0])
		if errors.Is(err, ErrWatchEnded) {
			return nil
		} else if err != nil {
			return connectError(err)
		}
		for i := range events {
			if err := out.Send(&watchAnswer{&events[i]}); err != nil {
				return err
			}
		}
	}
}

// streaming bounds each write of a stream, which has no end, in place of the whole answer.
func (v *View) streaming(w http.ResponseWriter) *streamWriter {
	return &streamWriter{ResponseWriter: w, control: http.NewResponseController(w), each: v.cfg.Watch.WriteTimeout}
}

// streamKey is where the context of an RPC has its streamWriter.
type streamKey struct{}

// begin lifts the server's deadline for the request. Before the request was read whole, it holds: else half a request would
// be a connection for ever, which counts as no watcher. Where the writer knows no deadlines, there are none to lift.
func (s *streamWriter) begin() { _ = s.control.SetReadDeadline(time.Time{}) }

type streamWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	each    time.Duration
}

func (s *streamWriter) Write(b []byte) (int, error) {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.each))
	return s.ResponseWriter.Write(b)
}

// Flush implements http.Flusher; a failure is met by the next Write.
func (s *streamWriter) Flush() { _ = s.FlushError() }

// FlushError is what http.ResponseController calls.
func (s *streamWriter) FlushError() error {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.each))
	return s.control.Flush()
}

// Unwrap lets http.ResponseController find the server's own writer.
func (s *streamWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
