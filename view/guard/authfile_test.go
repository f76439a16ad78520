package guard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// who is a handler that answers as soon as it is reached, and holds streams open until their context ends.
func who() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/watch" {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "here")
	})
}

func TestTokens_OnlyThoseOfTheFileLetSomebodyIn(t *testing.T) {
	t.Parallel()
	yesterday, tomorrow := time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
	old, oldLine, err := NewToken("old", Roles(0).with(Read), yesterday)
	if err != nil {
		t.Fatal(err)
	}
	fresh, freshLine, err := NewToken("fresh", Roles(0).with(Read), tomorrow)
	if err != nil {
		t.Fatal(err)
	}
	second, secondLine, err := NewToken("fresh", Roles(0).with(Read).with(Watch), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	path, tokens := people(t, oldLine, freshLine, secondLine)
	u := mustServe(t, Config{Principals: path}, who())
	line, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, hash, _ := strings.Cut(string(line), "sha256:")
	for name, c := range map[string]claim{
		"the right one":             {"Bearer " + tokens["read"], 200, ""},
		"the scheme in small":       {"bearer " + tokens["read"], 200, ""},
		"one that ends tomorrow":    {"Bearer " + fresh, 200, ""},
		"a second one of the name":  {"Bearer " + second, 200, ""},
		"one that ended yesterday":  {"Bearer " + old, 401, "expired"},
		"another name":              {"Bearer " + strings.Replace(tokens["read"], "read.", "admin.", 1), 401, "bad_token"},
		"the last letter is wrong":  {"Bearer " + tokens["read"][:len(tokens["read"])-1] + "-", 401, "bad_token"},
		"it is cut":                 {"Bearer " + tokens["read"][:20], 401, "bad_token"},
		"it goes on":                {"Bearer " + tokens["read"] + "x", 401, "bad_token"},
		"the hash from the file":    {"Bearer " + hash[:64], 401, "bad_token"},
		"name and hash":             {"Bearer read." + hash[:64], 401, "bad_token"},
		"the name alone":            {"Bearer read", 401, "bad_token"},
		"no token":                  {"Bearer ", 401, "bad_token"},
		"another scheme":            {"Basic " + tokens["read"], 401, "bad_token"},
		"no scheme":                 {tokens["read"], 401, "bad_token"},
		"two tokens":                {"Bearer " + tokens["read"] + ", Bearer " + tokens["read"], 401, "bad_token"},
		"nothing":                   {"", 401, "no_credential"},
		"a token without the role":  {"Bearer " + tokens["produce"], 403, "no_role"},
		"a JWT that nobody signed":  {"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", 401, "bad_token"},
		"a token of a megabyte (0)": {"Bearer read." + strings.Repeat("x", 200<<10), 401, "bad_token"},
	} {
		u.judges(name, c)
	}
	if log := u.log.String(); strings.Contains(log, tokens["read"]) || strings.Contains(log, old) {
		t.Error("the log holds a token")
	}
}

// claim is a header by which somebody says who they are, and what comes of it.
type claim struct {
	header string
	status int
	reason string // of the refusal
}

func (u *under) judges(name string, c claim) {
	u.t.Helper()
	counted := func() float64 {
		if c.reason == "" {
			return 0
		}
		return u.figure("tidemark_guard_refused_total", "reason", c.reason)
	}
	before := counted()
	var headers []string
	if c.header != "" {
		headers = []string{"Authorization", c.header}
	}
	a := u.get("/v1/ids/a", headers...)
	if a.status != c.status || c.status == 200 && a.body != "here" {
		u.t.Errorf("%s: got %d %s, want %d", name, a.status, a.body, c.status)
	}
	challenge := a.header.Get("WWW-Authenticate")
	if (c.status == 401) != strings.HasPrefix(challenge, "Bearer ") || strings.Contains(challenge, "invalid_token") != (c.status == 401 && c.reason != "no_credential") {
		u.t.Errorf("%s: got the challenge %q", name, challenge)
	}
	if c.reason != "" && counted() <= before {
		u.t.Errorf("%s: no refusal was counted as %s", name, c.reason)
	}
	if c.status != 200 && (a.code == "" || !strings.Contains(a.body, `"details":[]`)) {
		u.t.Errorf("%s: got %s, want the one shape of errors", name, a.body)
	}
}

func TestPrincipals_TheFileIsReadAgainAndABrokenOneChangesNothing(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	u := mustServe(t, Config{Principals: path}, who())
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	token, line, err := NewToken("new", Roles(0).with(Read), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	can := func(token string) bool { return u.get("/v1/ids/a", bearer(token)...).status == http.StatusOK }
	if can(token) {
		t.Fatal("a token is taken before it is in the file")
	}
	write(t, path, string(was)+line+"\n")
	until(t, "the new token is taken", func() bool { return can(token) })
	write(t, path, line+"\nsomebody everything sha256:12\n")
	until(t, "the broken file is noticed", func() bool { return u.figure("tidemark_guard_stale_files") == 1 })
	if !can(token) || !can(tokens["read"]) {
		t.Error("a broken file takes rights away")
	}
	if n := u.figure("tidemark_guard_reloads_total", "file", "principals", "outcome", "failed"); n != 1 {
		t.Errorf("one broken file was counted as %v", n)
	}
	if log := u.log.String(); !strings.Contains(log, "line 2: unknown role") {
		t.Errorf("the log does not name line and fault: %s", log)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until(t, "the missing file is noticed", func() bool { return strings.Contains(u.log.String(), "no such file") })
	if !can(token) {
		t.Error("a missing file takes rights away")
	}
	write(t, path, line+"\n")
	until(t, "who is no longer in the file is refused", func() bool { return !can(tokens["read"]) })
	if !can(token) || u.figure("tidemark_guard_stale_files") != 0 {
		t.Error("who is still in the file is refused, or it counts as stale")
	}
}

// A stream ends when the token by which it was opened is taken out of the file, or expires. The control is a stream of
// somebody whose line stays.
func TestPrincipals_StreamsEndWithTheRightToThem(t *testing.T) {
	t.Parallel()
	gone, goneLine, err := NewToken("gone", Roles(0).with(Watch), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	short, shortLine, err := NewToken("short", Roles(0).with(Watch), time.Now().Add(2*time.Second)) // RFC 3339 has whole seconds
	if err != nil {
		t.Fatal(err)
	}
	path, tokens := people(t, goneLine, shortLine)
	u := mustServe(t, Config{Principals: path}, who())
	open := func(token string) <-chan struct{} { return u.watch(plainClient(t), bearer(token)...) }
	stays, revoked, expires := open(tokens["watch"]), open(gone), open(short)
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	mustEnd(t, "token has expired", expires)
	write(t, path, strings.Replace(string(was), goneLine, "", 1))
	mustEnd(t, "token was taken out", revoked)
	select {
	case <-stays:
		t.Error("control: a stream has ended whose token still holds")
	default:
	}
}

func TestPrincipals_TheirFileIsReadWholeOrNot(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0f", 32)
	good := "a read sha256:" + hash + "\n\n# comment\nb read,watch,produce,admin cert:CN=b 2027-01-31T00:00:00+02:00 # why\n"
	p, err := parsePrincipals(good, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b := p.certs["CN=b"]; b == nil || b.Name != "b" || b.Roles.String() != "read,watch,produce,admin" || b.Expires.UTC().Format(time.RFC3339) != "2027-01-30T22:00:00Z" {
		t.Errorf("got %+v", p.certs["CN=b"])
	}
	for text, fault := range map[string]string{
		"a read":                               "line 1: want NAME ROLES CREDENTIAL",
		"a read sha256:" + hash + " x":         `line 1: expiry "x"`,
		"a read sha256:" + hash + " 1 2":       "line 1: want NAME",
		"a b read sha256:" + hash:              "line 1: unknown role",
		"a.b read sha256:" + hash:              "line 1: name",
		"é read sha256:" + hash:                "line 1: name",
		"\n\na root sha256:" + hash:            "line 3: unknown role",
		"a known sha256:" + hash:               "line 1: unknown role", // it is no role to be given
		"a , sha256:" + hash:                   "line 1: unknown role",
		"a read sha256:" + hash[1:]:            "line 1: sha256",
		"a read sha256:" + hash + "00":         "line 1: sha256",
		"a read md5:" + hash:                   "line 1: credential",
		"a read secret":                        "line 1: credential",
		"a read cert:":                         "line 1: cert",
		"a read cert:x\nb watch cert:x":        "line 2: the certificate",
		"a root sha256:" + hash + "\nb read x": "line 2: credential",
	} {
		if _, err := parsePrincipals(text+"\n", nil); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q: got %v, want %q", text, err, fault)
		}
	}
	same, err := parsePrincipals("b read,watch,produce,admin  cert:CN=b 2027-01-31T00:00:00+02:00\n", p)
	if err != nil || same.certs["CN=b"] != p.certs["CN=b"] {
		t.Errorf("a line that stays is another principal (%v)", err)
	}
	p.drop(same)
	if p.certs["CN=b"].revoked.Err() != nil || p.tokens["a"][0].revoked.Err() != context.Canceled {
		t.Error("the one that stays has ended, or the one that went has not")
	}
}

// Whoever writes the file in place is not done at once. However much of it is there, nobody gets what the whole does not give.
func TestPrincipals_HalfAFileGivesNothing(t *testing.T) {
	t.Parallel()
	_, line, err := NewToken("bob", Roles(0).with(Read).with(Admin), time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	text := line + "\nann watch cert:CN=ann.example.com # mail\ncarl read,watch cert:CN=carl 2027-01-31T00:00:00Z\n"
	whole, err := parsePrincipals(text, nil)
	if err != nil || len(whole.lines) != 3 {
		t.Fatalf("control: the whole file: %v", err)
	}
	for n := range len(text) {
		p, err := parsePrincipals(text[:n], nil)
		if err != nil {
			continue
		}
		for line := range p.lines {
			if whole.lines[line] == nil {
				t.Errorf("of %d bytes %q was made, which is in no line", n, line)
			}
		}
	}
	for _, n := range []int{0, len(text) - 1, strings.Index(text, " 2027")} {
		if _, err := parsePrincipals(text[:n], nil); !errors.Is(err, errCut) {
			t.Errorf("%d bytes: got %v, want %v", n, err, errCut)
		}
	}
}

// What is written in pieces takes nobody's right away. The control is a file that stays as it is cut.
func TestPrincipals_AFileIsTakenWhenItHasSettled(t *testing.T) {
	t.Parallel()
	path, tokens := people(t)
	g, err := New(Config{Principals: path}) // which does not run: the test looks
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	look := func() bool {
		changed, err := g.people.reload()
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	known := func() bool { return g.people.current.Load().token(tokens["admin"]) != nil }
	cut := string(whole[:strings.LastIndex(string(whole), "admin admin")])
	for _, text := range []string{cut, cut + "# more\n", string(whole)} {
		write(t, path, text)
		if look() || !known() {
			t.Errorf("with one look the file was taken as it is being written, %d bytes of %d", len(text), len(whole))
		}
	}
	write(t, path, cut)
	if look() || !look() || known() {
		t.Error("control: two looks have found the same, and it was not taken")
	}
}

func TestRoles_AnAdminMayDoEverythingAndOthersWhatTheyAre(t *testing.T) {
	t.Parallel()
	for role := Read; role <= Admin; role++ {
		for need := Open; need <= Admin; need++ {
			got, want := Roles(0).with(role).Has(need), need <= Known || role == Admin || role == need
			if got != want {
				t.Errorf("%v for what needs %v: %v, want %v", role, need, got, want)
			}
		}
	}
	if Roles(0).Has(Read) || !Roles(0).Has(Known) {
		t.Error("somebody without a role may read, or is not known")
	}
}
