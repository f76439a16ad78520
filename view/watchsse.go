package view

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

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
	q := WatchRequest{ID: given.Get("id"), Prefix: given.Get("prefix"), Flag: given.Get("flag"), From: given.Get("from"), Client: r.RemoteAddr}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		q.Client = host
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		q.From = last
	}
	watcher, err := v.Watch(q)
	if err != nil {
		var many *TooMany
		if errors.As(err, &many) {
			w.Header().Set("Retry-After", "1")
		}
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
		v.stream(w, r, watcher)
	}
	return nil
}

// stream writes until the watch or the client has ended.
func (v *View) stream(w http.ResponseWriter, r *http.Request, watcher *Watcher) {
	out := http.NewResponseController(w)
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
		// Where the writer knows no deadlines, the server has its own.
		_ = out.SetWriteDeadline(time.Now().Add(v.cfg.Watch.WriteTimeout))
		if _, err := w.Write(buf); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		buf = buf[:0]
	}
}

// appendSSE makes one server-sent event. Its data is the JSON of the event in the service's definition.
func appendSSE(e *Event) []byte {
	var b []byte
	switch e.Kind {
	case Changed:
		b = append(append(b, "id: "...), e.Place()...)
		b = e.Change.appendJSON(append(b, "\nevent: change\ndata: "...))
	case Heartbeat:
		b = append(append(b, "id: "...), e.Place()...)
		b = appendAges(append(b, "\nevent: heartbeat\ndata: {"...), e.Age, e.TableAge)
		b = append(b, '}')
	case Reset:
		if e.Gone() {
			b = append(b, "id: "+placeNow+"\n"...)
		}
		b = codecs.AppendJSONString(append(b, "event: reset\ndata: {\"reason\":"...), e.Reason)
		b = append(b, '}')
	}
	return append(b, '\n', '\n')
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
