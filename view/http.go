package view

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// Handler serves the view: REST as below, and gRPC, gRPC-Web and Connect with reflection and health under their own paths.
//
//	GET /v1/ids/{id}            one state; the ID is percent-encoded bytes; ETag and If-None-Match
//	POST /v1/ids:batchGet       states in the order asked
//	GET /v1/ids                 states in byte order of the ID: prefix, limit, page_token
//	GET /v1/flags/{flag}/ids    states that bear a flag: limit, page_token
//	POST /v1/events             events into the job's input: one, or one a line (partial)
//	GET /v1/status              how the view stands
//	GET /healthz, /readyz       it lives; it is complete
//	GET /openapi.json, /        what this is, for programs and for people
//
// The first four take at_least=TOKEN, wait=DURATION and max_age=DURATION. Bodies are the proto3 mapping of view.proto.
// Errors have one shape: code, message, details.
//
// Clients that speak gRPC without TLS need a server that takes HTTP/2 so (http.Protocols.SetUnencryptedHTTP2).
func (v *View) Handler() http.Handler {
	routes := map[string]http.Handler{
		"/v1/ids":       get(v.serveList),
		BatchPath:       method(v.serveBatch, http.MethodPost),
		"/v1/watch":     get(v.serveWatch),
		"/v1/events":    method(v.serveEvents, http.MethodPost),
		"/v1/status":    get(v.serveStatus),
		"/healthz":      get(serveHealth),
		"/readyz":       get(v.serveReady),
		"/openapi.json": get(serveOpenAPI),
		"/":             get(servePage),
	}
	rpc, one, flag := v.rpc(), get(v.serveID), get(v.serveFlag)
	return traced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// IDs may hold slashes and dots, so this is no http.ServeMux, which cleans paths.
		path := r.URL.EscapedPath()
		if strings.HasPrefix(path, IDPath) {
			one.ServeHTTP(w, r)
		} else if h := routes[path]; h != nil {
			h.ServeHTTP(w, r)
		} else if strings.HasPrefix(path, flagPath) && strings.HasSuffix(path, flagEnd) && len(path) >= len(flagPath+flagEnd) {
			flag.ServeHTTP(w, r)
		} else if IsRPC(path) {
			rpc.ServeHTTP(w, r)
		} else {
			fail(w, notFound("no such path: "+strconv.QuoteToASCII(r.URL.Path)))
		}
	}), v.cfg.Spans)
}

// IDPath begins the path of a Get, and BatchPath is that of a BatchGet.
const (
	IDPath    = "/v1/ids/"
	BatchPath = "/v1/ids:batchGet"
)

// Parts of paths that hold something.
const (
	flagPath = "/v1/flags/"
	flagEnd  = "/ids"
)

// serving answers a request, or gives the error to answer with and writes nothing.
type serving func(http.ResponseWriter, *http.Request) error

func get(serve serving) http.Handler { return method(serve, http.MethodGet, http.MethodHead) }

// method refuses other methods.
func method(serve serving, allowed ...string) http.Handler {
	allow := strings.Join(allowed, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(allowed, r.Method) {
			w.Header().Set("Allow", allow)
			fail(w, notAllowed(r.Method+" is not allowed here"))
			return
		}
		if err := serve(w, r); err != nil {
			fail(w, err)
		}
	})
}

