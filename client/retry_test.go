package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

func TestRetry_AViewThatIsNotWellIsPassedOver(t *testing.T) {
	for name, sick := range map[string]http.Handler{
		"not ready":   &fake{get: refuses(connect.CodeUnavailable, 1)},
		"too old":     &fake{get: refuses(connect.CodeUnavailable, 1, &pb.Freshness{})},
		"over limits": &fake{get: refuses(connect.CodeResourceExhausted, 1)},
		"broken":      &fake{get: refuses(connect.CodeInternal, 0)},
		"unreachable": nil,
		"a proxy": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>Bad Gateway</h1>", http.StatusBadGateway)
		}),
	} {
		synctest.Test(t, func(t *testing.T) {
			well, toSick := &fake{get: answers}, 0
			hosts := inMemory{"well": well}
			if sick != nil {
				hosts["sick"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					toSick++
					sick.ServeHTTP(w, r)
				})
			}
			c := mustClient(t, func(cfg *Config) { cfg.Transport = hosts }, "http://sick", "http://well")
			start := time.Now()
			for range 1000 {
				if _, err := c.Get(t.Context(), "a"); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if waited := time.Since(start); waited != 0 {
				t.Errorf("%s: waited %s though another view is well", name, waited)
			}
			if toSick > 1 || well.asked.Load() != 1000 {
				t.Errorf("%s: asked the sick view %d times and the other %d, want 1 at most and 1000", name, toSick, well.asked.Load())
			}
			time.Sleep(time.Minute) // of the test's own time
			first := c.pick(nil)
			if second := c.pick(nil); first == second {
				t.Errorf("%s: a minute later it is still passed over", name)
			}
			alone := mustClient(t, func(cfg *Config) { cfg.Transport, cfg.AttemptsMax = hosts, 1 }, "http://sick", "http://well")
			if _, err := alone.Get(t.Context(), "a"); err != nil { // the control: round robin begins with either
				return
			}
			if _, err := alone.Get(t.Context(), "a"); err == nil {
				t.Errorf("%s: without another attempt both requests were answered", name)
			}
		})
	}
}

// TestRetry_TheBudgetBoundsWhatIsAdded: where no view is well, clients do not multiply the load.
func TestRetry_TheBudgetBoundsWhatIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 500
		load := func(ratio float64) int {
			down := &fake{get: refuses(connect.CodeUnavailable, 0)}
			c := mustClient(t, func(cfg *Config) { cfg.Transport, cfg.RetryRatio, cfg.RetryBurst = inMemory{"down": down}, ratio, 50 }, "http://down")
			for range requests {
				if _, err := c.Get(t.Context(), "a"); !errors.Is(err, ErrNotReady) {
					t.Fatalf("got %v, want %v", err, ErrNotReady)
				}
			}
			return int(down.asked.Load())
		}
		if got := load(0.1); got < requests+requests/10 || got > requests+requests/10+50 {
			t.Errorf("%d requests cost %d, want a tenth more and the burst of 50", requests, got)
		}
		if got := load(1000); got != requests*4 { // the control
			t.Errorf("without a bound: %d requests cost %d, want four times as many", requests, got)
		}
	})
}

func TestRetry_HonoursRetryAfterAndTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := 1
		view := &fake{get: func(req *pb.GetRequest) (*pb.GetResponse, error) {
			if left--; left >= 0 {
				return nil, refusal(connect.CodeResourceExhausted, 7)
			}
			return answers(req)
		}}
		c := mustClient(t, func(cfg *Config) { cfg.Transport = inMemory{"view": view} }, "http://view")
		start := time.Now()
		if _, err := c.Get(t.Context(), "a"); err != nil || time.Since(start) < 7*time.Second || time.Since(start) > 8*time.Second {
			t.Errorf("got %v after %s, want an answer after the 7 s that the view named", err, time.Since(start))
		}
		left, start = 1, time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var e *Error
		if _, err := c.Get(ctx, "a"); !errors.Is(err, ErrRateLimited) || !errors.As(err, &e) || e.RetryAfter != 7*time.Second || time.Since(start) != 0 {
			t.Errorf("got %v after %s, want the view's refusal at once: the context ends before it is worth asking again", err, time.Since(start))
		}
		left, start = 1<<30, time.Now()
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if _, err := c.Get(gone, "a"); err == nil || time.Since(start) != time.Second {
			t.Errorf("got %v after %s, want it to end with its context", err, time.Since(start))
		}
	})
}

