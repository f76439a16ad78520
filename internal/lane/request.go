package lane

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// headersMax is how many headers a request in the lane has at most, besides Host.
const headersMax = 16

var crlf = []byte("\r\n")

// parse reads the request at the beginning of b, and its length. It is nil where that is not a whole request of the lane's
// form:
//
//	request = ("GET " prefix target / "POST " post) " HTTP/1.1" CRLF host-and-others CRLF body
//	target  = letters, digits, percent-encoded bytes and -._~$&+,/:;=@, and "?" with a query that is taken
//	header  = token ":" *SP printable ASCII *SP CRLF
//
// with exactly one Host, one Content-Length with a POST and none with a GET, and no other of the headers that say something
// of the connection or of a body.
func (c *conn) parse(b []byte) (*http.Request, int) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, 0
	}
	// One string, of which the request's are parts.
	head := string(b[:end])
	line, headers, _ := strings.Cut(head, string(crlf))
	method, rest, _ := strings.Cut(line, " ")
	target, ok := strings.CutSuffix(rest, " HTTP/1.1")
	isGet := method == http.MethodGet && strings.HasPrefix(target, c.lane.cfg.Prefix)
	isPost := method == http.MethodPost && target == c.lane.cfg.Post
	if !ok || !isGet && !isPost {
		return nil, 0
	}
	u := readTarget(target)
	if u == nil || strings.Contains(target, "?") && !c.lane.cfg.TakesQuery(u.RawQuery) {
		return nil, 0
	}
	r := new(http.Request)
	*r = *c.base
	r.Method, r.URL, r.RequestURI, r.Header = method, u, target, make(http.Header, 8)
	if !readHeaders(r, headers) || r.Host == "" || !c.readBody(r, b[end+4:]) {
		return nil, 0
	}
	return r, end + 4 + int(r.ContentLength)
}

// readBody is false where there is a body that should not be, where it has no length or is not all there, and where it is not taken.
func (c *conn) readBody(r *http.Request, rest []byte) bool {
	given := r.Header["Content-Length"]
	if r.Method == http.MethodGet || len(given) != 1 {
		return r.Method == http.MethodGet && given == nil
	}
	n, err := strconv.ParseUint(given[0], 10, 16) // digits alone
	if err != nil || int(n) > len(rest) || !c.lane.cfg.TakesBody(rest[:n]) {
		return false
	}
	if r.ContentLength = int64(n); n > 0 {
		c.body.Reset(rest[:n])
		r.Body = io.NopCloser(&c.body)
	}
	return true
}

// readTarget reads a target as net/http does; nil where it may not be one of the lane's.
func readTarget(target string) *url.URL {
	plain := true
	for i := range len(target) {
		switch class[target[i]] & (inPath | beyondPath) {
		case 0:
			return nil
		case beyondPath:
			plain = false
		}
	}
	if plain {
		return &url.URL{Path: target} // none of the characters has another form
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil
	}
	return u
}

// readHeaders is false where one of them is not the lane's.
func readHeaders(r *http.Request, rest string) bool {
	values := make([]string, headersMax) // each header's slice is a part of it
	for line := ""; rest != ""; {
		line, rest, _ = strings.Cut(rest, string(crlf))
		name, value, ok := strings.Cut(line, ":")
		if value = strings.Trim(value, " "); !ok || !consistsOf(name, inToken) || !consistsOf(value, inValue) {
			return false
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch name {
		case "Host":
			if r.Host != "" || !consistsOf(value, inHost) {
				return false
			}
			r.Host = value
			continue
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return false
			}
		case "Transfer-Encoding", "Trailer", "Te", "Expect", "Upgrade", "Http2-Settings", "Keep-Alive", "Proxy-Connection", "Pragma":
			return false
		}
		if len(values) == 0 {
			return false
		}
		if given := r.Header[name]; given != nil {
			r.Header[name], values = append(given, value), values[1:]
			continue
		}
		values[0] = value
		r.Header[name], values = values[:1:1], values[1:]
	}
	return true
}

// What a byte may be part of.
const (
	inPath = 1 << iota
	beyondPath
	inToken
	inValue
	inHost
)

var class = func() (of [256]byte) {
	for b := range of {
		letter := 'a' <= b|0x20 && b|0x20 <= 'z' && b < 0x80 || '0' <= b && b <= '9'
		in := func(others string) bool { return letter || b < 0x80 && strings.IndexByte(others, byte(b)) >= 0 }
		for set, is := range map[byte]bool{
			inPath:     in("-._~$&+,/:;=@"), // url.URL escapes none of these in a path
			beyondPath: b == '%' || b == '?',
			inToken:    in("!#$%&'*+-.^_`|~"),
			inValue:    ' ' <= b && b <= '~',
			inHost:     in("-.:[]"),
		} {
			if is {
				of[b] |= set
			}
		}
	}
	return of
}()

// consistsOf tells whether a text has only bytes of a class, and at least one where that is of tokens or hosts.
func consistsOf(text string, of byte) bool {
	for i := range len(text) {
		if class[text[i]]&of == 0 {
			return false
		}
	}
	return text != "" || of == inValue
}
