// Package client asks the views of a Tidemark job: for one state, many, all, or those that bear a flag; it watches for changes,
// keeps caches right by them, and writes events.
//
//	c, err := client.New(client.Config{Views: []string{"https://view-1:8080", "https://view-2:8080"}})
//	a, err := c.Get(ctx, "user-17", client.MaxAge(time.Second))
//
// Every answer says as of which position in the job's input it is, and how old. What an answer promises is in docs/view.md; what
// the client adds is in docs/client.md.
//
// client.go has the client and what it can be told, views.go which view is asked and when again, read.go, batch.go and list.go the
// reads, watch.go the watch, session.go reads of one's own writes, cache.go and its like the cache.
//
// The package knows the service (proto/tidemark/v1) and nothing else of Tidemark.
package client
