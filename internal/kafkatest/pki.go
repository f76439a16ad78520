package kafkatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// PKI is a certificate authority of one cluster and what it signed, as PEM files for programs that take paths.
type PKI struct {
	CAFile         string // the authority's certificate
	ClientCertFile string
	ClientKeyFile  string

	dir    string
	pool   *x509.CertPool
	client tls.Certificate
}

// Client is a TLS configuration that trusts the brokers and shows no certificate.
func (p *PKI) Client() *tls.Config { return &tls.Config{RootCAs: p.pool, MinVersion: tls.VersionTLS12} }

// MutualClient is Client with the client's certificate.
func (p *PKI) MutualClient() *tls.Config {
	c := p.Client()
	c.Certificates = []tls.Certificate{p.client}
	return c
}

// pair is a certificate and its key, in DER and as parsed.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newPKI makes an authority, a certificate of the brokers for the loopback interface, and one of a client. Kafka takes a
// keystore of type PEM with key and chain in one file (KIP-651).
func newPKI(dir string) (*PKI, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := newPair(&x509.Certificate{Subject: pkix.Name{CommonName: "kafkatest CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	if err != nil {
		return nil, err
	}
	broker, err := newPair(&x509.Certificate{
		Subject: pkix.Name{CommonName: "broker"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca)
	if err != nil {
		return nil, err
	}
	client, err := newPair(&x509.Certificate{
		Subject:  pkix.Name{CommonName: "client"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca)
	if err != nil {
		return nil, err
	}
	brokerKey, errBroker := broker.keyPEM()
	clientKey, errClient := client.keyPEM()
	p := &PKI{CAFile: filepath.Join(dir, "ca.pem"), ClientCertFile: filepath.Join(dir, "client.pem"), ClientKeyFile: filepath.Join(dir, "client.key"), dir: dir, pool: x509.NewCertPool()}
	p.pool.AddCert(ca.cert)
	p.client = tls.Certificate{Certificate: [][]byte{client.cert.Raw}, PrivateKey: client.key}
	return p, errors.Join(
		errBroker, errClient,
		os.WriteFile(p.CAFile, ca.certPEM(), 0o600),
		os.WriteFile(filepath.Join(dir, "broker.pem"), slices.Concat(brokerKey, broker.certPEM()), 0o600),
		os.WriteFile(p.ClientCertFile, client.certPEM(), 0o600),
		os.WriteFile(p.ClientKeyFile, clientKey, 0o600),
	)
}

// newPair signs the template with the issuer, or with its own key if there is none.
func newPair(template *x509.Certificate, issuer *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(30*24*time.Hour)
	if issuer == nil {
		issuer = &pair{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, &key.PublicKey, issuer.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &pair{cert, key}, err
}

func (p *pair) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

func (p *pair) keyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
