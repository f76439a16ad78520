package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// A token goes to nobody on the way: other machines get it over https alone.
func TestView_ATokenIsNotSentInClear(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		view, token string
		fault       string // "": it may be asked
	}{
		{"view.example.com:8080", "a.secret", "https://view.example.com:8080"},
		{"http://view.example.com:8080", "a.secret", "the token could be read on its way"},
		{"http://10.0.0.1:8080", "a.secret", "the token could be read on its way"},
		{"http://localhost.example.com", "a.secret", "the token could be read on its way"},
		{"http://user:a.secret@127.0.0.1:8080", "", "a password in a URL"},
		{"http://127.0.0.1:8080/?token=a.secret", "", "want an address"},
		{"https://view.example.com:8080", "a.secret", ""},
		{"http://127.0.0.1:8080", "a.secret", ""},
		{"http://[::1]:8080", "a.secret", ""},
		{"localhost:8080", "a.secret", ""},
		{"http://view.example.com:8080", "", ""}, // the control
	} {
		switch _, err := newViewReader(c.view, c.token, &globals{}); {
		case c.fault == "" && err != nil:
			t.Errorf("%s: %v", c.view, err)
		case c.fault != "" && (err == nil || exitCode(err) != exitUser || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s with the token %q: got %v, want a usage error with %q", c.view, c.token, err, c.fault)
		case err != nil && strings.Contains(err.Error(), "user:a.secret"):
			t.Errorf("%s: the error shows the secret: %v", c.view, err)
		}
	}
}

// Who is asked sends the token nowhere else.
func TestView_ATokenFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var reached atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			reached.Store(true)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect) // the same host, for which net/http keeps the header
	}))
	defer s.Close()
	v, err := newViewReader(s.URL, "a.secret", &globals{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.get(t.Context(), []string{"a"}); err == nil || !strings.Contains(err.Error(), "307") || reached.Load() {
		t.Errorf("got %v, and the request was sent on: %v", err, reached.Load())
	}
}
