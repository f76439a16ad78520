package view

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark/tidemark/codecs"
)

const (
	limitDefault = 100
	limitMax     = 1000
)

// Handler serves the view over HTTP: GET (and HEAD) of
//
//	/v1/ids/{id}            one state; the ID is percent-encoded bytes; ETag and If-None-Match
//	/v1/ids                 states in byte order of the ID: prefix, limit, page_token
//	/v1/flags/{flag}/ids    states that bear a flag: limit, page_token
//	/v1/status              how the view stands
//	/healthz, /readyz       it lives; it is complete
//
// The first three take max_age=DURATION: an answer that is older, or whose age is not known, is 503. Bodies are the proto3
// mapping of JSON. Errors have one shape: code, message, details.
func (v *View) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/ids", v.get(v.serveList))
	mux.HandleFunc("/v1/flags/{flag}/ids", v.get(v.serveFlag))
	mux.HandleFunc("/v1/watch", v.get(v.serveWatch))
	mux.HandleFunc("/v1/status", v.get(v.serveStatus))
	mux.HandleFunc("/healthz", v.get(serveHealth))
	mux.HandleFunc("/readyz", v.get(v.serveReady))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &failure{code: codeNotFound, message: fmt.Sprintf("no such path: %s", strconv.QuoteToASCII(r.URL.Path))})
	})
	one := v.get(v.serveID)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// IDs may hold slashes and dots: they do not go through the multiplexer, which cleans paths.
		if strings.HasPrefix(r.URL.EscapedPath(), idPath) {
			one(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

const idPath = "/v1/ids/"

// get refuses other methods, and writes the error of a handler that has written nothing.
func (v *View) get(serve func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, &failure{code: codeMethod, message: r.Method + " is not allowed here"})
			return
		}
		if err := serve(w, r); err != nil {
			fail(w, err)
		}
	}
}

func (v *View) serveID(w http.ResponseWriter, r *http.Request) error {
	id, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), idPath))
	if err != nil {
		return &Invalid{"the ID in the path is not percent-encoded: " + err.Error()}
	}
	q, err := query(r, "max_age")
	if err != nil {
		return err
	}
	var state codecs.State
	asOf, err := v.Get(id, &state)
	if errors.Is(err, ErrNotFound) {
		if err := tooOld(asOf.Age, q.maxAge); err != nil {
			return err
		}
		return &failure{code: codeNotFound, message: fmt.Sprintf("no event of ID %s was counted", strconv.QuoteToASCII(id)), asOf: []AsOf{asOf}}
	} else if err != nil {
		return err
	}
	if err := tooOld(asOf.Age, q.maxAge); err != nil {
		return err
	}
	etag := fmt.Sprintf(`"%d-%d"`, max(v.cfg.Names.Generation, 1), state.Version)
	w.Header().Set("ETag", etag)
	if matches(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	b := state.AppendJSON([]byte(`{"state":`), id, v.cfg.Schema)
	b = asOf.appendJSON(append(b, `,"as_of":`...), false)
	return send(w, http.StatusOK, append(appendAges(append(b, ','), asOf.Age, asOf.TableAge), '}'))
}

// matches is If-None-Match of RFC 9110, 13.1.2: a list of tags, or a star.
func matches(header, etag string) bool {
	for _, tag := range strings.Split(header, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
			return true
		}
	}
	return false
}

func (v *View) serveList(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "prefix", "limit", "page_token", "max_age")
	if err != nil {
		return err
	}
	return v.servePage(w, q, Filter{Prefix: q.prefix})
}

func (v *View) serveFlag(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "limit", "page_token", "max_age")
	if err != nil {
		return err
	}
	return v.servePage(w, q, Filter{Flag: r.PathValue("flag")})
}

func (v *View) servePage(w http.ResponseWriter, q *params, f Filter) error {
	token := pageToken{Generation: max(v.cfg.Names.Generation, 1), Prefix: f.Prefix, Flag: f.Flag}
	after, err := token.resume(q.pageToken)
	if err != nil {
		return err
	}
	f.After, f.Limit = after, q.limit
	page, more, asOf, err := v.List(f)
	if err != nil {
		return err
	}
	age, tableAge := oldest(asOf)
	if err := tooOld(age, q.maxAge); err != nil {
		return err
	}
	b := []byte(`{"states":[`)
	for i := range page {
		if i > 0 {
			b = append(b, ',')
		}
		b = page[i].State.AppendJSON(b, page[i].ID, v.cfg.Schema)
	}
	next := ""
	if more {
		token.After = page[len(page)-1].ID
		next = token.String()
	}
	b = append(strconv.AppendQuote(append(b, `],"next_page_token":`...), next), ',')
	b = appendList(append(b, `"as_of":`...), asOf)
	return send(w, http.StatusOK, append(appendAges(append(b, ','), age, tableAge), '}'))
}

// oldest gives the greatest ages; one that is not known is greater than all.
func oldest(asOf []AsOf) (age, tableAge time.Duration) {
	for i := range asOf {
		age, tableAge = older(age, asOf[i].Age), older(tableAge, asOf[i].TableAge)
	}
	return age, tableAge
}

func older(a, b time.Duration) time.Duration {
	if a == NotKnown || b == NotKnown {
		return NotKnown
	}
	return max(a, b)
}

func tooOld(age time.Duration, most *time.Duration) error {
	switch {
	case most == nil:
		return nil
	case age == NotKnown:
		return &Unavailable{fmt.Sprintf("the age of the answer is not known, max_age is %s", *most)}
	case age > *most:
		return &Unavailable{fmt.Sprintf("the answer is %s old, max_age is %s", age.Round(time.Millisecond), *most)}
	}
	return nil
}

func serveHealth(w http.ResponseWriter, _ *http.Request) error {
	return send(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

func (v *View) serveReady(w http.ResponseWriter, _ *http.Request) error {
	if err := v.Ready(); err != nil {
		return err
	}
	return send(w, http.StatusOK, []byte(`{"status":"ready"}`))
}

// params are what a request may say in its query.
type params struct {
	prefix, pageToken string
	limit             int
	maxAge            *time.Duration
}

// query reads the parameters that are allowed here. Any other is refused: a wrong name must not be passed over.
func query(r *http.Request, allowed ...string) (*params, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &Invalid{"the query cannot be read: " + err.Error()}
	}
	q := &params{limit: limitDefault}
	for name, all := range values {
		if !contains(allowed, name) {
			return nil, &Invalid{fmt.Sprintf("unknown parameter %s; known here: %s", strconv.QuoteToASCII(name), strings.Join(allowed, ", "))}
		}
		if len(all) != 1 {
			return nil, &Invalid{"parameter " + name + " is given more than once"}
		}
		if err := q.set(name, all[0]); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func (q *params) set(name, value string) error {
	switch name {
	case "prefix":
		q.prefix = value
	case "page_token":
		q.pageToken = value
	case "limit":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > limitMax {
			return &Invalid{fmt.Sprintf("limit is a number from 1 to %d, got %s", limitMax, strconv.QuoteToASCII(value))}
		}
		q.limit = n
	case "max_age":
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return &Invalid{fmt.Sprintf("max_age is a duration such as 500ms or 10s, got %s", strconv.QuoteToASCII(value))}
		}
		q.maxAge = &d
	}
	return nil
}
