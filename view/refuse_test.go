package view

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A network of IPv6 is one client of watchers, as it is one of requests: whoever has a network has very many addresses. The
// control is another network.
func TestWatch_ANetworkOfIPv6IsOneClient(t *testing.T) {
	w := mustTable(t, embedded(t), 1)
	w.begin()
	r := w.viewWith(t.TempDir(), WatchConfig{PerClientMax: 1}).ready()
	watcher, err := r.View.Watch(WatchRequest{Client: clientOf(t.Context(), "[2001:db8:0:1::1]:1")})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	for remote, want := range map[string]int{"[2001:db8:0:1:ffff::2]:2": http.StatusTooManyRequests, "[2001:db8:0:2::1]:1": http.StatusOK} {
		ctx, end := context.WithCancel(t.Context())
		req, answer := httptest.NewRequestWithContext(ctx, "GET", "/v1/watch", nil), httptest.NewRecorder()
		req.RemoteAddr = remote
		end() // it is answered, and nobody waits for more
		r.View.Handler().ServeHTTP(answer, req)
		if answer.Code != want {
			t.Errorf("%s: got %d %s, want %d", remote, answer.Code, answer.Body, want)
		}
	}
}

func TestAddressOf_TellsClientsApart(t *testing.T) {
	for remote, want := range map[string]string{
		"10.0.0.1:80": "10.0.0.1", "[::ffff:10.0.0.1]:9": "10.0.0.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::", "[fe80::1%eth0]:80": "fe80::",
		"nowhere": "invalid IP", "": "invalid IP", "@": "invalid IP",
	} {
		if got := AddressOf(remote).String(); got != want {
			t.Errorf("%q: got %s, want %s", remote, got, want)
		}
	}
}
