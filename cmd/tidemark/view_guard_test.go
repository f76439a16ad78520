package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// mustPair makes a certificate of 127.0.0.1 that signs itself, and its key, as files.
func mustPair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "view"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// mustToken makes a token of some roles, and the file of principals in which it is.
func mustToken(t *testing.T, role string) (token, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "principals")
	made := try(t, "", "token", "somebody", "--role", role, "--to", file)
	made.wants(t, "token", exitDone, "somebody.", "")
	return strings.TrimSpace(made.out), file
}

func TestGuard_OtherMachinesAreLetInWhereTheyAreAskedOverTLS(t *testing.T) {
	t.Parallel()
	cert, key := mustPair(t)
	_, file := mustToken(t, "read")
	tls, asks := guardFlags{ServeTLSCert: cert, ServeTLSKey: key}, guardFlags{Principals: file}
	both := guardFlags{ServeTLSCert: cert, ServeTLSKey: key, Principals: file}
	for name, c := range map[string]struct {
		flags guardFlags
		may   bool
	}{
		"nothing": {guardFlags{}, false}, "TLS alone": {tls, false}, "asked, but in the clear": {asks, false}, "asked over TLS": {both, true},
		"certificates": {guardFlags{ServeTLSCert: cert, ServeTLSKey: key, ServeTLSClientCA: cert}, true}, "insecure": {guardFlags{Insecure: true}, true},
	} {
		for _, addr := range []string{"0.0.0.0:0", "127.0.0.1:0"} {
			g, err := c.flags.guard(prometheus.NewRegistry(), slog.New(slog.DiscardHandler), io.Discard, addr)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			l, err := g.listen("listen", addr)
			if may := c.may || isLoopback(addr); may != (err == nil) {
				t.Errorf("%s, %s: got %v, want it opened: %v", name, addr, err, may)
			}
			if err == nil {
				l.Close()
			} else if exitCode(err) != exitUser || !strings.Contains(err.Error(), "--principals") {
				t.Errorf("%s, %s: %v; want a usage error that says what is missing", name, addr, err)
			}
		}
	}
}

func TestGuard_FlagsThatMakeNoSenseAreRefusedByName(t *testing.T) {
	t.Parallel()
	cert, _ := mustPair(t)
	for want, flags := range map[string]guardFlags{
		"go together":           {ServeTLSCert: cert},
		"no such file":          {Principals: filepath.Join(t.TempDir(), "none")},
		"without an audience":   {OIDCIssuer: "https://login.example.com"},
		"want https":            {OIDCIssuer: "http://login.example.com", OIDCAudience: "x"},
		"--read-timeout":        {ReadTimeout: -1},
		"--watchers-max":        {WatchersMax: -1},
		"--connections-max":     {ConnectionsMax: 1 << 30},
		"BodyBytesMax":          {BodyBytesMax: 1 << 30},
		"RequestsMax is negati": {RequestsMax: -1},
	} {
		_, err := flags.guard(prometheus.NewRegistry(), slog.New(slog.DiscardHandler), io.Discard, "127.0.0.1:0")
		if err == nil || exitCode(err) != exitUser || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a usage error with %q", err, want)
		}
	}
	small, err := (&guardFlags{ConnectionsMax: 7}).limits(true)
	if err != nil || small.connections != 7 || small.clientConnections != 0 {
		t.Errorf("7 connections on loopback: got %+v %v", small, err)
	}
	if usual, err := (&guardFlags{}).limits(false); err != nil || usual.connections > descriptors() || usual.clientConnections == 0 {
		t.Errorf("the usual limits: got %+v %v, with %d descriptors", usual, err, descriptors())
	}
}

// On loopback a view answers to no name that others may have given this machine, unless it is told to.
func TestGuard_OnLoopbackOnlyLocalNamesAreAnswered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		insecure bool
		addr     string
		status   int
	}{"loopback": {false, "127.0.0.1:0", 403}, "loopback, told to": {true, "127.0.0.1:0", 200}, "all interfaces, told to": {true, ":0", 200}} {
		g, err := (&guardFlags{Insecure: c.insecure}).guard(prometheus.NewRegistry(), slog.New(slog.DiscardHandler), io.Discard, c.addr)
		if err != nil {
			t.Fatal(err)
		}
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "http://rebound.example.com/v1/ids/a", nil)
		g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, c.status)
		}
	}
}

func TestToken_IsMadeOnceAndItsLineLetsItIn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "principals")
	if err := os.WriteFile(file, []byte("# a comment without a line end"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := try(t, "", "token", "a", "--role", "read,watch", "--to", file, "--expires", "1h")
	first.wants(t, "token", exitDone, "a.", "")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), strings.TrimSpace(first.out)) || !strings.Contains(string(text), "\na read,watch sha256:") {
		t.Errorf("the file is %q after the token %q", text, first.out)
	}
	second := try(t, "", "token", "a", "--role", "admin")
	second.wants(t, "token without a file", exitDone, "a.", "a admin sha256:")
	if first.out == second.out {
		t.Error("two tokens are the same")
	}
	for _, args := range [][]string{{"a", "--role", "root"}, {"a"}, {"a.b", "--role", "read"}, {"", "--role", "read"}, {"a", "--role", ""}, {"a", "--role", "read", "--expires", "-1h"}} {
		if got := try(t, "", append([]string{"token"}, args...)...); got.code != exitUser || got.out != "" {
			t.Errorf("token %q: exit code %d, printed %q", args, got.code, got.out)
		}
	}
}

// A view that asks over TLS is asked by the verbs, with a token and without one.
func TestView_AsksWhoSomebodyIsOverTLS(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must("", "produce", "--create-topics", dataFile("events.ndjson.gz"))
	cert, key := mustPair(t)
	token, file := mustToken(t, "read")
	v := start(t, "view", "--job", s.job, "--brokers", strings.Join(s.brokers, ","), "--listen", "127.0.0.1:0", "--state", filepath.Join(t.TempDir(), "view"),
		"--serve-tls-cert", cert, "--serve-tls-key", key, "--principals", file, "--log-requests")
	url := v.says(`url=(https://\S+)`)
	s.must("", "run", "--state", t.TempDir(), "--until-caught-up")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got := try(t, "", "get", "--view", url, "--tls-ca", cert, "--token", token, "24.151.103.17")
		if got.code == exitDone && strings.Contains(got.out, `"version":"602"`) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("get with a token: exit code %d\n%s%s", got.code, got.out, got.err)
		}
	}
	try(t, "", "get", "--view", url, "--tls-ca", cert, "a").wants(t, "get without a token", exitUser, "", "TIDEMARK_TOKEN")
	try(t, "", "get", "--view", url, "--tls-ca", cert, "--token", "somebody.x", "a").wants(t, "get with a wrong token", exitUser, "", "not known")
	try(t, "", "get", "--view", url, "--token", token, "a").wants(t, "get without the authority", exitEnvironment, "", "certificate")
	try(t, "", "list", "--view", url, "--tls-ca", cert, "--token", token, "--prefix", "14.54").wants(t, "list with a token", exitDone, "14.54.210.101\n", "")
	v.says(`"msg":"request".*"who":"somebody"`)
	v.says(`msg=refused.*reason=bad_token`)
	if code := v.stop(); code != exitDone {
		t.Errorf("view ended with %d\n%s", code, v.err.String())
	}
	if strings.Contains(v.err.String(), token) {
		t.Error("the log holds the token")
	}
}
