package main

import (
	"fmt"
	"os"
	"time"

	"github.com/tidemark/tidemark/view/guard"
)

// tokenCmd makes a token for those who ask a view.
type tokenCmd struct {
	Name    string        `arg:"" help:"Whose it is, as logs and limits name them."`
	Role    string        `required:"" placeholder:"ROLE,…" help:"What they may do: read, watch, produce or admin, which may do all; several are separated by commas."`
	Expires time.Duration `placeholder:"720h" help:"How long it is good. Default: for ever."`
	To      string        `placeholder:"FILE" help:"Append its line to that file of principals, which is made if it does not exist. Default: standard error."`
}

func (*tokenCmd) Help() string {
	return `Prints a new token, which is kept nowhere, and makes the line that lets it in, from which it cannot be had.

  tidemark token billing --role read,watch --to principals
  curl -H "Authorization: Bearer TOKEN" https://host:8443/v1/status

A line of the file is NAME ROLES CREDENTIAL [EXPIRY]; the credential is sha256:HASH of the whole token, or cert:NAME, a SAN of a
client certificate, or CN=NAME. A view reads the file again when it changes: take the line out, and the token is worth nothing.`
}

// Run prints the token.
func (c *tokenCmd) Run(a *app) error {
	roles, err := guard.ParseRoles(c.Role)
	if err != nil {
		return usagef("--role: %w", err)
	}
	var expires time.Time
	if c.Expires < 0 {
		return usagef("--expires %v: want a time to come", c.Expires)
	} else if c.Expires > 0 {
		expires = time.Now().Add(c.Expires)
	}
	token, line, err := guard.NewToken(c.Name, roles, expires)
	if err != nil {
		return &usage{err}
	}
	if c.To == "" {
		fmt.Fprintln(a.err, line)
	} else if err := appendLine(c.To, line); err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	fmt.Fprintln(a.out, token)
	return nil
}

// appendLine adds a line to a file in one write, so that whoever reads it meanwhile sees all of it or nothing.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	text := line + "\n"
	if end, err := f.Seek(0, 2); err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, end-1); err == nil && last[0] != '\n' { // somebody's editor
			text = "\n" + text
		}
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Close()
}