func (v *View) serveID(w http.ResponseWriter, r *http.Request) error {
	id, err := url.PathUnescape(r.URL.EscapedPath()[len(IDPath):])
	if err != nil {
		return &Invalid{"the ID in the path is not percent-encoded: " + err.Error()}
	}
	req := &pb.GetRequest{Id: id}
	if r.URL.RawQuery != "" {
		q, err := query(r, "at_least", "wait", "max_age")
		if err != nil {
			return err
		}
		if req.AtLeast, req.Wait, req.MaxAge, err = q.read(); err != nil {
			return err
		}
	}
	body := bodies.Get().(*body)
	defer body.done()
	version := uint64(0)
	if body.text, version, err = v.oneText(r.Context(), req, body.text); err != nil {
		return err
	}
	tag := v.etag(version)
	w.Header()["Etag"] = []string{tag}
	if none := r.Header.Get("If-None-Match"); none != "" && matches(none, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	send(w, http.StatusOK, body.text)
	return nil
}

// body is memory for an answer.
type body struct{ text []byte }

var bodies = sync.Pool{New: func() any { return &body{make([]byte, 0, 1024)} }}

// done gives the memory back after it was sent, unless it has become large.
func (b *body) done() {
	if b.text = b.text[:0]; cap(b.text) <= bodyKeptBytes {
		bodies.Put(b)
	}
}

const bodyKeptBytes = 256 << 10

// etag is generation and version: what is equal in both is the same state.
func (v *View) etag(version uint64) string {
	b := strconv.AppendUint(append(make([]byte, 0, 32), '"'), uint64(v.generation()), 10)
	return string(append(strconv.AppendUint(append(b, '-'), version, 10), '"'))
}

// matches is If-None-Match of RFC 9110, 13.1.2: a list of tags, or a star.
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}

func (v *View) serveBatch(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	if given := r.Header.Get("Content-Type"); given != "" && given != "application/json" {
		if media, _, err := mime.ParseMediaType(given); err != nil || media != "application/json" {
			return &Invalid{"the body is application/json, got " + strconv.QuoteToASCII(given)}
		}
	}
	sent, err := io.ReadAll(http.MaxBytesReader(w, r.Body, requestBytesMax))
	if err != nil {
		return &Invalid{"the body cannot be read: " + err.Error()}
	}
	req := &pb.BatchGetRequest{}
	if req.Ids = plainIDs(sent); req.Ids == nil {
		if err := (jsonCodec{}).Unmarshal(sent, req); err != nil {
			return &Invalid{"the body is no BatchGetRequest: " + err.Error()}
		}
	}
	body := bodies.Get().(*body)
	defer body.done()
	if body.text, err = v.batchText(r.Context(), req, body.text); err != nil {
		return err
	}
	send(w, http.StatusOK, body.text)
	return nil
}

// NamesMaxAgeAlone tells of a Get's query whether it has nothing but max_age, so that the answer waits for nothing. It may be
// false where that is so.
func NamesMaxAgeAlone(query string) bool {
	age, ok := strings.CutPrefix(query, "max_age=")
	return ok && !strings.ContainsAny(age, "&;%")
}

// NamesIDsAlone tells of a BatchGet's body whether it has nothing but IDs, so that the answer waits for nothing. It may be false
// where that is so.
func NamesIDsAlone(sent []byte) bool {
	ids, begins := bytes.CutPrefix(sent, idsBegin)
	return begins && bytes.HasSuffix(ids, idsEnd) && bytes.Index(ids, idsEnd[:2]) == len(ids)-len(idsEnd)
}

var idsBegin, idsEnd = []byte(`{"ids":["`), []byte(`"]}`)

// plainIDs reads {"ids":["…"]} where that is all, without spaces and without anything escaped, which takes a tenth of the
// time of the general way; nil where it is not.
func plainIDs(sent []byte) []string {
	if !NamesIDsAlone(sent) || !utf8.Valid(sent) {
		return nil
	}
	ids := strings.Split(string(sent[len(idsBegin):len(sent)-len(idsEnd)]), `","`)
	for _, id := range ids {
		for i := range len(id) {
			if c := id[i]; c < ' ' || c == '"' || c == '\\' {
				return nil
			}
		}
	}
	return ids
}

func (v *View) serveList(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "prefix", "limit", "page_token", "at_least", "wait", "max_age")
	if err != nil {
		return err
	}
	req := &pb.ListRequest{Prefix: q.Get("prefix"), PageToken: q.Get("page_token")}
	if req.Limit, err = q.limit(); err != nil {
		return err
	}
	if req.AtLeast, req.Wait, req.MaxAge, err = q.read(); err != nil {
		return err
	}
	return reply(w)(v.list(r.Context(), req))
}

