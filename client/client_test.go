package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidemark/tidemark/internal/jobtest"
)

func TestClient_Reads(t *testing.T) {
	j := jobtest.MustStart(t, jobtest.Config{})
	c := mustClient(t, nil, j.MustView(t).URL(), j.MustView(t).URL())
	last := map[string]jobtest.Place{}
	var ids []string
	for n := range 25 {
		id := fmt.Sprintf("user-%02d/ü", n)
		ids = append(ids, id)
		last[id] = write(t, j, id, n, 50)
	}
	for _, id := range ids {
		a, err := c.Get(t.Context(), id, AtLeast(last[id].String()), Wait(20*time.Second))
		if err != nil || a.State.Id != id || a.State.Count != 2 || a.Partition != last[id].Partition || a.Position <= last[id].Offset {
			t.Fatalf("get %s: got %+v (%v), want 2 events as of past %s", id, a, err, last[id])
		}
		await(t, func() error { // an age is told as soon as it is known
			if a, err := c.Get(t.Context(), id, MaxAge(10*time.Second)); err != nil || a.Age == NotKnown {
				return fmt.Errorf("get %s: %w, age %s", id, err, a.Age)
			}
			return nil
		})
	}
	tokens := jobtestTokens(last)
	var listed, flagged []string
	for s, err := range c.List(t.Context(), "user-", PageSize(3), AtLeast(tokens...)) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, s.Id)
	}
	for s, err := range c.ListByFlag(t.Context(), "watched", PageSize(2), AtLeast(tokens...)) {
		if err != nil {
			t.Fatal(err)
		}
		flagged = append(flagged, s.Id)
	}
	if !slices.Equal(listed, ids) || len(flagged) != 0 {
		t.Errorf("got the list %v and by flag %v, want all and none", listed, flagged)
	}
	b, err := c.BatchGet(t.Context(), []string{ids[3], "nobody", ids[3], ids[1]})
	if err != nil || len(b.States) != 4 || b.States[0].GetId() != ids[3] || b.States[1] != nil || points(b.States[2]) != "53" || points(b.States[3]) != "51" || len(b.AsOf) == 0 {
		t.Errorf("batch: got %+v (%v)", b, err)
	}
	st, err := c.Status(t.Context())
	if err != nil || st.Job != "logins" || len(st.Partitions) != 3 || !slices.Equal(st.Flags, []string{"watched"}) {
		t.Errorf("status: got %v (%v)", st, err)
	}
}

func jobtestTokens(places map[string]jobtest.Place) (tokens []string) {
	newest := map[int32]jobtest.Place{}
	for _, p := range places {
		if was, ok := newest[p.Partition]; !ok || p.Offset > was.Offset {
			newest[p.Partition] = p
		}
	}
	for _, p := range newest {
		tokens = append(tokens, p.String())
	}
	return tokens
}

// TestClient_ErrorsOfAView: each kind, from a view as it is.
func TestClient_ErrorsOfAView(t *testing.T) {
	j := jobtest.MustStart(t, jobtest.Config{})
	v := j.MustView(t)
	at := write(t, j, "a", 1)
	once := func(cfg *Config) { cfg.AttemptsMax = 1 }
	c := mustClient(t, once, v.URL())
	if _, err := c.Get(t.Context(), "a", AtLeast(at.String())); err != nil {
		t.Fatal(err)
	}
	elsewhere := (at.Partition + 1) % 3
	for _, test := range []struct {
		what  string
		id    string
		opts  []Option
		kind  error
		asOf  int32 // -1: none
		again bool  // it says when
	}{
		{"no such ID", "nobody", nil, ErrNotFound, Partition("nobody", 3), false},
		{"an ID that is none", "", nil, ErrInvalid, -1, false},
		{"a token that is none", "a", []Option{AtLeast("soon")}, ErrInvalid, -1, false},
		{"too old", "a", []Option{MaxAge(0)}, ErrTooOld, at.Partition, true},
		{"an event to come", "a", []Option{AtLeast(fmt.Sprintf("%d@%d", at.Partition, at.Offset+1)), Wait(0)}, ErrLate, at.Partition, false},
		{"an event elsewhere", "a", []Option{AtLeast(fmt.Sprintf("%d@0", elsewhere))}, ErrWrongPartition, elsewhere, false},
		{"a topic that is no more", "a", []Option{AtLeast(fmt.Sprintf("%s.1.AAAAAAAAAAAAAAAAAAAAAA", at))}, ErrGone, -1, false},
		{"a view that is not named", "a", []Option{OnView("http://127.0.0.1:1")}, ErrInvalid, -1, false},
	} {
		_, err := c.Get(t.Context(), test.id, test.opts...)
		var e *Error
		if !errors.Is(err, test.kind) || !errors.As(err, &e) {
			t.Errorf("%s: got %v, want %v", test.what, err, test.kind)
			continue
		}
		if (e.AsOf != nil) != (test.asOf >= 0) || e.AsOf != nil && e.AsOf.Partition != test.asOf || (e.RetryAfter > 0) != test.again {
			t.Errorf("%s: got %+v as of %+v, want partition %d", test.what, e, e.AsOf, test.asOf)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.Get(ctx, "a", AtLeast(fmt.Sprintf("%d@%d", at.Partition, at.Offset+1)), Wait(20*time.Second))
	if e := (*Error)(nil); !errors.Is(err, ErrLate) || !errors.As(err, &e) || e.AsOf == nil || e.AsOf.Position != at.Offset+1 {
		t.Errorf("a context that ends first: got %v, want how far the view is", err)
	}
	if err := v.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a view that has ended: got %v", err)
	}
}
