package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"
)

// TLSFiles are what a server shows of itself, PEM files. They are read again when they change; connections that are open stay
// as they are, but a certificate of an authority that is no longer among ClientCA is nobody's from then on.
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

// served is what the files of TLS make.
type served struct {
	tls     *tls.Config        // of new connections
	anchors map[string]*anchor // the authorities of clients, by their certificate
}

// anchor is an authority that clients' certificates are traced back to (RFC 5280: a trust anchor), as long as the files name it.
type anchor struct {
	trusted context.Context
	end     context.CancelFunc
}

// parseTLS reads the files. An authority that was in them before goes on as the same.
func parseTLS(contents [][]byte, before *served) (*served, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair},
	}
	s := &served{c, map[string]*anchor{}}
	if len(contents) > 2 {
		c.ClientCAs = x509.NewCertPool()
		for _, cert := range certificates(contents[2]) {
			c.ClientCAs.AddCert(cert)
			s.anchors[string(cert.Raw)] = before.anchor(cert)
		}
		if len(s.anchors) == 0 {
			return nil, errors.New("the file of client authorities holds no certificate in PEM")
		}
		c.ClientAuth = tls.VerifyClientCertIfGiven // who shows none may have a token
		c.SessionTicketsDisabled = true            // a session would outlive the authority that let it begin
	}
	return s, nil
}

// certificates are those of a PEM file; what is none is passed over.
func certificates(text []byte) (all []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, cert)
		}
	}
	return all
}

// anchor is that of an authority, a new one if it was not known.
func (s *served) anchor(cert *x509.Certificate) *anchor {
	if s != nil {
		if known := s.anchors[string(cert.Raw)]; known != nil {
			return known
		}
	}
	fresh := &anchor{}
	fresh.trusted, fresh.end = context.WithCancel(context.Background())
	return fresh
}

// drop ends what those whose authority is no longer trusted still have open.
func (s *served) drop(after *served) {
	if s == nil {
		return
	}
	for cert, a := range s.anchors {
		if after.anchors[cert] != a {
			a.end()
		}
	}
}

// trust tells how long a client's certificate holds, which the handshake has verified: until the first certificate of its chain
// expires, and as long as the authority at the chain's end is trusted. Of several chains it is the one that holds longest.
func (s *served) trust(chains [][]*x509.Certificate) (from *anchor, until time.Time) {
	for _, chain := range chains {
		a := s.anchors[string(chain[len(chain)-1].Raw)]
		if a == nil {
			continue
		}
		end := chain[0].NotAfter
		for _, cert := range chain {
			if cert.NotAfter.Before(end) {
				end = cert.NotAfter
			}
		}
		if from == nil || end.After(until) {
			from, until = a, end
		}
	}
	return from, until
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
