package ops

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// refusedLogin turns what no retry mends into a Problem; nil for everything else.
func refusedLogin(err error) error {
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return &Problem{What: "the brokers refuse this user: " + err.Error(), Mend: "check --sasl-user and the password", Err: err}
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return &Problem{What: "the brokers do not speak this SASL mechanism on this port: " + err.Error(), Mend: "check --sasl-mechanism and the port", Err: err}
	}
	return nil
}