func TestRetry_NeverWhereItCannotHelp(t *testing.T) {
	for code, kind := range map[connect.Code]error{
		connect.CodeInvalidArgument: ErrInvalid, connect.CodeNotFound: ErrNotFound, connect.CodeFailedPrecondition: ErrGone,
		connect.CodeUnauthenticated: ErrDenied, connect.CodePermissionDenied: ErrDenied,
	} {
		view := &fake{get: refuses(code, 0)}
		c := mustClient(t, nil, view.serve(t))
		if _, err := c.Get(t.Context(), "a"); !errors.Is(err, kind) || view.asked.Load() != 1 {
			t.Errorf("%s: got %v after %d requests, want %v after one", code, err, view.asked.Load(), kind)
		}
	}
	late := &fake{get: refuses(connect.CodeDeadlineExceeded, 0, &pb.Freshness{Position: 9})}
	c := mustClient(t, nil, late.serve(t))
	if _, err := c.Get(t.Context(), "a", AtLeast("0@9")); !errors.Is(err, ErrLate) || late.asked.Load() != 1 {
		t.Errorf("late: got %v after %d requests, want one: its time is used up", err, late.asked.Load())
	}
}

// TestClient_SendsTokensAndTraces also to no other place than the views.
func TestClient_SendsTokensAndTraces(t *testing.T) {
	var got []string
	view := &fake{get: answers, headers: func(h http.Header) { got = append(got, h.Get("Authorization"), h.Get("Traceparent")) }}
	n := 0
	with := func(cfg *Config) {
		cfg.Token = func(context.Context) (string, error) {
			if n++; n > 1 {
				return "", errors.New("the issuer is away")
			}
			return "t1", nil
		}
		cfg.Propagate = func(ctx context.Context, h http.Header) { h.Set("Traceparent", ctx.Value(traceKey{}).(string)) }
	}
	c := mustClient(t, with, view.serve(t))
	ctx := context.WithValue(t.Context(), traceKey{}, "00-trace")
	if _, err := c.Get(ctx, "a"); err != nil || fmt.Sprint(got) != "[Bearer t1 00-trace]" {
		t.Errorf("got %v, the view was sent %q", err, got)
	}
	if _, err := c.Get(ctx, "a"); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "the issuer is away") {
		t.Errorf("without a token: got %v, want %v", err, ErrDenied)
	}
	elsewhere := &fake{get: answers}
	to := elsewhere.serve(t)
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer away.Close()
	c = mustClient(t, func(cfg *Config) { cfg.AttemptsMax = 1 }, away.URL)
	if _, err := c.Get(ctx, "a"); err == nil || elsewhere.asked.Load() != 0 {
		t.Errorf("a view that sends elsewhere: got %v, and %d requests went there", err, elsewhere.asked.Load())
	}
}

type traceKey struct{}

func TestConfig_NamesEveryFault(t *testing.T) {
	token := func(context.Context) (string, error) { return "t", nil }
	for want, cfg := range map[string]Config{
		"no view is named":                {},
		"want a URL such as":              {Views: []string{"view:8080"}},
		"a password in a URL":             {Views: []string{"http://u:p@view"}},
		"the token could be read":         {Views: []string{"http://10.0.0.1:8080"}, Token: token},
		"a number is below zero":          {Views: []string{"http://view"}, Timeout: -1},
		`view "ftp://b": want a URL such`: {Views: []string{"http://a", "ftp://b"}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for _, cfg := range []Config{
		{Views: []string{"http://127.0.0.1:1/"}, Token: token},
		{Views: []string{"https://view"}, Token: token},
		{Views: []string{"http://10.0.0.1"}, Token: token, TokenInPlain: true},
	} {
		if _, err := New(cfg); err != nil {
			t.Errorf("%v: %v", cfg.Views, err)
		}
	}
}
