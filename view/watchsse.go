package view

import (
	"fmt"
	"net/http"

	"github.com/tidemark/tidemark/codecs"
)

// retryMs is when a browser whose stream has ended asks again.
const retryMs = 1000

// serveWatch serves a watch as server-sent events: change, heartbeat and reset. The id of an event is its place, so that a
// browser resumes by itself; a Last-Event-ID goes before from. A reset because the place is gone has the id "now", which
// any view takes; after one because the watcher was slow the last id still holds. The stream ends with a reset.
func (v *View) serveWatch(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r, "id", "prefix", "flag", "from"); err != nil {
		return err
	}
	given := r.URL.Query()
	for _, name := range []string{"id", "flag"} {
		if given.Has(name) && given.Get(name) == "" {
			return &Invalid{name + " is empty"} // and would be everything
		}
	}
	q := WatchRequest{ID: given.Get("id"), Prefix: given.Get("prefix"), Flag: given.Get("flag"), From: given.Get("from"), Client: clientOf(r.Context(), r.RemoteAddr)}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		q.From = last
	}
	watcher, err := v.Watch(q)
	if err != nil {
		return err
	}
	defer watcher.Close()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // a proxy that gathers would hold events back
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		s := v.streaming(w)
		s.begin()
		v.stream(s, r, watcher)
	}
	return nil
}

// stream writes until the watch or the client has ended.
func (v *View) stream(w *streamWriter, r *http.Request, watcher *Watcher) {
	var events []Event
	buf := fmt.Appendf(nil, "retry: %d\n\n", retryMs)
	for {
		var err error
		if events, err = watcher.Next(r.Context(), events[:0]); err != nil {
			return
		}
		for i := range events {
			buf = append(buf, events[i].Encoded(FormSSE, appendSSE)...)
		}
		clear(events) // so that what was told can be freed
		if _, err := w.Write(buf); err != nil {
			return
		}
		if err := w.FlushError(); err != nil {
			return
		}
		buf = buf[:0]
	}
}

// appendSSE makes one server-sent event. Its data is the JSON of the event in the service's definition.
func appendSSE(e *Event) []byte {
	var b []byte
	if place := e.resume(); place != "" {
		b = append(append(append(b, "id: "...), place...), '\n')
	}
	b = append(append(append(b, "event: "...), e.name()...), "\ndata: "...)
	return append(e.appendData(b), "\n\n"...)
}

// resume is the place that a client goes on from by itself: its own after a reset because it was slow.
func (e *Event) resume() string {
	if e.Gone() {
		return placeNow
	}
	return e.Place()
}

// name is that of the event in the service's definition.
func (e *Event) name() string {
	switch e.Kind {
	case Changed:
		return "change"
	case Heartbeat:
		return "heartbeat"
	}
	return "reset"
}

// appendData appends the JSON of what is told.
func (e *Event) appendData(b []byte) []byte {
	switch e.Kind {
	case Changed:
		return e.Change.appendJSON(b)
	case Heartbeat:
		b = append(appendAges(append(b, '{'), e.Age, e.TableAge), `,"as_of":[`...)
		for i := range e.AsOf {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.AsOf[i].appendJSON(b, false)
		}
		return append(b, `]}`...)
	}
	return append(codecs.AppendJSONString(append(b, `{"reason":`...), e.Reason), '}')
}

// appendJSON appends the change; the state of an ID that was deleted is null.
func (c *Change) appendJSON(dst []byte) []byte {
	dst = codecs.AppendJSONString(append(dst, `{"id":`...), c.ID)
	dst = append(dst, `,"state":`...)
	var s codecs.State
	if err := c.State(&s); err != nil { // the hub has decoded it before
		dst = append(dst, `null`...)
	} else {
		dst = s.AppendJSON(dst, c.ID, c.schema)
	}
	dst = c.AsOf.appendJSON(append(dst, `,"as_of":`...), false)
	return append(dst, '}')
}
