package guard

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// TLSFiles are what a server shows of itself, PEM files. They are read again when they change; connections that are open
// stay as they are.
type TLSFiles struct {
	Cert, Key string
	// ClientCA names the authorities whose client certificates say who somebody is. "": none is asked for.
	ClientCA string
}

func (t *TLSFiles) paths() []string {
	if t.ClientCA == "" {
		return []string{t.Cert, t.Key}
	}
	return []string{t.Cert, t.Key, t.ClientCA}
}

// parseTLS makes the configuration of new connections.
func parseTLS(contents [][]byte, _ *tls.Config) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair},
	}
	if len(contents) > 2 {
		if c.ClientCAs = x509.NewCertPool(); !c.ClientCAs.AppendCertsFromPEM(contents[2]) {
			return nil, errors.New("the file of client authorities holds no certificate in PEM")
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven // who shows none may have a token
		c.SessionTicketsDisabled = true            // a session would outlive the authority that let it begin
	}
	return c, nil
}

// identities are the names under which a certificate may be known, the most telling first.
func identities(cert *x509.Certificate) []string {
	names := make([]string, 0, 4)
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	names = append(append(names, cert.DNSNames...), cert.EmailAddresses...)
	if cert.Subject.CommonName != "" {
		names = append(names, "CN="+cert.Subject.CommonName)
	}
	return names
}

// cert finds whose certificate it is. One that the file does not name is somebody without a role.
func (p *principals) cert(cert *x509.Certificate) *Principal {
	names := identities(cert)
	for _, name := range names {
		if p == nil {
			break
		}
		if c := p.certs[name]; c != nil {
			return &c.Principal
		}
	}
	if len(names) == 0 {
		return nil
	}
	return &Principal{Name: "cert:" + names[0]}
}

func expired(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }
