package view

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// Half a request for a stream is sent away in the time that any request has, and a stream whose request came whole outlives
// that time. The control is a server that gives requests all the time there is.
func TestWatch_HalfARequestIsSentAwayAndAStreamIsNot(t *testing.T) {
	const short = 300 * time.Millisecond
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{Heartbeat: short / 4}).ready()
	serve := func(read time.Duration) string {
		s := httptest.NewUnstartedServer(r.Handler())
		s.Config.ReadTimeout = read
		s.Config.Protocols = &http.Protocols{}
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		return s.URL
	}
	limited, free := serve(short), serve(0)
	one := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for protocol, client := range map[string]*http.Client{"HTTP/1.1": one, "HTTP/2": h2c(t)} {
		// half sends the first byte of a message and tells whether an answer comes.
		half := func(url string, within time.Duration) bool {
			body, more := io.Pipe()
			defer more.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+tidemarkv1connect.ViewWatchProcedure, io.MultiReader(strings.NewReader("\x00"), body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/connect+json")
			ended := make(chan struct{})
			go func() {
				resp, err := client.Do(req)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					defer resp.Body.Close() // which waits for the pipe
				}
				close(ended)
			}()
			select {
			case <-ended:
				return true
			case <-time.After(within):
				return false
			}
		}
		if !half(limited, 20*time.Second) {
			t.Errorf("%s: half a request holds a connection for ever", protocol)
		}
		if half(free, 3*short) {
			t.Errorf("control: %s: half a request ends without the limit too, so the test shows nothing", protocol)
		}
		stream, err := tidemarkv1connect.NewViewClient(client, limited).Watch(t.Context(), &pb.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); time.Since(start) < 3*short; {
			if !stream.Receive() {
				t.Fatalf("%s: the stream ended after %v: %v", protocol, time.Since(start), stream.Err())
			}
		}
		_ = stream.Close()
	}
}
