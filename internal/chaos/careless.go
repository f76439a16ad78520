package chaos

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// loseEvery is of how many events of a watch a careless view loses one.
const loseEvery = 100

// careless makes a view that breaks two promises, for the controls: it overlooks what a read names, over each transport, and loses
// events of a watch over REST.
func careless(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if query := r.URL.Query(); query.Has("at_least") {
			query.Del("at_least")
			r.URL.RawQuery = query.Encode()
		}
		overlook(r)
		if r.URL.Path == "/v1/watch" {
			w = &losingEvents{ResponseWriter: w}
		}
		h.ServeHTTP(w, r)
	})
}

// overlook takes what a read names out of its message. What cannot be read is left to the view to refuse.
func overlook(r *http.Request) {
	m := map[string]proto.Message{
		tidemarkv1connect.ViewGetProcedure: &pb.GetRequest{}, tidemarkv1connect.ViewBatchGetProcedure: &pb.BatchGetRequest{},
		tidemarkv1connect.ViewListProcedure: &pb.ListRequest{}, "/v1/ids:batchGet": &pb.BatchGetRequest{},
	}[r.URL.Path]
	if m == nil || r.Method != http.MethodPost {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	head, unmarshal, marshal := 0, proto.Unmarshal, proto.Marshal
	switch kind := r.Header.Get("Content-Type"); {
	case strings.HasPrefix(kind, "application/grpc"):
		head = 5 // not compressed, and the size
	case strings.HasPrefix(kind, "application/json"):
		unmarshal, marshal = protojson.Unmarshal, protojson.Marshal
	}
	if len(body) >= head && unmarshal(body[head:], m) == nil {
		named := m.ProtoReflect().Descriptor().Fields().ByName("at_least")
		m.ProtoReflect().Clear(named)
		if rest, err := marshal(m); err == nil {
			body = append(body[:head:head], rest...)
		}
		if head > 0 {
			binary.BigEndian.PutUint32(body[1:], uint32(len(body)-head))
		}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
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
