package lane

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// response gathers an answer, which is written in one piece when the handler has returned.
type response struct {
	header http.Header
	status int          // 0: nothing was said yet
	typed  bool         // the handler gave a Content-Type, or none can be told from the body
	dated  bool         // the handler gave a Date
	closes bool         // the handler wants the connection to end
	out    bytes.Buffer // status line and headers, and in the end all
	body   bytes.Buffer
}

func (w *response) reset() {
	w.header, w.status = make(http.Header, 8), 0
	for _, b := range []*bytes.Buffer{&w.out, &w.body} {
		if b.Cap() > keptBytes {
			*b = bytes.Buffer{}
		}
		b.Reset()
	}
}

// responses are used again: a connection that waits holds none.
var responses = sync.Pool{New: func() any { return &response{} }}

// keptBytes is how large a buffer may be to be used again.
const keptBytes = 128 << 10

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// ours are the headers that follow from the body and the connection.
var ours = map[string]bool{"Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

// WriteHeader implements http.ResponseWriter. There are no answers before the answer.
func (w *response) WriteHeader(status int) {
	if w.status != 0 || status < http.StatusOK {
		return
	}
	w.status = status
	w.out.WriteString("HTTP/1.1 ")
	w.out.Write(strconv.AppendInt(w.out.AvailableBuffer(), int64(status), 10))
	w.out.WriteByte(' ')
	w.out.WriteString(http.StatusText(status))
	w.out.Write(crlf)
	w.typed = w.header["Content-Type"] != nil || w.header["Content-Encoding"] != nil
	w.dated = w.header["Date"] != nil
	w.closes = strings.EqualFold(w.header.Get("Connection"), "close")
	_ = w.header.WriteSubset(&w.out, ours) // a buffer takes everything
}

// Write implements http.ResponseWriter.
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !w.hasBody() {
		return 0, http.ErrBodyNotAllowed
	}
	return w.body.Write(b)
}

// hasBody is what RFC 9110 says of the status.
func (w *response) hasBody() bool {
	return w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// bytes is the whole answer.
func (w *response) bytes(now time.Time) []byte {
	w.WriteHeader(http.StatusOK)
	if !w.dated {
		w.out.WriteString(dateLine(now))
	}
	if !w.typed && w.body.Len() > 0 {
		w.out.WriteString("Content-Type: " + http.DetectContentType(w.body.Bytes()) + "\r\n")
	}
	if w.hasBody() {
		w.out.WriteString("Content-Length: ")
		w.out.Write(strconv.AppendInt(w.out.AvailableBuffer(), int64(w.body.Len()), 10))
		w.out.Write(crlf)
	}
	w.out.Write(crlf)
	w.out.Write(w.body.Bytes())
	return w.out.Bytes()
}

// dateLine gives the header Date. It is made once a second.
func dateLine(now time.Time) string {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		lastDate.Store(d)
	}
	return d.line
}

type dated struct {
	second int64
	line   string
}

var lastDate atomic.Pointer[dated]
