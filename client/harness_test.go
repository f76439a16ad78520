package client

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tidemark/tidemark/internal/jobtest"
)

// mustClient is a client of views.
func mustClient(t testing.TB, change func(*Config), views ...string) *Client {
	t.Helper()
	cfg := Config{Views: views}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// write writes events of an ID worth some points each, and gives the place of the last.
func write(t testing.TB, j *jobtest.Job, id string, points ...int) jobtest.Place {
	t.Helper()
	var events []string
	for _, n := range points {
		events = append(events, fmt.Sprintf(`{"points":%d,"kind":"password"}`, n))
	}
	at, err := j.Write(t.Context(), id, events...)
	if err != nil {
		t.Fatalf("write events of %s: %v", id, err)
	}
	return at
}

// await waits until a condition holds; lacks says what it lacks.
func await(t testing.TB, lacks func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := lacks()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("in 30 s: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func points(s *State) string { return s.GetTotals()["points"].GetStringValue() }

func mustMarshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustUnmarshal(t testing.TB, b []byte) *State {
	t.Helper()
	s := &State{}
	if err := proto.Unmarshal(b, s); err != nil {
		t.Fatal(err)
	}
	return s
}
