package guard

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
)

// everyRoute gives all paths that a view has: those of the OpenAPI document, the methods of the service with their bindings,
// health, reflection, and what the program adds. Nothing of it comes from the table.
func everyRoute(t testing.TB) []string {
	t.Helper()
	var doc struct{ Paths map[string]any }
	if err := json.Unmarshal(pb.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	all := []string{
		"/metrics", "/openapi.json", "/", "/v1/watch", "/v1/events", "/" + grpchealth.HealthV1ServiceName + "/Check", "/" + grpchealth.HealthV1ServiceName + "/Watch",
		"/" + grpcreflect.ReflectV1ServiceName + "/ServerReflectionInfo", "/" + grpcreflect.ReflectV1AlphaServiceName + "/ServerReflectionInfo",
	}
	for path := range doc.Paths {
		if !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	services := pb.File_tidemark_v1_view_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			all = append(all, "/"+string(services.Get(i).FullName())+"/"+string(methods.Get(j).Name()))
		}
	}
	return all
}

// want is what the design says of each route, beside the table.
func want(path string) Role {
	switch name := path[strings.LastIndexByte(path, '/')+1:]; {
	case path == "/", path == "/healthz", path == "/readyz", strings.HasPrefix(path, "/grpc.health"):
		return Open
	case path == "/openapi.json", strings.HasPrefix(path, "/grpc.reflection"):
		return Known
	case path == "/metrics":
		return Admin
	case name == "watch", name == "Watch":
		return Watch
	case name == "events", name == "Produce":
		return Produce
	}
	return Read
}

// Every route of the service and of the OpenAPI document, with every method that could reach it and in every protocol, is
// open to whoever has its role, and to nobody else. The control is the same view without anybody asking.
func TestRoutes_NoneIsReachableWithoutItsRole(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	next := idleView(t)
	guarded, open := mustServe(t, Config{Principals: path}, next), mustServe(t, Config{}, next)
	one, two := plainClient(t), h2c(t)
	for _, route := range everyRoute(t) {
		need := want(route)
		uri := strings.NewReplacer("{id}", "a%2Fb", "{flag}", "big").Replace(route)
		for who, token := range map[string]string{"": "", "read": tokens["read"], "watch": tokens["watch"], "produce": tokens["produce"], "admin": tokens["admin"]} {
			may := need == Open || who != "" && (need == Known || who == "admin" || who == need.String())
			for _, c := range calling(route) {
				var headers []string
				if who != "" {
					headers = bearer(token)
				}
				client := one
				if strings.HasPrefix(c.contentType, "application/grpc") {
					client = two
				}
				if c.contentType != "" {
					headers = append(headers, "Content-Type", c.contentType)
				}
				code := outcome(guarded.ask(client, c.method, uri+c.query, c.body, headers...))
				refused := code == connect.CodeUnauthenticated || code == connect.CodePermissionDenied
				if refused == may || refused && (code == connect.CodeUnauthenticated) != (who == "") {
					t.Errorf("%s %s as %q: got %v, and it is meant for %v", c.method, uri, who, code, need)
				}
				if code := outcome(open.ask(client, c.method, uri+c.query, c.body, headers...)); code == connect.CodeUnauthenticated || code == connect.CodePermissionDenied {
					t.Errorf("control: %s %s: got %v where nobody is asked", c.method, uri, code)
				}
			}
		}
	}
}

type way struct{ method, query, contentType, body string }

// calling gives the ways in which a route can be asked for.
func calling(route string) []way {
	frame := "\x00\x00\x00\x00\x00"
	if strings.HasPrefix(route, "/tidemark.") || strings.HasPrefix(route, "/grpc.") {
		return []way{
			{"POST", "", "application/grpc", frame},
			{"POST", "", "application/grpc+proto", frame},
			{"POST", "", "application/grpc-web+proto", frame},
			{"POST", "", "application/json", "{}"},
			{"POST", "", "application/proto", ""},
			{"POST", "", "application/connect+json", frame},
			{"GET", "?connect=v1&encoding=json&message=%7B%7D", "", ""},
			{"GET", "", "", ""},
			{"POST", "", "text/plain", "x"},
			{"PUT", "", "", ""},
		}
	}
	return []way{{"GET", "", "", ""}, {"HEAD", "", "", ""}, {"POST", "", "application/json", "{}"}, {"PUT", "", "", ""}, {"OPTIONS", "", "", ""}, {"DELETE", "", "", ""}}
}

// outcome is the code of an answer in any protocol.
func outcome(a answer) connect.Code {
	if text := a.header.Get("Grpc-Status"); text != "" {
		return grpcCode(text)
	}
	if strings.HasPrefix(a.header.Get("Content-Type"), "application/connect") {
		for _, code := range []connect.Code{connect.CodeUnauthenticated, connect.CodePermissionDenied} {
			if strings.Contains(strings.ReplaceAll(a.body, " ", ""), `"code":"`+code.String()+`"`) {
				return code
			}
		}
	}
	return map[int]connect.Code{http.StatusUnauthorized: connect.CodeUnauthenticated, http.StatusForbidden: connect.CodePermissionDenied}[a.status]
}

// The table names everything that a view has, nothing more, and says of it what the design says.
func TestRoutes_TheTableIsComplete(t *testing.T) {
	t.Parallel()
	all := everyRoute(t)
	for _, name := range all {
		i := slices.IndexFunc(routes, func(r Route) bool { return r.Name == name })
		if i < 0 {
			t.Errorf("%s is not in the table: nobody can reach it", name)
		} else if routes[i].Needs != want(name) {
			t.Errorf("%s needs %v, want %v", name, routes[i].Needs, want(name))
		}
	}
	for i := range routes[:unknownRoute] {
		if !slices.Contains(all, routes[i].Name) {
			t.Errorf("the table has %s, which nothing serves", routes[i].Name)
		}
	}
	if routes[unknownRoute].Name != "unknown" || len(routes) != unknownRoute+1 {
		t.Errorf("the last route is %+v, want unknown", routes[len(routes)-1])
	}
}

