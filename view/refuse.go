package view

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
)

// What stands before a view, such as package guard, tells callers who they are and what they may not, in the view's words.

type clientKey struct{}

// WithClient names the client for whom requests of the context count, where the number of watchers of each is bounded. Without
// it a client is an address (of IPv6, its /64).
func WithClient(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, clientKey{}, name)
}

func clientOf(ctx context.Context, addr string) string {
	if name, ok := ctx.Value(clientKey{}).(string); ok {
		return name
	}
	return AddressOf(addr).String()
}

// ipv6ClientBits is the part of an IPv6 address that tells clients apart: one network is one client (RFC 6177).
const ipv6ClientBits = 64

// AddressOf gives the address by which a caller is told apart, whatever connections of it there are. All whose address is not
// known are one.
func AddressOf(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is6() {
		if network, err := addr.Prefix(ipv6ClientBits); err == nil {
			return network.Addr()
		}
	}
	return addr
}

var rpcErrors = connect.NewErrorWriter()

// Refuse answers a request that does not reach the view, in the protocol that it speaks and in the one shape of errors. A
// retryAfter above zero says when it is worth asking again.
func Refuse(w http.ResponseWriter, r *http.Request, code connect.Code, message string, retryAfter time.Duration) {
	seconds := ""
	if retryAfter > 0 {
		seconds = strconv.FormatInt(int64((retryAfter+time.Second-1)/time.Second), 10)
	}
	if IsRPC(r.URL.EscapedPath()) && rpcErrors.IsSupported(r) {
		err := connect.NewError(code, errors.New(message))
		if seconds != "" {
			err.Meta().Set("Retry-After", seconds)
		}
		_ = rpcErrors.Write(w, r, err) // a caller who has gone hears nothing
		return
	}
	if seconds != "" {
		w.Header().Set("Retry-After", seconds)
	}
	f := &failure{code: code, message: message}
	send(w, outcomes[code], f.appendJSON(nil))
}

// IsRPC tells the paths of gRPC, gRPC-Web and Connect.
func IsRPC(path string) bool {
	return strings.HasPrefix(path, "/tidemark.v1.") || strings.HasPrefix(path, "/grpc.")
}

// CodeOf is the code of an error that was answered with an HTTP status; 0 is none. 504 is taken for what it mostly is, a
// deadline, though an event whose fate is unknown has it too.
func CodeOf(status int) connect.Code {
	if status < http.StatusBadRequest {
		return 0
	}
	for code, known := range outcomes {
		if known == status && code != connect.CodeUnknown {
			return code
		}
	}
	return connect.CodeUnknown
}
