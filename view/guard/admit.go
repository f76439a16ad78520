package guard

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/tidemark/tidemark/view"
)

// enter lets a call in, or says why not.
func (c *call) enter() *refusal {
	g, r, l := c.guard, c.request, &c.guard.cfg.Limits
	from := g.addresses.of(view.AddressOf(r.RemoteAddr), c.start)
	c.client = from
	switch {
	case g.cfg.LocalNames && !g.Asks() && !isLocal(r.Host):
		return &refusal{reason: otherHost, code: connect.CodePermissionDenied, message: fmt.Sprintf("nobody is asked who they are here, so only requests to localhost are answered, not those to %s", plain(r.Host))}
	case len(r.RequestURI) > l.URLBytesMax:
		return invalid(urlTooLong, fmt.Sprintf("the URL is longer than %d bytes", l.URLBytesMax))
	case r.ContentLength > l.BodyBytesMax:
		return invalid(tooLarge, fmt.Sprintf("the body is larger than %d bytes", l.BodyBytesMax))
	}
	if g.Asks() && c.route.Needs != Open { // before it takes a place: who has no name must not keep out those who have one
		if no := c.identify(from); no != nil {
			return no
		}
	}
	if no := c.place(); no != nil {
		return no
	}
	if c.client.rate != nil && !c.client.rate.AllowN(c.start, 1) {
		return exhausted(tooFast, after(l.ClientRate), fmt.Sprintf("more than %g requests a second of this client", l.ClientRate))
	}
	if no := c.allowed(); no != nil {
		return no
	}
	if r.ContentLength != 0 && r.Body != nil { // of c.request, which is no longer r where there is a principal's stream
		c.request.Body = http.MaxBytesReader(c.ResponseWriter, r.Body, l.BodyBytesMax)
	}
	return nil
}

// isLocal tells whether the host that a request names is this machine by a name that nobody else can give. No browser leaves
// it out.
func isLocal(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "" || loopback(strings.ToLower(strings.Trim(host, "[]")))
}

// place takes one of the places that all have together. What is open needs none: a probe is answered under any load.
func (c *call) place() *refusal {
	if c.route.Needs == Open {
		return nil
	}
	p := c.guard.places(c.route)
	switch c.placed = p.enter(); {
	case c.placed:
		return nil
	case c.route.Stream:
		return exhausted(tooManyStreams, time.Second, fmt.Sprintf("%d streams are open, which is the limit; ask another view", p.most))
	}
	return exhausted(tooManyRequests, time.Second, fmt.Sprintf("%d requests are under way, which is the limit", p.most))
}

// identify finds the principal, who then is the client.
func (c *call) identify(from *client) (no *refusal) {
	if c.principal, no = c.guard.identify(c.request, from, c.start); no != nil {
		if from.rate != nil && !from.rate.AllowN(c.start, 1) {
			return exhausted(tooFast, after(c.guard.cfg.Limits.ClientRate), "too many requests without a valid credential from this address")
		}
		return no
	}
	c.client = c.guard.names.of(c.principal.Name, c.start)
	return nil
}

// allowed tells whether the principal may, and has not too much under way.
func (c *call) allowed() *refusal {
	g, p := c.guard, c.principal
	switch {
	case c.route.number == unknownRoute:
		code := connect.CodeNotFound
		if view.IsRPC(c.request.URL.EscapedPath()) {
			code = connect.CodeUnimplemented
		}
		return &refusal{reason: noRoute, code: code, message: "no such path: " + plain(c.request.URL.Path)}
	case p != nil && !p.Roles.Has(c.route.Needs):
		return &refusal{reason: noRole, code: connect.CodePermissionDenied, message: fmt.Sprintf("%s may not do this: it needs the role %s", plain(p.Name), c.route.Needs)}
	case c.route.Needs == Open:
		return nil
	case c.route.Stream:
		if p != nil {
			c.until(p)
		}
		return nil
	}
	if c.held = c.client.requests.Add(1) <= int64(g.cfg.Limits.ClientRequestsMax); !c.held {
		c.client.requests.Add(-1)
		return exhausted(tooManyOfClient, time.Second, fmt.Sprintf("%d requests of this client are under way, which is the limit for one", g.cfg.Limits.ClientRequestsMax))
	}
	return nil
}
