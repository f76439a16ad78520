package guard

import (
	"time"

	"connectrpc.com/connect"
)

// reason is why a call was refused, as logs and metrics name it.
type reason uint8

const (
	noCredential reason = iota
	badToken
	badCertificate
	tooManyFailures
	expiredCredential
	noIssuer
	noRole
	noRoute
	otherHost
	tooLarge
	urlTooLong
	tooFast
	tooManyRequests
	tooManyOfClient
	tooManyStreams
	tooManyChecks
	badHandshake // of TLS
	byView       // beyond a limit that the view itself keeps
	reasonsMax
)

var reasonNames = [reasonsMax]string{
	noCredential: "no_credential", badToken: "bad_token", badCertificate: "bad_certificate", tooManyFailures: "too_many_failures",
	expiredCredential: "expired", noIssuer: "no_issuer", noRole: "no_role", noRoute: "no_route", otherHost: "other_host", tooLarge: "too_large", urlTooLong: "url_too_long",
	tooFast: "client_rate", tooManyRequests: "requests_max", tooManyOfClient: "client_requests_max", tooManyStreams: "streams_max", tooManyChecks: "checks_max", badHandshake: "tls_handshake", byView: "view_limit",
}

func (r reason) String() string { return reasonNames[r] }

// refusal is what a caller is told instead of an answer.
type refusal struct {
	reason  reason
	code    connect.Code
	message string
	after   time.Duration // when it is worth asking again; 0: it is not
}

func unauthenticated(why reason, message string) *refusal {
	return &refusal{reason: why, code: connect.CodeUnauthenticated, message: message}
}

func exhausted(why reason, after time.Duration, message string) *refusal {
	return &refusal{reason: why, code: connect.CodeResourceExhausted, message: message, after: after}
}

func invalid(why reason, message string) *refusal {
	return &refusal{reason: why, code: connect.CodeInvalidArgument, message: message}
}
