package guard

import (
	"net/http"
	"strings"

	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// Route is something that can be asked for, however it is spelt in a path.
type Route struct {
	Name   string // as logs and metrics name it: the path with what it holds in braces, or the procedure
	Needs  Role   // what a caller must have
	Stream bool   // it has no end of its own
	number int    // its place in routes
}

// Paths of REST that hold something.
const (
	idPath   = "/v1/ids/"
	flagPath = "/v1/flags/"
	flagEnd  = "/ids"

	idRoute   = "/v1/ids/{id}"
	flagRoute = "/v1/flags/{flag}/ids"
)

// routes is the one table of what needs which role, whatever the method. What is not in it is refused to everybody.
//
// The page at / and what probes ask are open: none of them holds anything of the job. Reflection and the OpenAPI document
// are for everybody who has said who they are.
var routes = numbered([]Route{
	{Name: idRoute, Needs: Read},
	{Name: flagRoute, Needs: Read},
	{Name: "/v1/ids", Needs: Read},
	{Name: "/v1/ids:batchGet", Needs: Read},
	{Name: "/v1/status", Needs: Read},
	{Name: "/v1/watch", Needs: Watch, Stream: true},
	{Name: "/v1/events", Needs: Produce},
	{Name: "/healthz", Needs: Open},
	{Name: "/readyz", Needs: Open},
	{Name: "/", Needs: Open},
	{Name: "/openapi.json", Needs: Known},
	{Name: metricsRoute, Needs: Admin},

	{Name: tidemarkv1connect.ViewGetProcedure, Needs: Read},
	{Name: tidemarkv1connect.ViewBatchGetProcedure, Needs: Read},
	{Name: tidemarkv1connect.ViewListProcedure, Needs: Read},
	{Name: tidemarkv1connect.ViewListByFlagProcedure, Needs: Read},
	{Name: tidemarkv1connect.ViewStatusProcedure, Needs: Read},
	{Name: tidemarkv1connect.ViewWatchProcedure, Needs: Watch, Stream: true},
	{Name: tidemarkv1connect.ViewProduceProcedure, Needs: Produce},
	{Name: "/" + grpchealth.HealthV1ServiceName + "/Check", Needs: Open},
	{Name: "/" + grpchealth.HealthV1ServiceName + "/Watch", Needs: Open},
	{Name: "/" + grpcreflect.ReflectV1ServiceName + "/ServerReflectionInfo", Needs: Known},
	{Name: "/" + grpcreflect.ReflectV1AlphaServiceName + "/ServerReflectionInfo", Needs: Known},
	unknownRoute: {Name: "unknown", Needs: Admin},
})

const (
	metricsRoute = "/metrics"
	unknownRoute = 23 // the last one: what is in no table
)

func numbered(all []Route) []Route {
	for i := range all {
		all[i].number = i
	}
	return all
}

// exact are the routes whose paths are their names, and the two that hold something.
var exact, one, flagged = func() (map[string]*Route, *Route, *Route) {
	byPath := make(map[string]*Route, len(routes))
	for i := range routes[:unknownRoute] {
		byPath[routes[i].Name] = &routes[i]
	}
	one, flagged := byPath[idRoute], byPath[flagRoute]
	delete(byPath, idRoute)
	delete(byPath, flagRoute)
	return byPath, one, flagged
}()

// routeOf reads the path as view.Handler does: escaped, since an ID may hold slashes and dots. A path that is spelt in any
// other way than the table does it, percent-encoded for one, is unknown.
func routeOf(r *http.Request) *Route {
	path := r.URL.EscapedPath()
	if strings.HasPrefix(path, idPath) {
		return one
	}
	if route := exact[path]; route != nil {
		return route
	}
	if strings.HasPrefix(path, flagPath) && strings.HasSuffix(path, flagEnd) && len(path) >= len(flagPath+flagEnd) {
		return flagged
	}
	return &routes[unknownRoute]
}
