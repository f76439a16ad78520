package guard

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Role is what a caller may do. What needs a role is in the table of routes.
type Role uint8

// The roles. Open and Known are no roles that somebody is given, but the needs of routes that are for all, and for all who
// have said who they are.
const (
	Open Role = iota
	Known
	Read    // states, lists, status
	Watch   // changes as they come
	Produce // events into the input
	Admin   // metrics, and everything else
)

var roleNames = [...]string{Open: "open", Known: "known", Read: "read", Watch: "watch", Produce: "produce", Admin: "admin"}

func (r Role) String() string { return roleNames[r] }

// Roles is a set of roles.
type Roles uint8

// ParseRoles reads names of roles, separated by commas.
func ParseRoles(text string) (Roles, error) {
	var set Roles
	for name := range strings.SplitSeq(text, ",") {
		role, ok := roleOf(name)
		if !ok {
			return 0, fmt.Errorf("unknown role %q: want read, watch, produce or admin", name)
		}
		set = set.with(role)
	}
	return set, nil
}

func roleOf(name string) (Role, bool) {
	for role := Read; role <= Admin; role++ {
		if roleNames[role] == name {
			return role, true
		}
	}
	return 0, false
}

func (s Roles) with(r Role) Roles { return s | 1<<r }

// Has tells whether somebody with the roles may do what needs r. An admin may do everything.
func (s Roles) Has(r Role) bool { return r <= Known || s&(1<<r|1<<Admin) != 0 }

func (s Roles) String() string {
	var names []string
	for role := Read; role <= Admin; role++ {
		if s&(1<<role) != 0 {
			names = append(names, role.String())
		}
	}
	return strings.Join(names, ",")
}

// Principal is somebody who has shown who they are.
type Principal struct {
	Name    string // no two sources of names can give the same one
	Roles   Roles
	Expires time.Time // zero: never
	// revoked ends when the principal is no longer in the file; nil for those that no file names.
	revoked context.Context
	revoke  context.CancelFunc
	// trusted ends when the authority of the principal's certificate is no longer trusted; nil where a token was shown.
	trusted context.Context
}