// What is in no table is refused to an admin too, whatever would answer.
func TestRoutes_WhatIsInNoTableIsRefused(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	reached := false
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reached = true })
	guarded := mustGuard(t, Config{Principals: path}).Handler(next)
	for _, uri := range []string{"/debug/pprof", "/v2/ids", "/tidemark.v1.View/Erase", "/grpc.health.v2.Health/Check", "/metrics/", "/v1/flags/", "//"} {
		r := httptest.NewRequest("POST", uri, nil)
		r.Header.Set("Authorization", "Bearer "+tokens["admin"])
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		if reached || w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %d %s, reached %v; want 404 by the guard", uri, w.Code, w.Body, reached)
		}
		reached = false
		anonymous := httptest.NewRecorder()
		if guarded.ServeHTTP(anonymous, httptest.NewRequest("POST", uri, nil)); anonymous.Code != http.StatusUnauthorized || reached {
			t.Errorf("%s: got %d without a token, want 401", uri, anonymous.Code)
		}
	}
}

// FuzzRoutes spells paths in every way: whoever may only produce is never given anything else that needs a role. A view that
// does not run answers a read with 503, so that a read which gets through is seen.
func FuzzRoutes(f *testing.F) {
	for _, path := range append(everyRoute(f), "/%6detrics", "/v1%2Fids", "/v1/ids/..", "/v1/ids%2Fa", "/%76%31/ids/a", "//v1/ids/a", "/v1/./ids", "/v1/x/../ids/a", "/tidemark.v1.View/%47et",
		"/tidemark.v1.View//Get", "/tidemark.v1.View/../tidemark.v1.View/Get", "/tidemark.v1.%56iew/Get", "/tidemark%2Ev1.View/Get", "/tidemark.v1.View/Get/", "/grpc.reflection.v1.ServerReflection/%53erverReflectionInfo",
		"/v1/events/../ids/a", "/v1/ids?x=/v1/events", "/v1/flags//ids", "/v1/flags/ids", "/V1/ids", "/v1/ids;/v1/events", "*", "http://elsewhere/v1/ids/a", "/healthz/../v1/ids/a", "/healthz%00/v1/ids") {
		f.Add("GET", path, "")
		f.Add("POST", path, "application/json")
		f.Add("POST", path, "application/grpc")
	}
	path, tokens := people(f)
	guarded := mustGuard(f, Config{Principals: path}).Handler(idleView(f))
	f.Fuzz(func(t *testing.T, method, target, contentType string) {
		r, err := http.NewRequest(method, target, strings.NewReader("{}"))
		if err != nil {
			return
		}
		r.Header = http.Header{"Authorization": {"Bearer " + tokens["produce"]}, "Content-Type": {contentType}}
		r.RequestURI, r.RemoteAddr = target, "127.0.0.1:1"
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		route := routeOf(r)
		if Roles(0).with(Produce).Has(route.Needs) {
			return
		}
		status := w.Code
		if given := w.Header().Get("Grpc-Status"); given != "" {
			status = map[connect.Code]int{connect.CodePermissionDenied: 403, connect.CodeUnimplemented: 404}[grpcCode(given)]
		}
		if !slices.Contains([]int{http.StatusForbidden, http.StatusNotFound, http.StatusNotImplemented, http.StatusMethodNotAllowed}, status) && !strings.HasPrefix(contentType, "application/connect+") {
			t.Errorf("%s %q (%q): got %d %s %v", method, target, contentType, w.Code, w.Body, w.Header())
		}
	})
}

func h2c(t testing.TB) *http.Client {
	transport := &http.Transport{Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// A page from anywhere can make its own name point to this machine, so that a browser here takes the view for the page's own
// server. It cannot make it localhost. The controls are a guard that was not told to look, and one that asks who somebody is.
func TestRoutes_OtherNamesOfThisMachineAreRefusedWhereNobodyIsAsked(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	guards := map[string]*under{
		"on loopback": mustGuard(t, Config{Alone: true, LocalNames: true}), "any name": mustGuard(t, Config{Alone: true}),
		"asking": mustGuard(t, Config{Alone: true, LocalNames: true, Principals: path}),
	}
	for host, local := range map[string]bool{
		"127.0.0.1:8080": true, "127.0.0.1": true, "127.9.9.9:1": true, "localhost:8080": true, "LOCALHOST": true, "[::1]:8080": true, "[::1]": true, "": true,
		"rebound.example.com:8080": false, "rebound.example.com": false, "localhost.example.com": false, "127.0.0.1.example.com:8080": false,
		"10.0.0.1:8080": false, "[2001:db8::1]:8080": false, "0.0.0.0:8080": false, "localhost:80:80": false, "\x1b": false,
	} {
		for name, u := range guards {
			for _, path := range []string{"/v1/ids/a", "/v1/events", "/metrics", "/", "/healthz"} {
				r := httptest.NewRequest("GET", path, nil)
				r.Host = host
				r.Header.Set("Authorization", "Bearer "+tokens["admin"])
				w := httptest.NewRecorder()
				u.Handler(who()).ServeHTTP(w, r)
				if want := local || name != "on loopback"; (w.Code == http.StatusOK) != want || !want && w.Code != http.StatusForbidden {
					t.Errorf("%s, %s of the host %q: got %d %s, want it answered: %v", name, path, host, w.Code, w.Body, want)
				}
			}
		}
	}
}
