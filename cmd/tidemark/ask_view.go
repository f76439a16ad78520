package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidemark/tidemark/ops"
)

// viewReader asks a view over HTTP.
type viewReader struct {
	base   string
	token  string // "": none
	client *http.Client
}

// newViewReader sends the token, if there is one, to that view alone, and so that nobody on the way can read it.
func newViewReader(base, token string, g *globals) (*viewReader, error) {
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "":
		return nil, usagef("--view %s: want an address such as http://127.0.0.1:8080", base)
	case u.User != nil:
		return nil, usagef("--view %s: a password in a URL ends up in logs: set TIDEMARK_TOKEN", u.Redacted())
	case token != "" && u.Scheme == "http" && !isLoopbackHost(u.Hostname()):
		return nil, usagef("--view %s: the token could be read on its way: name https://%s, or unset TIDEMARK_TOKEN", base, u.Host)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if transport.TLSClientConfig, err = g.tls(); err != nil {
		return nil, err
	}
	return &viewReader{base: strings.TrimRight(base, "/"), token: token, client: &http.Client{
		Timeout: time.Minute, Transport: transport,
		// Nobody is to send the request, and its token, elsewhere. A view never does.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// viewPlace is as_of as a view tells it.
type viewPlace struct {
	Partition int32      `json:"partition"`
	Position  int64      `json:"position,string"`
	Time      *time.Time `json:"time"`
	Commit    uint64     `json:"commit,string"`
}

func (p *viewPlace) place() ops.Place {
	place := ops.Place{Partition: p.Partition, Next: p.Position, Commit: p.Commit}
	if p.Time != nil {
		place.TimeMs = p.Time.UnixMilli()
	}
	return place
}

// viewProblem is an error as a view tells it. Its details say as of when.
type viewProblem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type  string     `json:"type"`
		Debug *viewPlace `json:"debug"`
	} `json:"details"`

	base string
}

// asOf is the place that the error is as of, nil where it tells none.
func (p *viewProblem) asOf() *viewPlace {
	for _, d := range p.Details {
		if d.Type == "tidemark.v1.Freshness" {
			return d.Debug
		}
	}
	return nil
}

func (p *viewProblem) Error() string {
	return fmt.Sprintf("the view at %s says: %s (%s)", p.base, p.Message, p.Code)
}

// ask gets a path and decodes the answer.
func (v *viewReader) ask(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.base+path, nil)
	if err != nil {
		return usagef("--view %s: %w", v.base, err)
	}
	if v.token != "" {
		req.Header.Set("Authorization", "Bearer "+v.token)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return fmt.Errorf("no view answers: %w: is `tidemark view` up there?", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("the answer of the view at %s broke off: %w", v.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		problem := &viewProblem{base: v.base}
		if json.Unmarshal(body, problem) != nil || problem.Code == "" {
			return usagef("%s is no view: it answers %s", v.base, resp.Status)
		}
		switch problem.Code {
		case "unauthenticated":
			return usagef("%w: set TIDEMARK_TOKEN, or show a certificate (--tls-cert, --tls-key)", problem)
		case "invalid_argument", "permission_denied":
			return &usage{problem}
		}
		return problem
	}
	if err := json.Unmarshal(body, into); err != nil {
		return usagef("%s is no view: %w", v.base, err)
	}
	return nil
}

func (v *viewReader) get(ctx context.Context, ids []string) (*ops.GetReport, error) {
	report := &ops.GetReport{States: make([][]byte, len(ids))}
	at := map[int32]int{} // where a partition is in Places
	for i, id := range ids {
		var answer struct {
			State json.RawMessage `json:"state"`
			AsOf  *viewPlace      `json:"as_of"`
		}
		err := v.ask(ctx, "/v1/ids/"+escapeID(id), &answer)
		if problem, ok := err.(*viewProblem); ok && problem.Code == "not_found" && problem.asOf() != nil {
			answer.AsOf = problem.asOf()
		} else if err != nil {
			return nil, err
		}
		report.States[i] = answer.State
		if answer.AsOf == nil {
			return nil, usagef("%s is no view: an answer without as_of", v.base)
		}
		place := answer.AsOf.place()
		if j, seen := at[place.Partition]; !seen {
			at[place.Partition] = len(report.Places)
			report.Places = append(report.Places, place)
		} else if place.Next < report.Places[j].Next { // the answer as a whole is as old as its oldest part
			report.Places[j] = place
		}
	}
	return report, nil
}

// escapeID writes every byte of an ID that could mean something in a path as %XX, and dots where they are all there is.
func escapeID(id string) string {
	var b strings.Builder
	dots := id != "." && id != ".."
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && dots:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func (v *viewReader) list(ctx context.Context, f ops.Filter, use func(id string) error) (*ops.ScanReport, error) {
	return v.scan(ctx, f, func(id string, _ []byte) error { return use(id) })
}

func (v *viewReader) dump(ctx context.Context, f ops.Filter, use func(line []byte) error) (*ops.ScanReport, error) {
	return v.scan(ctx, f, func(_ string, line []byte) error { return use(line) })
}

// scan goes through all pages of a list. Its places are those of the first page, the oldest one.
func (v *viewReader) scan(ctx context.Context, f ops.Filter, use func(id string, line []byte) error) (*ops.ScanReport, error) {
	report := &ops.ScanReport{}
	path := "/v1/ids?limit=1000"
	if f.Flag != "" { // then the prefix is looked at here
		path = "/v1/flags/" + url.PathEscape(f.Flag) + "/ids?limit=1000"
	} else if f.Prefix != "" {
		path += "&prefix=" + url.QueryEscape(f.Prefix)
	}
	for token := ""; ; {
		var page struct {
			States []json.RawMessage `json:"states"`
			Next   string            `json:"next_page_token"`
			AsOf   []viewPlace       `json:"as_of"`
		}
		if err := v.ask(ctx, path+token, &page); err != nil {
			return nil, err
		}
		if report.Places == nil {
			for i := range page.AsOf {
				report.Places = append(report.Places, page.AsOf[i].place())
			}
		}
		for _, state := range page.States {
			var one struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(state, &one); err != nil {
				return nil, usagef("%s is no view: %w", v.base, err)
			}
			if !strings.HasPrefix(one.ID, f.Prefix) {
				continue
			}
			report.IDs++
			if err := use(one.ID, bytes.TrimSpace(state)); err != nil {
				return nil, err
			}
		}
		if page.Next == "" {
			return report, nil
		}
		token = "&page_token=" + url.QueryEscape(page.Next)
	}
}

func (v *viewReader) input() string { return "the input" }
func (v *viewReader) close() error  { return nil }
