package guard

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/coreos/go-oidc/v3/oidc"
)

// identify finds out who calls. from is the caller's address, against which wrong tokens count. A token goes before a
// certificate: it says more.
func (g *Guard) identify(r *http.Request, from *client, now time.Time) (*Principal, *refusal) {
	given := r.Header["Authorization"]
	if len(given) == 0 {
		return g.certified(r.TLS, now)
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	if len(given) > 1 || !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, unauthenticated(badToken, "want one header Authorization: Bearer TOKEN")
	}
	if p := g.knownToken(token, now); p != nil {
		if expired(p.Expires, now) {
			return nil, unauthenticated(expiredCredential, "the token has expired")
		}
		return p, nil
	}
	if from.failures.TokensAt(now) < 1 {
		return nil, g.tooManyFailures()
	}
	if g.issuer == nil || !looksLikeJWT(token) {
		return nil, g.failed(from, now, unauthenticated(badToken, "the token is not known"))
	}
	if no := g.enterCheck(from); no != nil {
		return nil, no
	}
	defer g.leaveCheck(from)
	p, no := g.signed(r.Context(), token, now)
	if no != nil { // also when it cannot be checked now: a stranger can see to it that his cannot
		return nil, g.failed(from, now, no)
	}
	return p, nil
}

// How many tokens may wait for the issuer, which can be slow, at once, and of them those of one address.
const (
	checksMax       = 64
	clientChecksMax = 16
)

func (g *Guard) enterCheck(from *client) *refusal {
	if all, one := g.checks.Add(1), from.checks.Add(1); all > checksMax || one > clientChecksMax {
		g.leaveCheck(from)
		return exhausted(tooManyChecks, time.Second, "too many tokens are being checked")
	}
	return nil
}

func (g *Guard) leaveCheck(from *client) {
	g.checks.Add(-1)
	from.checks.Add(-1)
}

// failed counts a token that was not found to be right.
func (g *Guard) failed(from *client, now time.Time, no *refusal) *refusal {
	if !from.failures.AllowN(now, 1) {
		return g.tooManyFailures()
	}
	return no
}

func (g *Guard) tooManyFailures() *refusal {
	return exhausted(tooManyFailures, after(g.cfg.Limits.ClientFailures), "too many wrong tokens came from this address")
}

// knownToken finds tokens that need no signature to be computed.
func (g *Guard) knownToken(token string, now time.Time) *Principal {
	if g.people != nil {
		if p := g.people.current.Load().token(token); p != nil {
			return p
		}
	}
	if g.issuer == nil || !looksLikeJWT(token) {
		return nil
	}
	sum := sha256.Sum256([]byte(token))
	return g.issuer.remembered(&sum, now)
}

func (g *Guard) signed(ctx context.Context, token string, now time.Time) (*Principal, *refusal) {
	sum := sha256.Sum256([]byte(token))
	p, err := g.issuer.verify(ctx, token, &sum, now)
	var late *oidc.TokenExpiredError
	switch {
	case errors.Is(err, errIssuer):
		return nil, &refusal{noIssuer, connect.CodeUnavailable, "the token cannot be checked now: its issuer does not answer", issuerEvery}
	case errors.As(err, &late):
		return nil, unauthenticated(expiredCredential, "the token has expired")
	case err != nil: // the cause holds what the caller wrote
		return nil, unauthenticated(badToken, "the token is not valid here: its signature, issuer, audience or time is wrong")
	}
	return p, nil
}

// certified is who shows a client certificate, which the handshake has verified. It is worth nothing beyond its own end, and
// beyond that of the trust in who signed it.
func (g *Guard) certified(state *tls.ConnectionState, now time.Time) (*Principal, *refusal) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil, unauthenticated(noCredential, "say who you are: Authorization: Bearer TOKEN, or a client certificate")
	}
	from, until := g.tls.current.Load().trust(state.VerifiedChains)
	switch {
	case from == nil: // since the handshake
		return nil, unauthenticated(badCertificate, "the authority of the client certificate is no longer trusted")
	case expired(until, now):
		return nil, unauthenticated(expiredCredential, "the client certificate has expired")
	}
	var people *principals
	if g.people != nil {
		people = g.people.current.Load()
	}
	known := people.cert(state.PeerCertificates[0])
	switch {
	case known == nil:
		return nil, unauthenticated(badCertificate, "the client certificate has neither a SAN nor a common name")
	case expired(known.Expires, now):
		return nil, unauthenticated(expiredCredential, "what the certificate was allowed has expired")
	}
	p := *known
	if p.trusted = from.trusted; p.Expires.IsZero() || until.Before(p.Expires) {
		p.Expires = until
	}
	return &p, nil
}
