package guard

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/tidemark/tidemark/proto/tidemark/v1"
	"github.com/tidemark/tidemark/proto/tidemark/v1/tidemarkv1connect"
)

// shown is the name of the certificate that a server shows to a new connection.
func (u *under) shown(a *authority) string {
	u.t.Helper()
	conn, err := tls.Dial("tcp", u.addr, a.trusts(nil))
	if err != nil {
		u.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// A new pair is shown to new connections, those that are open go on, and a pair that is broken, or half replaced, changes
// nothing and is told.
func TestTLS_ThePairIsReadAgainWithoutDroppingAConnection(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files := a.files()
	u := mustServe(t, Config{TLS: files}, who())
	conn, err := tls.Dial("tcp", u.addr, a.trusts(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	goesOn := func(when string) {
		t.Helper()
		if _, err := io.WriteString(conn, "GET /v1/ids/a HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		resp, err := http.ReadResponse(replies, nil)
		if err != nil {
			t.Fatalf("%s, the open connection: %v", when, err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "here" {
			t.Errorf("%s, the open connection: got %s %s", when, resp.Status, body)
		}
	}
	goesOn("before")
	if name := u.shown(a); name != "first" {
		t.Fatalf("the server shows %s", name)
	}
	cert, key := a.server("second")
	write(t, files.Cert, cert)
	until(t, "the half of a pair is noticed", func() bool { return u.figure("tidemark_guard_stale_files") == 1 })
	if name := u.shown(a); name != "first" {
		t.Errorf("with half of a new pair the server shows %s", name)
	}
	goesOn("with half of a new pair")
	write(t, files.Key, key)
	until(t, "the new pair is shown", func() bool { return u.shown(a) == "second" })
	goesOn("with the new pair")
	write(t, files.Key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	until(t, "the broken key is told", func() bool {
		return u.figure("tidemark_guard_reloads_total", "file", "tls", "outcome", "failed") == 2
	})
	if name := u.shown(a); name != "second" {
		t.Errorf("with a broken key the server shows %s", name)
	}
	if n := len(u.log.with(t, "files have changed and cannot be used; what was read before still holds")); n != 2 {
		t.Errorf("two faults have %d lines: %s", n, u.log)
	}
	if in := time.Until(time.Unix(int64(u.figure("tidemark_guard_certificate_expires_timestamp_seconds")), 0)); in < 50*time.Minute || in > time.Hour {
		t.Errorf("the certificate expires in %v by the metrics, want an hour", in)
	}
}

func TestTLS_FilesThatCannotBeUsedAreRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files, others := a.files(), a.files()
	garbage := filepath.Join(t.TempDir(), "garbage")
	write(t, garbage, "no certificate\n")
	for name, c := range map[string]TLSFiles{
		"a key of another":          {Cert: files.Cert, Key: others.Key},
		"no such file":              {Cert: files.Cert + "x", Key: files.Key},
		"a key without a pair":      {Key: files.Key},
		"no certificate":            {Cert: garbage, Key: files.Key},
		"an authority that is none": {Cert: files.Cert, Key: files.Key, ClientCA: garbage},
		"an authority alone":        {ClientCA: files.Cert},
	} {
		if _, err := New(Config{TLS: c}); err == nil {
			t.Errorf("%s: a guard was made", name)
		}
	}
}

func TestTLS_OldVersionsAreRefusedAndGRPCComesByALPN(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	path, tokens := people(t)
	u := mustServe(t, Config{TLS: a.files(), Principals: path}, idleView(t))
	old := a.trusts(nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if conn, err := tls.Dial("tcp", u.addr, old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
	until(t, "the handshake is counted", func() bool { return u.figure("tidemark_guard_refused_total", "reason", "tls_handshake") == 1 })
	transport := &http.Transport{TLSClientConfig: a.trusts(nil), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := tidemarkv1connect.NewViewClient(&http.Client{Transport: transport}, u.url, connect.WithGRPC())
	for name, want := range map[string]connect.Code{"": connect.CodeUnauthenticated, "watch": connect.CodePermissionDenied, "read": connect.CodeUnavailable} {
		ctx, call := connect.NewClientContext(t.Context())
		if name != "" {
			call.RequestHeader().Set("Authorization", "Bearer "+tokens[name])
		}
		if _, err := client.Get(ctx, &pb.GetRequest{Id: "a"}); connect.CodeOf(err) != want {
			t.Errorf("gRPC over TLS as %q: got %v, want %v", name, err, want)
		}
	}
}

// A certificate is somebody by the file of principals, nobody's where its authority is not ours, and without a role where the
// file does not name it.
func TestTLS_ClientCertificatesAreSomebody(t *testing.T) {
	t.Parallel()
	a, clients, stranger := newAuthority(t), newAuthority(t), newAuthority(t)
	files := a.files()
	files.ClientCA = filepath.Join(t.TempDir(), "clients.pem")
	write(t, files.ClientCA, certPEM(clients.cert))
	spiffe := &url.URL{Scheme: "spiffe", Host: "example.com", Path: "/billing"}
	path, tokens := people(t, "billing read cert:spiffe://example.com/billing", "kiosk read cert:kiosk.example.com", "ann read cert:ann@example.com",
		"bob read cert:CN=bob", "late read cert:CN=late 2020-01-01T00:00:00Z", "peter produce cert:CN=peter")
	u := mustServe(t, Config{TLS: files, Principals: path}, who())
	ask := func(cert *tls.Certificate, headers ...string) (answer, error) {
		transport := &http.Transport{TLSClientConfig: a.trusts(cert), ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		return u.try(&http.Client{Transport: transport}, "GET", "/v1/ids/a", "", headers...)
	}
	named := func(name string) x509.Certificate { return x509.Certificate{Subject: pkix.Name{CommonName: name}} }
	for name, c := range map[string]struct {
		cert   *tls.Certificate
		token  string
		status int // 0: there is no connection
		who    string
	}{
		"by URI":                       {clients.client(x509.Certificate{URIs: []*url.URL{spiffe}}), "", 200, "billing"},
		"by DNS name":                  {clients.client(x509.Certificate{DNSNames: []string{"x.example.com", "kiosk.example.com"}}), "", 200, "kiosk"},
		"by mail":                      {clients.client(x509.Certificate{EmailAddresses: []string{"ann@example.com"}}), "", 200, "ann"},
		"by common name":               {clients.client(named("bob")), "", 200, "bob"},
		"a name of another kind":       {clients.client(named("kiosk.example.com")), "", 403, "cert:CN=kiosk.example.com"},
		"not in the file":              {clients.client(named("carol")), "", 403, "cert:CN=carol"},
		"without the role":             {clients.client(named("peter")), "", 403, "peter"},
		"no longer":                    {clients.client(named("late")), "", 401, ""},
		"no name":                      {clients.client(x509.Certificate{}), "", 401, ""},
		"none":                         {nil, "", 401, ""},
		"of another authority":         {stranger.client(named("bob")), "", 0, ""},
		"expired":                      {clients.client(x509.Certificate{Subject: pkix.Name{CommonName: "bob"}, NotAfter: time.Now().Add(-time.Minute)}), "", 0, ""},
		"none, but a token":            {nil, tokens["read"], 200, "read"},
		"a token goes before it":       {clients.client(named("bob")), tokens["produce"], 403, "produce"},
		"a wrong token goes before it": {clients.client(named("bob")), "bob.x", 401, ""},
	} {
		var headers []string
		if c.token != "" {
			headers = bearer(c.token)
		}
		got, err := ask(c.cert, headers...)
		if got.status != c.status || (err != nil) != (c.status == 0) {
			t.Errorf("%s: got %d %s %v, want %d", name, got.status, got.body, err, c.status)
		}
		if c.who != "" && !strings.Contains(u.requests.String(), `"who":"`+c.who+`"`) {
			t.Errorf("%s: no request is logged as of %s", name, c.who)
		}
	}
	bob := clients.client(named("bob"))
	write(t, files.ClientCA, certPEM(stranger.cert))
	until(t, "the certificates of the old authority are refused", func() bool {
		_, err := ask(bob)
		return err != nil
	})
	if got, err := ask(stranger.client(named("bob"))); err != nil || got.status != 200 {
		t.Errorf("a certificate of the new authority: got %d %v", got.status, err)
	}
}

// A connection is worth no more than the certificate that opened it: who it is is asked with every request.
func TestTLS_ACertificateThatExpiresMeanwhileIsRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files := a.files()
	files.ClientCA = filepath.Join(t.TempDir(), "clients.pem")
	write(t, files.ClientCA, certPEM(a.cert))
	path, _ := people(t, "bob read cert:CN=bob")
	u := mustServe(t, Config{TLS: files, Principals: path}, who())
	cert := a.client(x509.Certificate{Subject: pkix.Name{CommonName: "bob"}, NotAfter: time.Now().Add(3 * time.Second)})
	transport := &http.Transport{TLSClientConfig: a.trusts(cert)}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	if got := u.ask(client, "GET", "/v1/ids/a", ""); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	until(t, "it is refused", func() bool { return u.ask(client, "GET", "/v1/ids/a", "").status == 401 })
}

// A stream, and the connection by which it was opened, are worth no more than the certificate: both end with it, and with the
// trust in its authority. The control is a stream by a certificate that lasts, of an authority that stays.
func TestTLS_StreamsEndWithTheCertificate(t *testing.T) {
	t.Parallel()
	a, stays, goes := newAuthority(t), newAuthority(t), newAuthority(t)
	files := a.files()
	files.ClientCA = filepath.Join(t.TempDir(), "clients.pem")
	write(t, files.ClientCA, certPEM(stays.cert)+certPEM(goes.cert))
	path, _ := people(t, "bob read,watch cert:CN=bob 2099-01-01T00:00:00Z")
	u := mustServe(t, Config{TLS: files, Principals: path}, who())
	open := func(by *authority, until time.Time) (*http.Client, <-chan struct{}) {
		cert := by.client(x509.Certificate{Subject: pkix.Name{CommonName: "bob"}, NotAfter: until})
		transport := &http.Transport{TLSClientConfig: a.trusts(cert), ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		client := &http.Client{Transport: transport}
		return client, u.watch(client)
	}
	later := time.Now().Add(time.Hour)
	_, lasts := open(stays, later)
	_, expires := open(stays, time.Now().Add(3*time.Second))
	distrusted, ends := open(goes, later)
	mustEnd(t, "certificate has expired", expires)
	write(t, files.ClientCA, certPEM(stays.cert))
	mustEnd(t, "authority is gone", ends)
	if got := u.ask(distrusted, "GET", "/v1/ids/a", ""); got.status != 401 { // by the connection that was open
		t.Errorf("a request by a certificate whose authority is gone: got %d %s", got.status, got.body)
	}
	select {
	case <-lasts:
		t.Error("control: a stream has ended whose certificate still holds")
	default:
	}
}
