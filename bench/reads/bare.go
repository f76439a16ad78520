package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// bareCaller speaks just enough HTTP/1.1 over a socket. What other clients need on top is theirs.
type bareCaller struct {
	conn   net.Conn
	in     *bufio.Reader
	host   string
	states []string
	out    []byte
	body   []byte
}

func openBare(url string, states []string) func(context.Context, int) (*session, error) {
	return func(_ context.Context, callers int) (*session, error) {
		var open []net.Conn
		s := &session{close: func() error {
			var errs []error
			for _, c := range open {
				errs = append(errs, c.Close())
			}
			return errors.Join(errs...)
		}}
		host := strings.TrimPrefix(url, "http://")
		for range callers {
			c, err := net.Dial("tcp", host)
			if err != nil {
				return nil, errors.Join(err, s.close())
			}
			open = append(open, c)
			s.callers = append(s.callers, &bareCaller{conn: c, in: bufio.NewReaderSize(c, 64<<10), host: host, states: states})
		}
		return s, nil
	}
}

func (c *bareCaller) get(_ context.Context, id int) error {
	c.out = append(append(append(c.out[:0], "GET /v1/ids/"...), idText(id)...), " HTTP/1.1\r\nHost: "...)
	c.out = append(append(c.out, c.host...), "\r\n\r\n"...)
	if err := c.do(); err != nil || !sameState(c.body, c.states[id]) {
		return wrong(id, string(c.body), err)
	}
	return nil
}

func (c *bareCaller) batch(_ context.Context, ids []int) error {
	body := batchBody(ids)
	c.out = append(append(append(c.out[:0], "POST /v1/ids:batchGet HTTP/1.1\r\nHost: "...), c.host...), "\r\nContent-Type: application/json\r\nContent-Length: "...)
	c.out = append(append(strconv.AppendInt(c.out, int64(len(body)), 10), "\r\n\r\n"...), body...)
	if err := c.do(); err != nil || !sameStates(c.body, ids, c.states) {
		return wrong(ids[0], string(c.body), err)
	}
	return nil
}

// do sends the request, and reads an answer that has a length.
func (c *bareCaller) do() error {
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	length := -1
	for n := 0; ; n++ {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if n == 0 && string(line) != "HTTP/1.1 200 OK" {
			return fmt.Errorf("got %q", line)
		}
		if len(line) == 0 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && string(name) == "Content-Length" {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("the answer has no Content-Length")
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err := io.ReadFull(c.in, c.body)
	return err
}
