package eos

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
)

// mustCertificate makes a certificate for 127.0.0.1 and a pool that trusts it.
func mustCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// reaches tells whether both clients get an answer from the cluster.
func reaches(t *testing.T, k *Kafka) (franz, sarama error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, franz = kadm.NewClient(mustClient(t, k)).ListBrokers(ctx)
	return franz, reachesSarama(k)
}

func reachesSarama(k *Kafka) error {
	config, err := k.Sarama()
	if err != nil {
		return err
	}
	config.Metadata.Retry.Max = 0
	client, err := sarama.NewClient(k.Brokers, config)
	if err != nil {
		return err
	}
	_, err = client.Controller() // the client itself connects to nothing
	return errors.Join(err, client.Close())
}

func TestKafka_BothClientsAuthenticate(t *testing.T) {
	for _, mechanism := range []Mechanism{Plain, ScramSHA256, ScramSHA512} {
		t.Run(string(mechanism), func(t *testing.T) {
			_, k := mustFake(t, kfake.EnableSASL(), kfake.Superuser(string(mechanism), "user", "secret"))
			k.SASL = &SASL{Mechanism: mechanism, User: "user", Password: "secret"}
			if franz, sarama := reaches(t, k); franz != nil || sarama != nil {
				t.Errorf("got %v and %v, want both to be let in", franz, sarama)
			}
			k.SASL.Password = "wrong"
			if franz, sarama := reaches(t, k); franz == nil || sarama == nil {
				t.Errorf("with a wrong password: got %v and %v, want both refused", franz, sarama)
			}
		})
	}
}

func TestKafka_BothClientsSpeakTLSThroughAnyDialer(t *testing.T) {
	certificate, pool := mustCertificate(t)
	_, k := mustFake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{certificate}}))
	k.TLS = &tls.Config{RootCAs: pool}
	if franz, sarama := reaches(t, k); franz != nil || sarama != nil {
		t.Errorf("got %v and %v, want both to be let in", franz, sarama)
	}
	var dialed atomic.Int32
	k.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	if franz, sarama := reaches(t, k); franz != nil || sarama != nil || dialed.Load() < 2 {
		t.Errorf("dialed %d: got %v and %v, want both to be let in through the dialer", dialed.Load(), franz, sarama)
	}
	k.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if franz, sarama := reaches(t, k); franz == nil || sarama == nil {
		t.Errorf("with a broker that is not trusted: got %v and %v, want both to refuse", franz, sarama)
	}
}

func TestKafka_ValidateNamesTheFault(t *testing.T) {
	for want, k := range map[string]*Kafka{
		"no Kafka brokers": {},
		"needs a user":     {Brokers: []string{"b:1"}, SASL: &SASL{Mechanism: Plain}},
		`"GSSAPI"`:         {Brokers: []string{"b:1"}, SASL: &SASL{Mechanism: "GSSAPI", User: "u"}},
	} {
		if _, err := k.Sarama(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if _, err := NewReader(k, "t", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("reader: got %v, want %q", err, want)
		}
	}
}

func TestKafka_SaramaNeverDecidesAPosition(t *testing.T) {
	k := &Kafka{Brokers: []string{"b:1"}, SessionTimeout: 7 * time.Second, HeartbeatInterval: time.Second}
	c, err := k.Sarama()
	if err != nil {
		t.Fatal(err)
	}
	if c.MetricRegistry == nil || c.Consumer.IsolationLevel != sarama.ReadCommitted || c.Consumer.Offsets.AutoCommit.Enable ||
		c.Consumer.Group.ResetInvalidOffsets || c.Metadata.AllowAutoTopicCreation || !c.Version.IsAtLeast(sarama.V3_6_0_0) {
		t.Errorf("got %+v", c.Consumer)
	}
	if c.Net.ReadTimeout <= c.Consumer.Group.Rebalance.Timeout {
		t.Errorf("read timeout %s would cut a rebalance of %s", c.Net.ReadTimeout, c.Consumer.Group.Rebalance.Timeout)
	}
	if g := c.Consumer.Group; g.Session.Timeout != 7*time.Second || g.Heartbeat.Interval != time.Second {
		t.Errorf("session %s, heartbeat %s, want 7s and 1s", g.Session.Timeout, g.Heartbeat.Interval)
	}
}
