package ops

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// LineBytesMax is the length of the longest line that is read; longer ones are refused and passed over.
const LineBytesMax = 16 << 20

// lines reads NDJSON, unpacked on the way where it begins as gzip does.
type lines struct {
	source *counter
	r      *bufio.Reader
	long   []byte
	number int64
}

// counter counts what was read of a file as it lies there, for progress.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func newLines(r io.Reader) (*lines, error) {
	l := &lines{source: &counter{r: r}}
	raw := bufio.NewReaderSize(l.source, 1<<18)
	head, err := raw.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	l.r = raw
	if bytes.Equal(head, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(raw)
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		l.r = bufio.NewReaderSize(unzipped, 1<<18)
	}
	return l, nil
}

var errLineTooLong = fmt.Errorf("the line is longer than %d bytes", LineBytesMax)

// next gives the next line without its end; the bytes are good until the next call. io.EOF ends it. errLineTooLong is for
// one line alone.
func (l *lines) next() ([]byte, error) {
	l.long = l.long[:0]
	tooLong := false
	for {
		part, err := l.r.ReadSlice('\n')
		whole := err == nil
		if errors.Is(err, io.EOF) && len(part)+len(l.long) > 0 {
			whole = true
		}
		if err != nil && !whole && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if len(l.long)+len(part) > LineBytesMax {
			tooLong, l.long = true, l.long[:0]
		}
		if !whole {
			if !tooLong {
				l.long = append(l.long, part...)
			}
			continue
		}
		l.number++
		if tooLong {
			return nil, errLineTooLong
		}
		if len(l.long) > 0 {
			l.long = append(l.long, part...)
			part = l.long
		}
		return bytes.TrimSuffix(bytes.TrimSuffix(part, []byte("\n")), []byte("\r")), nil
	}
}
