package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// Answers of a view in JSON are compared with states as the dump has them.

// sameState compares the body of a Get.
func sameState(body []byte, state string) bool {
	rest, ok := bytes.CutPrefix(body, []byte(`{"state":`))
	return ok && len(rest) > len(state) && string(rest[:len(state)]) == state && bytes.HasPrefix(rest[len(state):], []byte(`,"as_of":{"partition":`))
}

// sameStates compares the body of a BatchGet.
func sameStates(body []byte, ids []int, states []string) bool {
	same := true
	next := func(text string) {
		if same = same && len(body) >= len(text) && string(body[:len(text)]) == text; same {
			body = body[len(text):]
		}
	}
	next(`{"results":[`)
	for i, id := range ids {
		if i > 0 {
			next(",")
		}
		next(`{"id":"`)
		next(idText(id))
		next(`","state":`)
		next(states[id])
		next("}")
	}
	next(`],"as_of":[{`)
	return same
}

func batchBody(ids []int) []byte {
	b := []byte(`{"ids":[`)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), idText(id)...), '"')
	}
	return append(b, ']', '}')
}

// httpCaller asks by net/http.
type httpCaller struct {
	c      *http.Client
	url    string
	states []string
	body   bytes.Buffer
}

func openHTTP(url string, states []string) func(context.Context, int) (*session, error) {
	return func(_ context.Context, callers int) (*session, error) {
		c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, MaxConnsPerHost: callers, DisableCompression: true}}
		s := &session{close: func() error { c.CloseIdleConnections(); return nil }}
		for range callers {
			s.callers = append(s.callers, &httpCaller{c: c, url: url, states: states})
		}
		return s, nil
	}
}

func (h *httpCaller) get(ctx context.Context, id int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/v1/ids/"+idText(id), nil)
	if err != nil {
		return err
	}
	if err := h.do(req); err != nil || !sameState(h.body.Bytes(), h.states[id]) {
		return wrong(id, h.body.String(), err)
	}
	return nil
}

func (h *httpCaller) batch(ctx context.Context, ids []int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/v1/ids:batchGet", bytes.NewReader(batchBody(ids)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if err := h.do(req); err != nil || !sameStates(h.body.Bytes(), ids, h.states) {
		return wrong(ids[0], h.body.String(), err)
	}
	return nil
}

func (h *httpCaller) do(req *http.Request) error {
	resp, err := h.c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h.body.Reset()
	if _, err := io.Copy(&h.body, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// leanCaller asks by fasthttp's client over a connection of its own.
type leanCaller struct {
	c      *fasthttp.HostClient
	url    string
	states []string
	req    *fasthttp.Request
	resp   *fasthttp.Response
}

func openLean(url string, states []string) func(context.Context, int) (*session, error) {
	return func(_ context.Context, callers int) (*session, error) {
		var clients []*fasthttp.HostClient
		s := &session{close: func() error {
			for _, c := range clients {
				c.CloseIdleConnections()
			}
			return nil
		}}
		for range callers {
			c := &fasthttp.HostClient{Addr: strings.TrimPrefix(url, "http://"), MaxConns: 1, NoDefaultUserAgentHeader: true}
			clients = append(clients, c)
			s.callers = append(s.callers, &leanCaller{c, url, states, &fasthttp.Request{}, &fasthttp.Response{}})
		}
		return s, nil
	}
}

func (l *leanCaller) get(_ context.Context, id int) error {
	l.req.SetRequestURI(l.url + "/v1/ids/" + idText(id))
	if err := l.do(); err != nil || !sameState(l.resp.Body(), l.states[id]) {
		return wrong(id, string(l.resp.Body()), err)
	}
	return nil
}

func (l *leanCaller) batch(_ context.Context, ids []int) error {
	l.req.SetRequestURI(l.url + "/v1/ids:batchGet")
	l.req.Header.SetMethod(fasthttp.MethodPost)
	l.req.Header.SetContentType("application/json")
	l.req.SetBody(batchBody(ids))
	if err := l.do(); err != nil || !sameStates(l.resp.Body(), ids, l.states) {
		return wrong(ids[0], string(l.resp.Body()), err)
	}
	return nil
}

// positions asks a view up to where each partition is.
type positions struct{ leanCaller }

func newPositions(v *view) *positions {
	c := &fasthttp.HostClient{Addr: v.addr, MaxConns: 1}
	return &positions{leanCaller{c, v.url(), nil, &fasthttp.Request{}, &fasthttp.Response{}}}
}

func (p *positions) close() { p.c.CloseIdleConnections() }

// of gives the position of an ID's partition.
func (p *positions) of(id string) (int64, error) {
	p.req.SetRequestURI(p.url + "/v1/ids/" + id)
	if err := p.do(); err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(p.resp.Body()), `"position":"`)
	digits, _, _ := strings.Cut(rest, `"`)
	return strconv.ParseInt(digits, 10, 64)
}

func (l *leanCaller) do() error {
	if err := l.c.Do(l.req, l.resp); err != nil {
		return err
	}
	if l.resp.StatusCode() != fasthttp.StatusOK {
		return fmt.Errorf("status %d", l.resp.StatusCode())
	}
	return nil
}
