package kafkatest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Listener is a door of a broker.
type Listener string

// The listeners; each name is also Kafka's name for it.
const (
	Plaintext     Listener = "PLAINTEXT"      // always open; brokers talk to each other there
	SASLPlaintext Listener = "SASL_PLAINTEXT" // asks for one of Options.Users
	TLS           Listener = "TLS"            // asks for no client certificate
	MutualTLS     Listener = "MTLS"           // asks for a certificate signed by the cluster's CA
	SASLTLS       Listener = "SASL_TLS"       // TLS, and one of Options.Users

	controller Listener = "CONTROLLER"
)

func (l Listener) protocol() string {
	switch l {
	case SASLPlaintext:
		return "SASL_PLAINTEXT"
	case SASLTLS:
		return "SASL_SSL"
	case TLS, MutualTLS:
		return "SSL"
	default:
		return "PLAINTEXT"
	}
}

// listeners are those for clients.
func (o *Options) listeners() []Listener {
	all := []Listener{Plaintext}
	if len(o.Users) > 0 {
		all = append(all, SASLPlaintext)
	}
	if o.TLS {
		all = append(all, TLS, MutualTLS)
	}
	if o.TLS && len(o.Users) > 0 {
		all = append(all, SASLTLS)
	}
	return all
}

// listenerProperties writes down the broker's listeners, and those of the controllers of all brokers.
func (c *Cluster) listenerProperties(n *Node, o Options, p map[string]string) {
	var bound, advertised, protocols, voters []string
	for _, l := range append([]Listener{controller}, o.listeners()...) {
		url := string(l) + "://" + n.ports[l].addr()
		bound = append(bound, url)
		if l != controller {
			advertised = append(advertised, url)
		}
		protocols = append(protocols, string(l)+":"+l.protocol())
		if strings.HasPrefix(string(l), "SASL") {
			saslProperties(l, o.Users, p)
		}
	}
	for _, other := range c.Nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", other.ID, other.ports[controller].addr()))
	}
	p["listeners"] = strings.Join(bound, ",")
	p["advertised.listeners"] = strings.Join(advertised, ",")
	p["listener.security.protocol.map"] = strings.Join(protocols, ",")
	p["controller.listener.names"] = string(controller)
	p["inter.broker.listener.name"] = string(Plaintext)
	p["controller.quorum.voters"] = strings.Join(voters, ",")
	if o.TLS {
		p["ssl.keystore.type"] = "PEM"
		p["ssl.keystore.location"] = filepath.Join(c.pki.dir, "broker.pem")
		p["ssl.truststore.type"] = "PEM"
		p["ssl.truststore.location"] = c.pki.CAFile
		p["listener.name."+strings.ToLower(string(MutualTLS))+".ssl.client.auth"] = "required"
	}
}

// saslProperties lets the users in. Those of PLAIN stand in the broker's configuration, those of SCRAM in Kafka's own
// metadata (scramArguments).
func saslProperties(l Listener, users []User, p map[string]string) {
	prefix := "listener.name." + strings.ToLower(string(l)) + "."
	var mechanisms []string
	plain := "org.apache.kafka.common.security.plain.PlainLoginModule required"
	for _, u := range users {
		if !slices.Contains(mechanisms, u.Mechanism) {
			mechanisms = append(mechanisms, u.Mechanism)
		}
		if u.Mechanism == "PLAIN" {
			plain += fmt.Sprintf(" user_%s=%q", u.Name, u.Password)
		}
	}
	p[prefix+"sasl.enabled.mechanisms"] = strings.Join(mechanisms, ",")
	for _, m := range mechanisms {
		module := "org.apache.kafka.common.security.scram.ScramLoginModule required"
		if m == "PLAIN" {
			module = plain
		}
		p[prefix+strings.ToLower(m)+".sasl.jaas.config"] = module + ";"
	}
}

func scramArguments(users []User) []string {
	var args []string
	for _, u := range users {
		if strings.HasPrefix(u.Mechanism, "SCRAM-") {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", u.Mechanism, u.Name, u.Password))
		}
	}
	return args
}
