package chaos

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/tidemark/tidemark/internal/history"
)

// stream opens a watch over REST, behind the last event that was taken.
func (c *client) stream(ctx context.Context, what *history.Watch, last string) (io.ReadCloser, error) {
	query := url.Values{}
	for name, value := range map[string]string{"id": what.ID, "prefix": what.Prefix, "flag": what.Flag} {
		if value != "" {
			query.Set(name, value)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/watch?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return nil, refused(resp.StatusCode, text)
}

// events reads server-sent events.
type events struct{ in *bufio.Reader }

// sent is one of them.
type sent struct {
	id, event string
	data      []byte
}

func newEvents(r io.Reader) *events { return &events{bufio.NewReader(r)} }

// next gives the next event that arrived whole: one that its blank line does not end is none.
func (e *events) next() (s sent, err error) {
	for {
		line, err := e.in.ReadBytes('\n')
		if err != nil {
			return sent{}, err
		}
		name, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(": "))
		switch string(name) {
		case "id":
			s.id = string(value)
		case "event":
			s.event = string(value)
		case "data":
			s.data = value
		case "":
			if s.event != "" {
				return s, nil
			}
		}
	}
}
