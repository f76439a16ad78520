package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tidemark/tidemark/client"
	"github.com/tidemark/tidemark/internal/jobtest"
)

// The examples ask a job that runs in this process: the embedded broker, a processor and a view. Its job file is
// jobtest.Logins: it adds up the points of a user's logins, and watches who has 100 or more.
var (
	example  = sync.OnceValues(startExample)
	examples struct {
		sync.Mutex
		job *jobtest.Job
	}
)

func startExample() (*jobtest.Job, string) {
	job, err := jobtest.Start(context.Background(), jobtest.Config{})
	check(err)
	examples.Lock()
	examples.job = job
	examples.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	view, err := job.NewView(ctx)
	check(err)
	return job, view.URL()
}

func TestMain(m *testing.M) {
	code := m.Run()
	if examples.job != nil {
		if err := examples.job.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "end the job of the examples:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// within is for whatever has to be waited for.
const within = 20 * time.Second

func ExampleClient_Get() {
	job, view := example()
	ctx := context.Background()
	c, err := client.New(client.Config{Views: []string{view}}) // any number of them
	check(err)
	defer c.Close()

	place, err := job.Write(ctx, "user-17", `{"points":40,"kind":"password"}`, `{"points":70,"kind":"key"}`)
	check(err)
	a, err := c.Get(ctx, "user-17", client.AtLeast(place.String()), client.Wait(within))
	check(err)
	fmt.Println(a.State.Id, "has", a.State.Totals["points"].GetStringValue(), "points of", a.State.Count, "events")
	fmt.Println("watched since event", a.State.Flags["watched"].Offset == place.Offset)
	fmt.Println("as of past it:", a.Position > place.Offset)

	_, err = c.Get(ctx, "nobody")
	fmt.Println(errors.Is(err, client.ErrNotFound))
	// Output:
	// user-17 has 110 points of 2 events
	// watched since event true
	// as of past it: true
	// true
}

func ExampleClient_BatchGet() {
	job, view := example()
	ctx := context.Background()
	c, err := client.New(client.Config{Views: []string{view}})
	check(err)
	defer c.Close()

	place, err := job.Write(ctx, "batch-1", `{"points":5}`)
	check(err)
	b, err := c.BatchGet(ctx, []string{"batch-1", "batch-2"}, client.AtLeast(place.String()), client.Wait(within))
	check(err)
	for i, id := range []string{"batch-1", "batch-2"} {
		if s := b.States[i]; s != nil {
			fmt.Println(id, s.Totals["points"].GetStringValue())
		} else {
			fmt.Println(id, "is not known")
		}
	}
	// Output:
	// batch-1 5
	// batch-2 is not known
}

func ExampleClient_List() {
	job, view := example()
	ctx := context.Background()
	c, err := client.New(client.Config{Views: []string{view}})
	check(err)
	defer c.Close()

	s := c.Session()
	for _, id := range []string{"list-c", "list-a", "list-b"} {
		place, err := job.Write(ctx, id, `{"points":100}`)
		check(err)
		check(s.Wrote(ctx, id, place.Partition, place.Offset))
	}
	for state, err := range s.List(ctx, "list-", client.Wait(within)) { // page by page
		check(err)
		fmt.Println(state.Id)
	}
	for state, err := range c.ListByFlag(ctx, "watched") {
		check(err)
		if state.Id == "list-b" {
			fmt.Println(state.Id, "is watched")
			break
		}
	}
	// Output:
	// list-a
	// list-b
	// list-c
	// list-b is watched
}

// A session reads its own writes, whichever view answers.
func ExampleSession() {
	job, view := example()
	ctx := context.Background()
	c, err := client.New(client.Config{Views: []string{view}})
	check(err)
	defer c.Close()

	s := c.Session()
	for n := 1; n <= 3; n++ {
		// Any Kafka producer will do; it is told where its event is. Session.Produce needs none.
		place, err := job.Write(ctx, "session-1", `{"points":1}`)
		check(err)
		check(s.Wrote(ctx, "session-1", place.Partition, place.Offset))

		a, err := s.Get(ctx, "session-1", client.Wait(within))
		check(err)
		fmt.Println("wrote", n, "and read", a.State.Count)
	}
	// Output:
	// wrote 1 and read 1
	// wrote 2 and read 2
	// wrote 3 and read 3
}

func ExampleClient_Watch() {
	job, view := example()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Views: []string{view}})
	check(err)
	defer c.Close()

	for e, err := range c.Watch(ctx, client.Prefix("watch-")) {
		check(err)
		switch e.Kind {
		case client.Began: // what is committed from now on is told
			_, err := job.Write(ctx, "watch-1", `{"points":100}`)
			check(err)
		case client.Changed:
			fmt.Println(e.ID, "version", e.State.Version, "watched:", e.State.Flags["watched"] != nil)
			if e.State.Flags["watched"] == nil {
				return
			}
			_, err := job.Write(ctx, "watch-1", `{"points":-1}`)
			check(err)
		case client.Reset:
			fmt.Println("versions may have been missed: read again")
		}
	}
	// Output:
	// watch-1 version 1 watched: true
	// watch-1 version 2 watched: false
}

func ExampleClient_Cache() {
	job, view := example()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(client.Config{Views: []string{view}})
	check(err)
	defer c.Close()
	place, err := job.Write(ctx, "cache-1", `{"points":7}`)
	check(err)
	_, err = c.Get(ctx, "cache-1", client.AtLeast(place.String()), client.Wait(within))
	check(err)

	cache, err := c.Cache(ctx, client.Prefix("cache-")) // loaded now, and kept right from now on
	check(err)
	defer cache.Close()

	a, err := cache.Get(ctx, "cache-1")
	check(err)
	fmt.Println(a.State.Totals["points"].GetStringValue(), "from memory:", a.Cached)

	// What it cannot know to be right, it asks for.
	place, err = job.Write(ctx, "cache-1", `{"points":1}`)
	check(err)
	a, err = cache.Get(ctx, "cache-1", client.AtLeast(place.String()), client.Wait(within))
	check(err)
	fmt.Println(a.State.Totals["points"].GetStringValue(), "from memory:", a.Cached)
	// Output:
	// 7 from memory: true
	// 8 from memory: false
}
