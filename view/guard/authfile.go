package guard

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The file of principals has one on a line: name, roles, credential, and when it expires (RFC 3339), which may be left out.
// What follows a # is a comment. The last line ends like all others: one that does not may have lost its expiry, or half its name.
//
//	billing  read,watch  sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  2027-01-31T00:00:00Z
//	kiosk    read        cert:kiosk.example.com
//
// A token is NAME.SECRET, and its line has the SHA-256 of all of it: secrets are 256 random bits (NewToken), so a slow hash
// would protect nothing more. A certificate is named by one of its SANs (URI, DNS name, e-mail), or as CN=… by its common
// name. A name may have several lines, so that tokens can be replaced without a gap.

// errCut says that the file does not end with a line.
var errCut = errors.New("the last line does not end: the file is being written, or was cut; end it with a line feed")

// principals are what the file says.
type principals struct {
	tokens map[string][]*credential // by the name in the token
	certs  map[string]*credential   // by a name in the certificate
	lines  map[string]*credential
}

type credential struct {
	Principal
	sum [sha256.Size]byte // of a token
}

var principalName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// parsePrincipals reads the file. A line that was in the file before goes on as the same principal.
func parsePrincipals(text string, before *principals) (*principals, error) {
	p := &principals{map[string][]*credential{}, map[string]*credential{}, map[string]*credential{}}
	var faults []error
	if !strings.HasSuffix(text, "\n") {
		faults = append(faults, errCut)
	}
	for number, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if err := p.add(fields, before); err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", number+1, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	for _, c := range p.lines {
		if c.revoked == nil {
			c.revoked, c.revoke = context.WithCancel(context.Background())
		}
	}
	return p, nil
}

func (p *principals) add(fields []string, before *principals) error {
	if len(fields) != 3 && len(fields) != 4 {
		return errors.New("want NAME ROLES CREDENTIAL [EXPIRY]")
	}
	line := strings.Join(fields, " ")
	c := &credential{}
	if before != nil && before.lines[line] != nil {
		c = before.lines[line]
	} else if err := c.parse(fields); err != nil {
		return err
	}
	if cert, ok := strings.CutPrefix(fields[2], "cert:"); ok {
		if p.certs[cert] != nil {
			return fmt.Errorf("the certificate %q has a line already", cert)
		}
		p.certs[cert] = c
	} else {
		p.tokens[c.Name] = append(p.tokens[c.Name], c)
	}
	p.lines[line] = c
	return nil
}

func (c *credential) parse(fields []string) (err error) {
	if c.Name = fields[0]; !principalName.MatchString(c.Name) {
		return fmt.Errorf("name %q: want 1 to 64 of A-Z a-z 0-9 _ -", c.Name)
	}
	if c.Roles, err = ParseRoles(fields[1]); err != nil {
		return err
	}
	kind, value, _ := strings.Cut(fields[2], ":")
	switch kind {
	case "sha256":
		sum, err := hex.DecodeString(value)
		if err != nil || len(sum) != sha256.Size {
			return errors.New("sha256: want 64 hexadecimal digits")
		}
		copy(c.sum[:], sum)
	case "cert":
		if value == "" {
			return errors.New("cert: want a SAN of the certificate, or CN=NAME")
		}
	default:
		return fmt.Errorf("credential %q: want sha256:HASH or cert:NAME", kind)
	}
	if len(fields) == 4 {
		if c.Expires, err = time.Parse(time.RFC3339, fields[3]); err != nil {
			return fmt.Errorf("expiry %q: want a time such as 2027-01-31T00:00:00Z", fields[3])
		}
	}
	return nil
}

// drop ends what those who are no longer in the file still have open.
func (p *principals) drop(after *principals) {
	if p == nil {
		return
	}
	for line, c := range p.lines {
		if after.lines[line] != c {
			c.revoke()
		}
	}
}

// token finds whose token it is. Whether a secret is right takes the same time however wrong it is.
func (p *principals) token(text string) *Principal {
	name, _, _ := strings.Cut(text, ".")
	candidates := p.tokens[name]
	if len(candidates) == 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(text))
	var found *Principal
	for _, c := range candidates {
		if subtle.ConstantTimeCompare(sum[:], c.sum[:]) == 1 {
			found = &c.Principal
		}
	}
	return found
}

// tokenBytes is how much of a token is random.
const tokenBytes = 32

// NewToken makes a token, and the line that lets it in. The token cannot be had from the line.
func NewToken(name string, roles Roles, expires time.Time) (token, line string, err error) {
	if !principalName.MatchString(name) {
		return "", "", fmt.Errorf("name %q: want 1 to 64 of A-Z a-z 0-9 _ -", name)
	}
	if roles == 0 {
		return "", "", errors.New("no role: want read, watch, produce or admin")
	}
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // it never fails (crypto/rand, since Go 1.24)
	token = name + "." + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	line = name + " " + roles.String() + " sha256:" + hex.EncodeToString(sum[:])
	if !expires.IsZero() {
		line += " " + expires.UTC().Format(time.RFC3339)
	}
	return token, line, nil
}
