package guard

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// idp is an issuer of tokens.
type idp struct {
	t      testing.TB
	server *httptest.Server
	asked  atomic.Int64 // for its keys
	down   atomic.Bool
	slow   chan struct{} // if not nil, the keys are answered once it is closed
	begins bool          // before that, the answer begins

	mu   sync.Mutex // guards keys
	keys map[string]*ecdsa.PrivateKey
}

func mustIDP(t testing.TB) *idp {
	t.Helper()
	i := &idp{t: t, keys: map[string]*ecdsa.PrivateKey{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		if i.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"id_token_signing_alg_values_supported":["ES256","HS256","none"]}`, i.server.URL, i.server.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		if i.begins {
			fmt.Fprint(w, `{"keys":[`)
			w.(http.Flusher).Flush()
		}
		if i.slow != nil {
			select {
			case <-i.slow:
			case <-r.Context().Done():
			}
		}
		if i.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		var set jose.JSONWebKeySet
		for kid, key := range i.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(set)
	})
	i.server = httptest.NewServer(mux)
	t.Cleanup(i.server.Close)
	i.rotate("k1")
	return i
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rotate replaces all keys.
func (i *idp) rotate(kid string) {
	key := newKey(i.t)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = map[string]*ecdsa.PrivateKey{kid: key}
}

// claims are those of a token that is right, with some of them replaced.
func (i *idp) claims(other map[string]any) map[string]any {
	all := map[string]any{"iss": i.server.URL, "aud": "tidemark", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "roles": []string{"read", "cook"}}
	for name, value := range other {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return all
}

func (i *idp) token(kid string, other map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	key := i.keys[kid]
	i.mu.Unlock()
	return signed(i.t, jose.ES256, key, kid, i.claims(other))
}

func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *idp) config() Config {
	return Config{OIDC: OIDC{Issuer: i.server.URL, Audience: "tidemark"}, Limits: Limits{ClientFailures: 1e6}}
}

// found waits until the guard has found the issuer.
func (u *under) found() *under {
	until(u.t, "the issuer is found", func() bool { return u.issuer.verifier.Load() != nil })
	return u
}

func TestOIDC_OnlyTokensOfTheIssuerForUsAreTaken(t *testing.T) {
	t.Parallel()
	i, other := mustIDP(t), mustIDP(t)
	u := mustServe(t, i.config(), who()).found()
	now := time.Now()
	public, err := i.keys["k1"].PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	unsigned := func(header string) string {
		payload, _ := json.Marshal(i.claims(nil))
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(payload) + "."
	}
	tampered := strings.Split(i.token("k1", map[string]any{"roles": []string{"watch"}}), ".")
	tampered[1] = strings.Split(i.token("k1", map[string]any{"roles": []string{"admin"}}), ".")[1]
	for name, c := range map[string]struct {
		token  string
		status int
		reason string
	}{
		"the right one":               {i.token("k1", nil), 200, ""},
		"roles in one text":           {i.token("k1", map[string]any{"roles": "openid read"}), 200, ""},
		"one audience of several":     {i.token("k1", map[string]any{"aud": []string{"x", "tidemark"}}), 200, ""},
		"another role":                {i.token("k1", map[string]any{"roles": []string{"watch"}}), 403, "no_role"},
		"no roles":                    {i.token("k1", map[string]any{"roles": nil}), 403, "no_role"},
		"roles that are no texts":     {i.token("k1", map[string]any{"roles": map[string]any{"read": true}}), 403, "no_role"},
		"expired":                     {i.token("k1", map[string]any{"exp": now.Add(-time.Minute).Unix()}), 401, "expired"},
		"no expiry":                   {i.token("k1", map[string]any{"exp": nil}), 401, "expired"},
		"not yet":                     {i.token("k1", map[string]any{"nbf": now.Add(time.Hour).Unix()}), 401, "bad_token"},
		"another audience":            {i.token("k1", map[string]any{"aud": "other"}), 401, "bad_token"},
		"no audience":                 {i.token("k1", map[string]any{"aud": nil}), 401, "bad_token"},
		"another issuer's name":       {i.token("k1", map[string]any{"iss": other.server.URL}), 401, "bad_token"},
		"another issuer's key":        {signed(t, jose.ES256, other.keys["k1"], "k1", i.claims(nil)), 401, "bad_token"},
		"no subject":                  {i.token("k1", map[string]any{"sub": nil}), 401, "bad_token"},
		"no signature":                {unsigned(`{"alg":"none"}`), 401, "bad_token"},
		"no signature, with the key":  {unsigned(`{"alg":"none","kid":"k1"}`), 401, "bad_token"},
		"the public key as a secret":  {signed(t, jose.HS256, public, "k1", i.claims(nil)), 401, "bad_token"},
		"claims of another token":     {strings.Join(tampered, "."), 401, "bad_token"},
		"no JWT, though it begins so": {"eyJ.x.y", 401, "bad_token"},
		"one that is very long":       {"eyJ" + strings.Repeat("x", tokenBytesMax) + ".x.y", 401, "bad_token"},
	} {
		for range 2 { // at first, and from memory
			a := u.get("/v1/ids/a", bearer(c.token)...)
			// A wrong signature has the issuer asked for newer keys, and that is bounded.
			if asksIssuer := name == "another issuer's key" || name == "claims of another token"; asksIssuer && a.status == http.StatusServiceUnavailable {
				continue
			}
			if a.status != c.status {
				t.Errorf("%s: got %d %s, want %d", name, a.status, a.body, c.status)
			}
		}
		if c.reason != "" && u.figure("tidemark_guard_refused_total", "reason", c.reason) == 0 {
			t.Errorf("%s: no refusal was counted as %s", name, c.reason)
		}
	}
	for _, line := range u.requests.with(t, "request") {
		if name := line["who"]; name != "" && name != "oidc:alice" {
			t.Errorf("a request is logged as of %q, want oidc:alice", name)
		}
	}
}

// A right token is not called wrong because its issuer is slow, neither before its answer begins nor in the middle of it. The
// control is the same token with an issuer that answers.
func TestOIDC_ARightTokenIsNotWrongWhileTheIssuerIsSlow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		slow, begins bool
		status       int
	}{"no answer": {true, false, 503}, "half an answer": {true, true, 503}, "it answers": {false, false, 200}} {
		i := mustIDP(t)
		if i.begins = c.begins; c.slow {
			i.slow = make(chan struct{})
			defer close(i.slow)
		}
		u := mustGuard(t, i.config()).found()
		u.issuer.timeout = 200 * time.Millisecond
		u.issuer.verifier.Store(nil) // so that it is found again, with that time
		u.found()
		w := u.call("10.0.0.1:1", "/v1/ids/a", bearer(i.token("k1", nil))...)
		if w.Code != c.status || (c.status == 503) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("%s: got %d %s %v, want %d", name, w.Code, w.Body, w.Header(), c.status)
		}
	}
}

// What is remembered of tokens is bounded, and a token that was forgotten is as good as before.
func TestOIDC_WhatIsRememberedIsBounded(t *testing.T) {
	t.Parallel()
	i := newIssuer(OIDC{})
	now := time.Now()
	p := &Principal{Expires: now.Add(time.Hour)}
	for n := range 2 * verifiedMost {
		sum := sha256.Sum256(fmt.Append(nil, n))
		if i.remember(&sum, p, now); len(i.verified) > verifiedMost || i.remembered(&sum, now) != p {
			t.Fatalf("after %d tokens %d are remembered, the newest of them: %v", n+1, len(i.verified), i.remembered(&sum, now))
		}
	}
	if len(i.verified) < verifiedMost/2 {
		t.Errorf("only %d tokens are remembered, of %d that may be", len(i.verified), verifiedMost)
	}
}

// Who was verified is remembered, but not beyond the token's end.
func TestOIDC_WhatIsRememberedExpires(t *testing.T) {
	t.Parallel()
	i := mustIDP(t)
	u := mustServe(t, i.config(), who()).found()
	token := i.token("k1", map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()})
	if a := u.get("/v1/ids/a", bearer(token)...); a.status != http.StatusOK {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	until(t, "the token is refused", func() bool { return u.get("/v1/ids/a", bearer(token)...).status == http.StatusUnauthorized })
}

// Tokens with keys that nobody has heard of make the view ask for keys. A flood of them must not become one of the issuer,
// and new keys are found all the same. The control is the same flood without the bound.
func TestOIDC_AFloodOfStrangeTokensIsNoFloodOfTheIssuer(t *testing.T) {
	t.Parallel()
	const flood = 200
	asked := func(bounded bool) int64 {
		i := mustIDP(t)
		u := mustServe(t, i.config(), who()).found()
		if !bounded {
			u.issuer.weak = true
			u.issuer.verifier.Store(nil)
			u.found()
		}
		stranger := newKey(t)
		for n := range flood {
			token := signed(t, jose.ES256, stranger, fmt.Sprint("strange", n), i.claims(nil))
			if a := u.get("/v1/ids/a", bearer(token)...); a.status != http.StatusUnauthorized && a.status != http.StatusServiceUnavailable {
				t.Fatalf("a strange token: got %d %s", a.status, a.body)
			}
		}
		if !bounded {
			return i.asked.Load()
		}
		i.rotate("k2")
		until(t, "a token of a new key is taken", func() bool {
			a := u.get("/v1/ids/a", bearer(i.token("k2", nil))...)
			if a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
				t.Fatal("a 503 without Retry-After")
			}
			time.Sleep(100 * time.Millisecond) // else this is a flood itself
			return a.status == http.StatusOK
		})
		return i.asked.Load()
	}
	if n := asked(true); n > 20 {
		t.Errorf("the issuer was asked %d times for its keys, for %d strange tokens", n, flood)
	}
	if n := asked(false); n < flood/2 { // go-oidc lets some that come together share a question
		t.Errorf("control: the issuer was asked %d times for %d strange tokens without the bound, so the test shows nothing", n, flood)
	}
}

// Very many right tokens from one address, as behind a NAT, are no wrong ones. The control is the same number of wrong ones.
func TestOIDC_RightTokensDoNotCountAsWrongOnes(t *testing.T) {
	t.Parallel()
	const users = 200
	i := mustIDP(t)
	cfg := i.config()
	cfg.Limits = Limits{ClientFailures: 1}
	for wrong, status := range map[bool]int{false: http.StatusOK, true: http.StatusTooManyRequests} {
		u := mustGuard(t, cfg).found()
		last := 0
		for n := range users {
			claims := map[string]any{"sub": fmt.Sprint("user", n)}
			if wrong {
				claims["aud"] = "others"
			}
			last = u.call("10.0.0.1:1", "/v1/ids/a", bearer(i.token("k1", claims))...).Code
			if !wrong && last != status {
				t.Fatalf("right token %d: got %d, want %d", n, last, status)
			}
		}
		if last != status {
			t.Errorf("control: the last of %d wrong tokens: got %d, want %d", users, last, status)
		}
	}
}

// While the issuer is slow, tokens wait for it, which keeps out nobody whose token needs no issuer, and takes no place of
// requests. The control are those waiting: as many as there are places, or they would all be refused at once.
func TestOIDC_StrangersTakeNoPlaceWhileTheIssuerIsSlow(t *testing.T) {
	t.Parallel()
	const places = 4
	i := mustIDP(t)
	i.slow = make(chan struct{})
	release := sync.OnceFunc(func() { close(i.slow) })
	defer release()
	path, tokens := people(t)
	cfg := i.config()
	cfg.Principals, cfg.Limits.RequestsMax = path, places
	u := mustGuard(t, cfg).found()
	var waiting sync.WaitGroup
	stranger := func(from string) int {
		return u.call(from, "/v1/ids/a", bearer(i.token("k1", map[string]any{"sub": from, "roles": nil}))...).Code
	}
	for range clientChecksMax {
		waiting.Go(func() { stranger("10.0.0.1:1") })
	}
	until(t, "tokens wait for the issuer", func() bool { return u.checks.Load() == clientChecksMax })
	if w := u.call("10.0.0.1:1", "/v1/ids/a", bearer(tokens["read"])...); w.Code != http.StatusOK || u.checks.Load() < places {
		t.Errorf("a token of the file, while %d others wait: got %d %s", u.checks.Load(), w.Code, w.Body)
	}
	u.refusedAs(u.call("10.0.0.1:1", "/v1/ids/a", bearer(i.token("k1", nil))...), "checks_max")
	for n := range checksMax/clientChecksMax - 1 {
		for range clientChecksMax {
			waiting.Go(func() { stranger(fmt.Sprintf("10.0.1.%d:1", n)) })
		}
	}
	until(t, "as many wait as may", func() bool { return u.checks.Load() == checksMax })
	u.refusedAs(u.call("10.0.0.2:1", "/v1/ids/a", bearer(i.token("k1", nil))...), "checks_max")
	release()
	waiting.Wait()
	if w := u.call("10.0.0.2:1", "/v1/ids/a", bearer(i.token("k1", nil))...); w.Code != http.StatusOK || u.checks.Load() != 0 {
		t.Errorf("after the issuer has answered: got %d %s, and %d checks are under way", w.Code, w.Body, u.checks.Load())
	}
}

// A view starts without its issuer, refuses its tokens by name, and takes them as soon as the issuer is there.
func TestOIDC_TheIssuerMayComeLater(t *testing.T) {
	t.Parallel()
	i := mustIDP(t)
	i.down.Store(true)
	u := mustServe(t, i.config(), who())
	a := u.get("/v1/ids/a", bearer(i.token("k1", nil))...)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || a.code != "unavailable" {
		t.Errorf("got %d %s, want 503 with Retry-After", a.status, a.body)
	}
	until(t, "the log says so", func() bool { return strings.Contains(u.log.String(), "the issuer of tokens was not found") })
	i.down.Store(false)
	u.found()
	if a := u.get("/v1/ids/a", bearer(i.token("k1", nil))...); a.status != http.StatusOK {
		t.Errorf("got %d %s after the issuer has come", a.status, a.body)
	}
}

func TestOIDC_RolesAreFoundWhereTheClaimIs(t *testing.T) {
	t.Parallel()
	var claims map[string]any
	text := `{"roles":"read admin2","realm_access":{"roles":["watch","x"]},"https://x.example/roles":["produce"],"a":{"b":3}}`
	if err := json.Unmarshal([]byte(text), &claims); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"roles": "read", "realm_access.roles": "watch", "https://x.example/roles": "produce", "a.b": "", "a": "", "a.b.c": "", "none": "",
	} {
		if got := rolesIn(claims, path).String(); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestOIDC_IssuersThatAnybodyCouldPoseAsAreNotTaken(t *testing.T) {
	t.Parallel()
	for issuer, ok := range map[string]bool{
		"https://login.example.com": true, "https://login.example.com/realm/x": true, "http://127.0.0.1:1": true, "http://localhost": true,
		"http://login.example.com": false, "login.example.com": false, "ftp://x": false, "https://": false, ":": false,
	} {
		o := OIDC{Issuer: issuer, Audience: "tidemark"}
		if err := o.validate(); (err == nil) != ok {
			t.Errorf("%s: got %v", issuer, err)
		}
	}
	if err := (&OIDC{Issuer: "https://login.example.com"}).validate(); err == nil {
		t.Error("an issuer without an audience is taken")
	}
}
