package chaos

import (
	"bytes"
	"net/http"
)

// loseEvery is of how many events of a watch a careless view loses one.
const loseEvery = 100

// careless makes a view that breaks two promises, for the controls: it overlooks what a read over REST names, and loses
// events of a watch over REST. Over RPC it keeps both.
func careless(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if query := r.URL.Query(); query.Has("at_least") {
			query.Del("at_least")
			r.URL.RawQuery = query.Encode()
		}
		if r.URL.Path == "/v1/watch" {
			w = &losingEvents{ResponseWriter: w}
		}
		h.ServeHTTP(w, r)
	})
}

// losingEvents is a stream of server-sent events, which are written whole, that some get lost of.
type losingEvents struct {
	http.ResponseWriter
	changes int
}

func (w *losingEvents) Write(b []byte) (int, error) {
	var kept []byte
	for event := range bytes.SplitAfterSeq(b, []byte("\n\n")) {
		if bytes.Contains(event, []byte("event: change\n")) {
			if w.changes++; w.changes%loseEvery == 0 {
				continue
			}
		}
		kept = append(kept, event...)
	}
	_, err := w.ResponseWriter.Write(kept)
	return len(b), err
}

// Unwrap lets http.ResponseController find the server's own writer.
func (w *losingEvents) Unwrap() http.ResponseWriter { return w.ResponseWriter }
