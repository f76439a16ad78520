package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/valyala/fasthttp"
)

// flagged is how many IDs bear the flag.
const flagged = 100

// listings is how many requests for the flag are measured.
const listings = 300

// flag measures the list of a few flagged IDs among many, and how a view of that many IDs begins.
func (b *bench) flag(ctx context.Context) error {
	j, err := b.job("flag")
	if err != nil {
		return err
	}
	bin, began := b.binaries[len(b.binaries)-1], time.Now()
	if err := j.fill(ctx, bin, oneEach(b.manyIDs)); err != nil {
		return err
	}
	b.logf("\n%d IDs are filled, %d of them bear a flag (%.1f s)", b.manyIDs, flagged, time.Since(began).Seconds())
	for _, bin := range b.binaries {
		if err := b.list(ctx, j, bin); err != nil {
			return fmt.Errorf("%s: %w", bin.name, err)
		}
		if err := b.restarts(ctx, j, bin, b.manyIDs); err != nil {
			return fmt.Errorf("%s: %w", bin.name, err)
		}
	}
	return nil
}

// oneEach writes an event for each of n IDs, and for some of them enough to raise the flag.
func oneEach(n int) func(io.Writer) error {
	return func(to io.Writer) error {
		w, begin := bufio.NewWriterSize(to, 1<<16), time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Format(time.RFC3339)
		event := func(id int, kind string) {
			fmt.Fprintf(w, `{"id":%q,"type":%q,"time":%q,"value":%d.%02d}`+"\n", idText(id), kind, begin, id%1000, id%97)
		}
		for id := range n {
			event(id, "accepted_password")
		}
		for i := range flagged {
			for range 3 {
				event(i*(n/flagged), "failed_password")
			}
		}
		return w.Flush()
	}
}

// list asks for the IDs that bear the flag.
func (b *bench) list(ctx context.Context, j *job, bin binary) (err error) {
	v, err := j.view(ctx, bin, filepath.Join(j.dir, "list-"+bin.name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.stop()) }()
	var (
		c    = &fasthttp.HostClient{Addr: v.addr, MaxConns: 1}
		req  fasthttp.Request
		resp fasthttp.Response
		took []time.Duration
	)
	defer c.CloseIdleConnections()
	req.SetRequestURI(v.url() + fmt.Sprintf("/v1/flags/brute_force/ids?limit=%d", flagged))
	for range listings {
		at := time.Now()
		if err := c.Do(&req, &resp); err != nil {
			return err
		}
		took = append(took, time.Since(at))
		body := resp.Body()
		for i := range flagged {
			if id := []byte(`{"id":"` + idText(i*(b.manyIDs/flagged)) + `",`); !bytes.Contains(body, id) {
				return fmt.Errorf("%w: the list lacks %s: %.300s", errWrong, id, body)
			}
		}
		if got := bytes.Count(body, []byte(`"brute_force":{"time"`)); got != flagged || !bytes.Contains(body, []byte(`"next_page_token":""`)) {
			return fmt.Errorf("%w: the list has %d IDs, want %d and no more", errWrong, got, flagged)
		}
	}
	first := took[0]
	slices.Sort(took)
	b.logf("%s: %d of %d IDs by their flag, %d requests: the first %.2f ms, p50 %.2f ms, p99 %.2f ms", bin.name, flagged, b.manyIDs, listings,
		micros(first)/1e3, micros(took[len(took)/2])/1e3, micros(took[len(took)*99/100])/1e3)
	return nil
}
