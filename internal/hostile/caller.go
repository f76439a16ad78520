package hostile

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// caller is a well-behaved client: it reads an ID now and then, and watches one.
type caller struct {
	s      *subject
	client *http.Client

	heard    atomic.Int64 // events of the watch
	watching sync.WaitGroup
	cancel   context.CancelFunc
	broken   atomic.Pointer[string] // why the watch ended
}

// newCaller begins to watch.
func newCaller(ctx context.Context, s *subject) (*caller, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &caller{s: s, client: s.client("127.0.0.1"), cancel: cancel}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.addr+"/v1/watch?prefix=id-1", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.tokens["good"])
	endless := *c.client
	endless.Timeout = 0
	resp, err := endless.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		cancel()
		return nil, fmt.Errorf("watch: %v %w", resp, err)
	}
	c.watching.Go(func() {
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Buffer(nil, 1<<20); lines.Scan(); {
			if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				c.heard.Add(1)
				if event == "reset" {
					c.broken.Store(&event)
				}
			}
		}
		if ctx.Err() == nil {
			why := fmt.Sprint("the stream ended: ", lines.Err())
			c.broken.Store(&why)
		}
	})
	return c, nil
}

func (c *caller) close() {
	c.cancel()
	c.watching.Wait()
	c.client.CloseIdleConnections()
}

// measurement is what the good client saw.
type measurement struct {
	took   []time.Duration // in order of size
	failed int
	first  string // failure
	heard  int64  // events of its watch
	broken string
}

// readsEvery is how often the good client reads.
const readsEvery = 200 * time.Millisecond

func (c *caller) measure(ctx context.Context, d time.Duration) (*measurement, error) {
	m := &measurement{}
	within, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	heard, n := c.heard.Load(), 0
	every(within, readsEvery, func() {
		n++
		start := time.Now()
		status, body, err := c.s.get(ctx, c.client, "good", fmt.Sprintf("/v1/ids/id-%d", n%ids))
		m.took = append(m.took, time.Since(start))
		if err != nil || status != http.StatusOK && status != http.StatusNotFound {
			if m.failed++; m.first == "" {
				m.first = fmt.Sprintf("%d %s %v", status, body, err)
			}
		}
	})
	slices.Sort(m.took)
	m.heard = c.heard.Load() - heard
	if why := c.broken.Load(); why != nil {
		m.broken = *why
	}
	return m, ctx.Err()
}

// add takes in what was seen afterwards.
func (m *measurement) add(o *measurement) {
	m.took = append(m.took, o.took...)
	slices.Sort(m.took)
	m.failed, m.heard, m.broken = m.failed+o.failed, m.heard+o.heard, o.broken
	if m.first == "" {
		m.first = o.first
	}
}

func (m *measurement) quantile(q float64) time.Duration {
	return m.took[min(len(m.took)-1, int(q*float64(len(m.took))))]
}

func (m *measurement) String() string {
	return fmt.Sprintf("%6d reads  p50 %-9v p99 %-9v max %-9v %d failed, %d events watched", len(m.took),
		m.quantile(0.5).Round(10*time.Microsecond), m.quantile(0.99).Round(10*time.Microsecond), m.quantile(1).Round(10*time.Microsecond), m.failed, m.heard)
}
