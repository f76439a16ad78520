package guard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/time/rate"
)

// OIDC says whose signed tokens (JWT) are taken.
type OIDC struct {
	Issuer   string // its URL, as tokens name it; discovery and keys are found from it. "": no such tokens are taken
	Audience string // what tokens must be for
	// RolesClaim is the claim with the roles, a list or words (default "roles"); dots lead into objects.
	RolesClaim string
}

func (o *OIDC) validate() error {
	if o.Issuer == "" {
		return nil
	}
	u, err := url.Parse(o.Issuer)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("issuer %q: want a URL such as https://login.example.com", o.Issuer)
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return fmt.Errorf("issuer %s: want https, else anybody on the way could be the issuer", o.Issuer)
	case o.Audience == "":
		return fmt.Errorf("issuer %s without an audience: its tokens for other services would be taken too", o.Issuer)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

const (
	issuerTimeout   = 5 * time.Second
	issuerBytesMax  = 1 << 20
	issuerEvery     = 5 * time.Second // how often strangers' tokens may make us ask the issuer for keys
	verifiedFor     = 5 * time.Minute // how long a token is taken without a look at the keys
	verifiedMost    = 10_000
	tokenBytesMax   = 16 << 10
	rolesClaimUsual = "roles"
)

// errIssuer says that the issuer was not, or could not be, asked.
var errIssuer = errors.New("the issuer of tokens does not answer")

// issuer verifies tokens. Those that it has verified are remembered, so that a signature is not computed for each request.
type issuer struct {
	cfg      OIDC
	to       http.RoundTripper
	timeout  time.Duration                        // of what it is asked
	verifier atomic.Pointer[oidc.IDTokenVerifier] // nil until the issuer was found
	weak     bool                                 // the issuer is asked without a bound: the control of a test

	mu       sync.Mutex // guards verified
	verified map[[sha256.Size]byte]verified
}

type verified struct {
	principal *Principal
	until     time.Time
}

func newIssuer(cfg OIDC) *issuer {
	if cfg.RolesClaim == "" {
		cfg.RolesClaim = rolesClaimUsual
	}
	return &issuer{cfg: cfg, timeout: issuerTimeout, to: http.DefaultTransport.(*http.Transport).Clone(), verified: map[[sha256.Size]byte]verified{}}
}

// asking bounds what the issuer is asked, and what it may answer.
type asking struct {
	most   *rate.Limiter // nil: it is our own doing
	within time.Duration
	to     http.RoundTripper
}

// RoundTrip implements http.RoundTripper. It reads the answer whole, and keeps the time itself: else net/http and go-oidc v3.21.0
// (jwks.go:317) would hide that what went wrong is the issuer's doing, and a right token would be called wrong.
func (a *asking) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.most != nil && !a.most.Allow() {
		return nil, fmt.Errorf("%w: it was asked too often", errIssuer)
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.within)
	defer cancel()
	resp, err := a.to.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errIssuer, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s answers %s", errIssuer, r.URL.Redacted(), resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, issuerBytesMax+1))
	if err == nil && len(body) > issuerBytesMax {
		err = fmt.Errorf("%s answers more than %d bytes", r.URL.Redacted(), issuerBytesMax)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errIssuer, err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// withClient is the context with a client that asks the issuer. The keys are asked for because of what strangers send.
func (i *issuer) withClient(ctx context.Context, most *rate.Limiter) context.Context {
	return oidc.ClientContext(ctx, &http.Client{Transport: &asking{most, i.timeout, i.to}})
}

// discover finds the issuer's keys. It is tried until it succeeds.
func (i *issuer) discover(ctx context.Context) error {
	ctx = i.withClient(ctx, nil)
	provider, err := oidc.NewProvider(ctx, i.cfg.Issuer)
	if err != nil {
		return err
	}
	var doc struct {
		Keys       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&doc); err != nil {
		return err
	}
	var algorithms []string
	for _, a := range doc.Algorithms {
		if strings.HasPrefix(a, "RS") || strings.HasPrefix(a, "ES") || strings.HasPrefix(a, "PS") || a == oidc.EdDSA { // no shared secrets
			algorithms = append(algorithms, a)
		}
	}
	most := rate.NewLimiter(rate.Every(issuerEvery), 3)
	if i.weak {
		most = nil
	}
	keys := &keySet{oidc.NewRemoteKeySet(i.withClient(context.WithoutCancel(ctx), most), doc.Keys)} // it outlives the discovery
	i.verifier.Store(oidc.NewVerifier(i.cfg.Issuer, keys, &oidc.Config{ClientID: i.cfg.Audience, SupportedSigningAlgs: algorithms}))
	return nil
}

type unanswered struct{}

// keySet notes when it had to give up because the issuer did not answer: go-oidc v3.21.0 hides the cause (verify.go:328).
type keySet struct{ remote *oidc.RemoteKeySet }

// VerifySignature implements oidc.KeySet.
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.remote.VerifySignature(ctx, jwt)
	if errors.Is(err, errIssuer) {
		*ctx.Value(unanswered{}).(*bool) = true
	}
	return payload, err
}

// remembered gives the principal of a token that was verified a short time ago.
func (i *issuer) remembered(sum *[sha256.Size]byte, now time.Time) *Principal {
	i.mu.Lock()
	defer i.mu.Unlock()
	v, ok := i.verified[*sum]
	if !ok || !now.Before(v.until) {
		return nil
	}
	return v.principal
}

// verify checks a token. errIssuer is that it cannot be told whether it is right.
func (i *issuer) verify(ctx context.Context, token string, sum *[sha256.Size]byte, now time.Time) (*Principal, error) {
	verifier := i.verifier.Load()
	if verifier == nil {
		return nil, errIssuer
	}
	var mute bool
	t, err := verifier.Verify(context.WithValue(ctx, unanswered{}, &mute), token)
	if mute {
		return nil, errIssuer
	} else if err != nil {
		return nil, err
	}
	if t.Subject == "" {
		return nil, errors.New("the token names no subject")
	}
	var claims map[string]any
	if err := t.Claims(&claims); err != nil {
		return nil, err
	}
	p := &Principal{Name: "oidc:" + t.Subject, Roles: rolesIn(claims, i.cfg.RolesClaim), Expires: t.Expiry}
	i.remember(sum, p, now)
	return p, nil
}

func (i *issuer) remember(sum *[sha256.Size]byte, p *Principal, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.verified) >= verifiedMost { // any part of them: who is forgotten is verified again
		for key := range i.verified {
			if delete(i.verified, key); len(i.verified) <= verifiedMost-verifiedMost/8 {
				break
			}
		}
	}
	until := now.Add(verifiedFor)
	if p.Expires.Before(until) {
		until = p.Expires
	}
	i.verified[*sum] = verified{p, until}
}

// rolesIn reads the roles of a claim. Words that are no role of ours are others' business.
func rolesIn(claims map[string]any, path string) (set Roles) {
	var value any = claims
	if direct, ok := claims[path]; ok { // claims may be URLs
		value = direct
	} else {
		for key := range strings.SplitSeq(path, ".") {
			m, _ := value.(map[string]any)
			value = m[key]
		}
	}
	var words []string
	switch v := value.(type) {
	case string:
		words = strings.Fields(v)
	case []any:
		for _, word := range v {
			if s, ok := word.(string); ok {
				words = append(words, s)
			}
		}
	}
	for _, word := range words {
		if role, ok := roleOf(word); ok {
			set = set.with(role)
		}
	}
	return set
}

// looksLikeJWT tells whether a text looks like a JWT, without believing anything in it.
func looksLikeJWT(text string) bool {
	header, rest, ok := strings.Cut(text, ".")
	return ok && strings.Count(rest, ".") == 1 && strings.HasPrefix(header, "eyJ") && len(text) <= tokenBytesMax
}
