package guard

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// gate is a handler whose requests wait until they are let go; it tells how many wait.
type gate struct {
	in  chan string
	out chan struct{}
}

func newGate(t testing.TB) *gate {
	g := &gate{make(chan string, 100), make(chan struct{})}
	t.Cleanup(func() { close(g.out) })
	return g
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.in <- r.URL.Path
	select {
	case <-g.out:
	case <-r.Context().Done():
	}
}

// call is a request without a network.
func (u *under) call(from, path string, headers ...string) *httptest.ResponseRecorder {
	return u.callWith(who(), from, path, headers...)
}

func (u *under) callWith(next http.Handler, from, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.RemoteAddr = from
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	u.Handler(next).ServeHTTP(w, r)
	return w
}

// refusedAs requires a 429 with Retry-After that was counted under a reason.
func (u *under) refusedAs(w *httptest.ResponseRecorder, why string) {
	u.t.Helper()
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"code":"resource_exhausted"`) {
		u.t.Errorf("%s: got %d %s %v, want 429 resource_exhausted with Retry-After", why, w.Code, w.Body, w.Header())
	}
	if u.figure("tidemark_guard_refused_total", "reason", why) == 0 {
		u.t.Errorf("no refusal was counted as %s", why)
	}
}

func TestLimits_BodiesAndURLsAreBounded(t *testing.T) {
	t.Parallel()
	reads := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		fmt.Fprint(w, len(b))
	})
	small, usual := mustServe(t, Config{Limits: Limits{BodyBytesMax: 1000, URLBytesMax: 100}}, reads), mustServe(t, Config{}, reads)
	long := "/v1/ids/" + strings.Repeat("x", 100)
	post := func(u *under, size int, declared bool) int {
		var body io.Reader = strings.NewReader(strings.Repeat("x", size))
		if !declared {
			body = io.MultiReader(body)
		}
		resp, err := plainClient(t).Post(u.url+"/v1/ids:batchGet", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for _, declared := range []bool{true, false} {
		if got := post(small, 1000, declared); got != 200 {
			t.Errorf("a body at the limit: got %d", got)
		}
		if got := post(small, 1001, declared); got != 400 {
			t.Errorf("a body beyond the limit, its size declared %v: got %d, want 400", declared, got)
		}
		if got := post(usual, 1001, declared); got != 200 { // the control
			t.Errorf("control: the same body under the usual limit: got %d", got)
		}
	}
	if a := small.get(long); a.status != 400 || a.code != "invalid_argument" {
		t.Errorf("a long URL: got %d %s, want 400", a.status, a.body)
	}
	if a := usual.get(long); a.status != 200 {
		t.Errorf("control: the same URL under the usual limit: got %d %s", a.status, a.body)
	}
}

// The body of a stream's request is bounded too, whether its sender has a name or not, and whether its size is declared or not.
func TestLimits_BodiesOfWatchersAreBounded(t *testing.T) {
	t.Parallel()
	const most = 1000
	path, tokens := people(t)
	limits := Limits{BodyBytesMax: most}
	for name, cfg := range map[string]Config{"nobody is asked": {Limits: limits}, "by a principal": {Principals: path, Limits: limits}} {
		u := mustGuard(t, cfg)
		for _, size := range []int{most, 10 * most} {
			var read int
			var fault error
			next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				var b []byte
				b, fault = io.ReadAll(r.Body)
				read = len(b)
			})
			r := httptest.NewRequest("POST", tidemarkv1connect.ViewWatchProcedure, io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
			r.Header.Set("Authorization", "Bearer "+tokens["watch"])
			u.Handler(next).ServeHTTP(httptest.NewRecorder(), r)
			if read != most || (fault != nil) != (size > most) {
				t.Errorf("%s: of a body of %d bytes %d were read, and then %v; want %d", name, size, read, fault, most)
			}
		}
	}
}

// Requests under way are bounded in all, and of one client; streams have places of their own, and probes are answered under
// any load. The controls are the requests below the limit.
func TestLimits_RequestsUnderWayAreBounded(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	const all, each, streams = 5, 3, 2
	u := mustGuard(t, Config{Principals: path, Limits: Limits{RequestsMax: all, ClientRequestsMax: each, StreamsMax: streams}})
	g := newGate(t)
	open := func(token, path string) {
		t.Helper()
		go u.callWith(g, "10.0.0.1:1", path, bearer(token)...)
		if got := <-g.in; got != path {
			t.Fatalf("%s was reached, want %s", got, path)
		}
	}
	for range each {
		open(tokens["read"], "/v1/ids/a")
	}
	u.refusedAs(u.call("10.0.0.1:1", "/v1/ids/a", bearer(tokens["read"])...), "client_requests_max")
	for range all - each {
		open(tokens["admin"], "/v1/ids/a")
	}
	u.refusedAs(u.call("10.0.0.2:1", "/v1/ids/a", bearer(tokens["admin"])...), "requests_max")
	if w := u.call("10.0.0.2:1", "/v1/events", bearer(tokens["produce"])...); w.Code != http.StatusOK {
		t.Errorf("a producer, with all places of readers taken: got %d %s", w.Code, w.Body)
	}
	for range streams {
		open(tokens["watch"], "/v1/watch")
	}
	u.refusedAs(u.call("10.0.0.2:1", "/v1/watch", bearer(tokens["watch"])...), "streams_max")
	if w := u.call("10.0.0.2:1", "/healthz"); w.Code != http.StatusOK {
		t.Errorf("a probe at full load: got %d %s", w.Code, w.Body)
	}
	if got := u.figure("tidemark_guard_requests_in_flight"); got != all {
		t.Errorf("%v requests are under way by the metrics, want %d", got, all)
	}
	g.out <- struct{}{} // whichever
	until(t, "a place is free again", func() bool {
		return u.call("10.0.0.2:1", "/v1/ids/a", bearer(tokens["admin"])...).Code == http.StatusOK || u.call("10.0.0.2:1", "/v1/watch", bearer(tokens["watch"])...).Code == http.StatusOK
	})
}

// A client that asks too fast is refused, and others are not. Whoever has a name is a client wherever he calls from; else an
// address is one, or a network of IPv6.
func TestLimits_EachClientHasARateOfItsOwn(t *testing.T) {
	t.Parallel()
	const burst = 5
	path, tokens := people(t)
	limits := Limits{ClientRate: 1e-3, ClientBurst: burst}
	drain := func(u *under, from string, headers ...string) *httptest.ResponseRecorder {
		t.Helper()
		for n := range burst {
			if w := u.call(from, "/v1/ids/a", headers...); w.Code != http.StatusOK {
				t.Fatalf("request %d of %d: got %d %s", n, burst, w.Code, w.Body)
			}
		}
		return u.call(from, "/v1/ids/a", headers...)
	}
	named := mustGuard(t, Config{Principals: path, Limits: limits})
	w := drain(named, "10.0.0.1:1", bearer(tokens["read"])...)
	named.refusedAs(w, "client_rate")
	if w.Header().Get("Retry-After") != "1000" {
		t.Errorf("Retry-After is %s at a request in 1000 s", w.Header().Get("Retry-After"))
	}
	named.refusedAs(named.call("10.9.9.9:1", "/v1/ids/a", bearer(tokens["read"])...), "client_rate")
	if w := named.call("10.0.0.1:1", "/v1/ids/a", bearer(tokens["admin"])...); w.Code != http.StatusOK {
		t.Errorf("another client of the same address: got %d %s", w.Code, w.Body)
	}
	nameless := mustGuard(t, Config{Limits: limits})
	nameless.refusedAs(drain(nameless, "10.0.0.1:1"), "client_rate")
	nameless.refusedAs(nameless.call("[::ffff:10.0.0.1]:9", "/v1/ids/a"), "client_rate")
	nameless.refusedAs(drain(nameless, "[2001:db8:0:1::1]:1"), "client_rate")
	nameless.refusedAs(nameless.call("[2001:db8:0:1:ffff::2]:2", "/v1/ids/a"), "client_rate")
	for _, other := range []string{"10.0.0.2:1", "[2001:db8:0:2::1]:1"} {
		if w := nameless.call(other, "/v1/ids/a"); w.Code != http.StatusOK {
			t.Errorf("%s: got %d %s, want 200", other, w.Code, w.Body)
		}
	}
	free := mustGuard(t, Config{Alone: true}) // the control
	for range 10 * burst {
		if w := free.call("127.0.0.1:1", "/v1/ids/a"); w.Code != http.StatusOK {
			t.Fatalf("control: without a rate: got %d %s", w.Code, w.Body)
		}
	}
}

// Whoever tries tokens is soon not heard any more; those of the same address whose token is right are.
func TestLimits_WrongTokensAreBounded(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	try := func(failures float64) (refused int, u *under) {
		u = mustGuard(t, Config{Principals: path, Limits: Limits{ClientFailures: failures}})
		for n := range 100 {
			if w := u.call("10.0.0.1:1", "/v1/ids/a", bearer(fmt.Sprint("read.", n))...); w.Code == http.StatusTooManyRequests {
				refused++
			} else if w.Code != http.StatusUnauthorized {
				t.Fatalf("a wrong token: got %d %s", w.Code, w.Body)
			}
		}
		return refused, u
	}
	refused, u := try(0.2)
	if refused != 99 {
		t.Errorf("%d of 100 wrong tokens were not looked at, want 99", refused)
	}
	u.refusedAs(u.call("10.0.0.1:1", "/v1/ids/a", bearer("x")...), "too_many_failures")
	if w := u.call("10.0.0.1:1", "/v1/ids/a", bearer(tokens["read"])...); w.Code != http.StatusOK {
		t.Errorf("the right token from that address: got %d %s", w.Code, w.Body)
	}
	if w := u.call("10.0.0.2:1", "/v1/ids/a", bearer("x")...); w.Code != http.StatusUnauthorized {
		t.Errorf("a wrong token from another address: got %d %s", w.Code, w.Body)
	}
	if refused, _ := try(1e6); refused != 0 {
		t.Errorf("control: %d were refused without the bound", refused)
	}
}

// The table of clients stays small whoever comes, and nobody is let off by a flood of others.
func TestLimits_TheTableOfClientsIsBounded(t *testing.T) {
	t.Parallel()
	const most = 100
	l := &Limits{ClientsMax: most, ClientRate: 1, ClientBurst: 2, ClientFailures: 1}
	c := newClients[netip.Addr](l)
	now := time.Now()
	greedy := netip.MustParseAddr("10.0.0.1")
	for range 3 {
		c.of(greedy, now).rate.AllowN(now, 1)
	}
	next := greedy
	for range 100 * most {
		next = next.Next()
		c.of(next, now).rate.AllowN(now, 1)
	}
	if len(c.all) > most {
		t.Errorf("the table has %d clients, want at most %d", len(c.all), most)
	}
	if c.of(greedy, now).rate.AllowN(now, 1) {
		t.Error("a flood of others has let off one who was too fast")
	}
	if late := c.of(next.Next(), now); late != c.rest || late.rate.AllowN(now, 1) {
		t.Error("those for whom there is no room are not one client together")
	}
	now = now.Add(time.Hour) // all are as if they had never come
	if c.of(next, now) == c.rest || len(c.all) != 1 {
		t.Errorf("after an hour the table has %d clients, want the newest alone", len(c.all))
	}
}

// One address cannot take all connections. The control is a listener without the bound.
func TestListener_ConnectionsOfOneAddressAreBounded(t *testing.T) {
	t.Parallel()
	const most = 3
	for _, bound := range []int{most, 0} {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: who()}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(Listener(inner, 100, bound)) }()
		answered := func(conn net.Conn) bool {
			fmt.Fprint(conn, "GET /v1/ids/a HTTP/1.1\r\nHost: a\r\n\r\n")
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		}
		dial := func() net.Conn {
			conn, err := net.Dial("tcp", inner.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		var open []net.Conn
		for range most {
			open = append(open, dial())
			if !answered(open[len(open)-1]) {
				t.Fatalf("connection %d is not answered", len(open))
			}
		}
		one := dial()
		if got := answered(one); got != (bound == 0) {
			t.Errorf("bound %d: connection %d is answered: %v", bound, most+1, got)
		}
		one.Close()
		open[0].Close()
		until(t, "there is room again", func() bool {
			conn := dial()
			defer conn.Close()
			return answered(conn)
		})
		for _, conn := range open {
			conn.Close()
		}
		s.Close()
		<-ended
	}
}

func TestLimits_ThoseThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]Limits{
		"negative": {RequestsMax: -1}, "a rate below zero": {ClientRate: -1}, "a body that no view takes": {BodyBytesMax: BodyBytesMost + 1}, "a burst of nothing": {ClientBurst: 5},
	} {
		if _, err := New(Config{Limits: l}); err == nil {
			t.Errorf("%s: a guard was made", name)
		}
	}
}
