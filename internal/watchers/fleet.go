package watchers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
)

// fleet is the views, which come and go.
type fleet struct {
	cfg *Config

	mu    sync.Mutex // guards views
	views map[int]*process
	rnd   *rand.Rand // of who kills
}

// any gives the address of a view that is up, "" while there is none.
func (f *fleet) any() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.views) == 0 {
		return ""
	}
	up := slices.Collect(maps.Values(f.views))
	return up[rand.IntN(len(up))].said
}

// start starts a view and waits until it is ready.
func (f *fleet) start(ctx context.Context, i int) error {
	p, err := start(task{Brokers: f.cfg.Brokers, Job: f.cfg.Name, Dir: filepath.Join(f.cfg.Dir, fmt.Sprint("view", i)), View: true})
	if err != nil {
		return err
	}
	if err := ready(ctx, p.said); err != nil {
		return errors.Join(err, p.end(syscall.SIGKILL))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.views[i] = p
	return nil
}

// kill kills a view without telling anybody.
func (f *fleet) kill(i int) error {
	f.mu.Lock()
	p := f.views[i]
	delete(f.views, i)
	f.mu.Unlock()
	return p.end(syscall.SIGKILL)
}

// ready waits until a view answers that it is.
func ready(ctx context.Context, view string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ; ; pause(ctx, 20*time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, view+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the view at %s: %w", view, errors.Join(context.Cause(ctx), err))
		}
	}
}

// covered waits until commits cover all that was produced.
func (s *stream) covered(ctx context.Context, names eos.Names) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cl, err := kgo.NewClient(s.kafka.Franz()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ends, err := eos.Ends(ctx, cl, s.topic)
	if err != nil {
		return err
	}
	for ; ; pause(ctx, 50*time.Millisecond) {
		committed, err := kadm.NewClient(cl).FetchOffsets(ctx, names.Group())
		left := int64(0)
		for p, span := range ends {
			o, _ := committed.Lookup(s.topic, p)
			left += max(0, span.HW-o.At)
		}
		if err == nil && left == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d events were not committed: %w", left, errors.Join(context.Cause(ctx), err))
		}
	}
}