func (v *View) serveFlag(w http.ResponseWriter, r *http.Request) error {
	path := r.URL.EscapedPath()
	flag, err := url.PathUnescape(path[len(flagPath) : len(path)-len(flagEnd)])
	if err != nil {
		return &Invalid{"the flag in the path is not percent-encoded: " + err.Error()}
	}
	q, err := query(r, "limit", "page_token", "at_least", "wait", "max_age")
	if err != nil {
		return err
	}
	req := &pb.ListByFlagRequest{Flag: flag, PageToken: q.Get("page_token")}
	if req.Limit, err = q.limit(); err != nil {
		return err
	}
	if req.AtLeast, req.Wait, req.MaxAge, err = q.read(); err != nil {
		return err
	}
	return reply(w)(v.listByFlag(r.Context(), req))
}

func (v *View) serveStatus(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	b, err := jsonCodec{}.Marshal(v.status())
	if err != nil {
		return err
	}
	send(w, http.StatusOK, b)
	return nil
}

func serveHealth(w http.ResponseWriter, _ *http.Request) error {
	send(w, http.StatusOK, []byte(`{"status":"ok"}`))
	return nil
}

func (v *View) serveReady(w http.ResponseWriter, _ *http.Request) error {
	if err := v.Ready(); err != nil {
		return err
	}
	send(w, http.StatusOK, []byte(`{"status":"ready"}`))
	return nil
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	send(w, http.StatusOK, pb.OpenAPI)
	return nil
}

// reply sends what a read gave.
func reply(w http.ResponseWriter) func(answer, error) error {
	return func(a answer, err error) error {
		if err != nil {
			return err
		}
		send(w, http.StatusOK, a.appendJSON(nil))
		return nil
	}
}

// Values of headers, which nobody changes.
var (
	typeJSON = []string{"application/json"}
	noCache  = []string{"no-cache"}
	noSniff  = []string{"nosniff"}
)

func send(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = typeJSON, noCache, noSniff
	h["Content-Length"] = []string{strconv.Itoa(len(body) + 1)}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a caller who has gone hears nothing
}

// params are what a request says in its query.
type params struct{ url.Values }

// query reads the parameters that are allowed here. Any other is refused: a wrong name must not be passed over.
func query(r *http.Request, allowed ...string) (params, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return params{}, &Invalid{"the query cannot be read: " + err.Error()}
	}
	for name, all := range values {
		if !slices.Contains(allowed, name) {
			return params{}, &Invalid{fmt.Sprintf("unknown parameter %s; known here: %s", strconv.QuoteToASCII(name), strings.Join(allowed, ", "))}
		}
		if len(all) != 1 {
			return params{}, &Invalid{"parameter " + name + " is given more than once"}
		}
	}
	return params{values}, nil
}

// read gives what all reads may ask.
func (q params) read() (atLeast string, wait, maxAge *durationpb.Duration, err error) {
	if wait, err = q.duration("wait"); err == nil {
		maxAge, err = q.duration("max_age")
	}
	return q.Get("at_least"), wait, maxAge, err
}

// durationForm is a number and one unit, of which the form of Protobuf's JSON is one.
var durationForm = regexp.MustCompile(`^[0-9]{1,6}(\.[0-9]{1,9})?(ms|s|m|h)$`)

func (q params) duration(name string) (*durationpb.Duration, error) {
	if !q.Has(name) {
		return nil, nil
	}
	d, err := time.ParseDuration(q.Get(name))
	if err != nil || !durationForm.MatchString(q.Get(name)) {
		return nil, &Invalid{fmt.Sprintf("%s is a duration such as 500ms or 10s, got %s", name, strconv.QuoteToASCII(q.Get(name)))}
	}
	return durationpb.New(d), nil
}

func (q params) limit() (*int32, error) {
	if !q.Has("limit") {
		return nil, nil
	}
	n, err := strconv.ParseInt(q.Get("limit"), 10, 32)
	if err != nil {
		return nil, &Invalid{fmt.Sprintf("limit is a number from 1 to %d, got %s", limitMax, strconv.QuoteToASCII(q.Get("limit")))}
	}
	limit := int32(n)
	return &limit, nil
}

// bool reads a switch; it is off where it is absent.
func (q params) bool(name string) (bool, error) {
	switch given := q.Get(name); given {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "":
		if !q.Has(name) {
			return false, nil
		}
	}
	return false, &Invalid{fmt.Sprintf("%s is true or false, got %s", name, strconv.QuoteToASCII(q.Get(name)))}
}
