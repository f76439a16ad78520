package eos

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	xdgscram "github.com/xdg-go/scram"
)

// Kafka says how to reach a cluster. Consumption goes through sarama (under Goka), everything else through franz-go; both
// get the same addresses, credentials and patience from here.
type Kafka struct {
	// Brokers are the addresses to begin with, host:port.
	Brokers []string
	// ClientID names this process to the brokers; a group's description shows it.
	ClientID string
	// TLS, when not nil, is used for every connection. Certificates in it make mTLS. The server's name is taken from each
	// broker's address where it is empty.
	TLS *tls.Config
	// SASL, when not nil, authenticates every connection.
	SASL *SASL
	// Dial replaces the dialing of connections, below TLS; tests use it to cut and delay them.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// SessionTimeout is how long the group waits for a silent member; 0 is 6 s, the least that brokers allow by default
	// (group.min.session.timeout.ms).
	SessionTimeout time.Duration
	// HeartbeatInterval is a quarter of the session timeout when 0. It bounds how late a member hears of a rebalance.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long members have to stop their work and join again; 0 is 10 s.
	RebalanceTimeout time.Duration
}

// SASL is a user's proof of identity.
type SASL struct {
	Mechanism Mechanism
	User      string
	Password  string
}

// Mechanism is a SASL mechanism, spelled as Kafka spells it.
type Mechanism string

// The mechanisms that Tidemark speaks.
const (
	Plain       Mechanism = "PLAIN"
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	ScramSHA512 Mechanism = "SCRAM-SHA-512"
)

const (
	// dialTimeout and answerTimeout make a dead broker noticed within seconds; sarama and franz-go wait 10 to 30 s.
	dialTimeout   = 3 * time.Second
	answerTimeout = 5 * time.Second
)

// Validate reports the first fault of the settings.
func (k *Kafka) Validate() error {
	switch {
	case len(k.Brokers) == 0:
		return errors.New("no Kafka brokers are named")
	case k.SASL != nil && k.SASL.User == "":
		return errors.New("SASL needs a user")
	}
	if k.SASL != nil {
		switch k.SASL.Mechanism {
		case Plain, ScramSHA256, ScramSHA512:
		default:
			return fmt.Errorf("SASL mechanism %q is not one of %s, %s, %s", k.SASL.Mechanism, Plain, ScramSHA256, ScramSHA512)
		}
	}
	return nil
}

// Franz gives the options of a franz-go client, followed by extra ones. It does not validate: NewClient of kgo does, and
// Validate for what is ours.
func (k *Kafka) Franz(extra ...kgo.Opt) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...),
		kgo.DialTimeout(dialTimeout),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.RetryBackoffFn(backoff),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.RequiredAcks(kgo.AllISRAcks()),
	}
	if k.ClientID != "" {
		opts = append(opts, kgo.ClientID(k.ClientID))
	}
	switch {
	case k.Dial != nil:
		opts = append(opts, kgo.Dialer(k.dial))
	case k.TLS != nil:
		opts = append(opts, kgo.DialTLSConfig(k.TLS))
	}
	if k.SASL != nil {
		opts = append(opts, kgo.SASL(k.SASL.franz()))
	}
	return append(opts, extra...)
}

func (s *SASL) franz() sasl.Mechanism {
	auth := scram.Auth{User: s.User, Pass: s.Password}
	switch s.Mechanism {
	case ScramSHA256:
		return auth.AsSha256Mechanism()
	case ScramSHA512:
		return auth.AsSha512Mechanism()
	default:
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism()
	}
}

// dial puts TLS on top of the dialer that replaces the usual one: kgo does that for its own dialer alone.
func (k *Kafka) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := k.Dial(ctx, network, address)
	if err != nil || k.TLS == nil {
		return conn, err
	}
	config := k.TLS.Clone()
	if config.ServerName == "" {
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// backoff grows from 50 ms to 1 s, with jitter: a broker that comes back is found at once, one that stays away is not
// hammered.
func backoff(failures int) time.Duration {
	wait := time.Second
	if failures < 6 {
		wait = 50 * time.Millisecond << max(failures-1, 0)
	}
	return min(time.Duration(float64(wait)*(0.8+0.4*rand.Float64())), time.Second)
}

// Sarama gives a configuration for a consumer group: read_committed, no autocommit, no creation of topics by asking, and
// offsets out of range are an error, never a reset. It fails where Validate does or where sarama's own check does.
func (k *Kafka) Sarama() (*sarama.Config, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	c := sarama.NewConfig() // which sets MetricRegistry; nil panics
	c.Version = sarama.V3_6_0_0
	if k.ClientID != "" {
		c.ClientID = k.ClientID
	}
	rebalance := orElse(k.RebalanceTimeout, 10*time.Second)
	c.Net.DialTimeout = dialTimeout
	c.Net.WriteTimeout = answerTimeout
	// A JoinGroup is answered only when every member has joined, so reads outlast the rebalance (sarama broker.go:
	// responseReceiver sets the one deadline for all requests).
	c.Net.ReadTimeout = rebalance + answerTimeout
	c.Metadata.AllowAutoTopicCreation = false
	c.Metadata.RefreshFrequency = time.Minute
	c.Metadata.Retry.Max = 10
	c.Metadata.Retry.Backoff = 100 * time.Millisecond
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	c.Consumer.Return.Errors = true
	c.Consumer.Retry.Backoff = 250 * time.Millisecond
	c.Consumer.MaxProcessingTime = time.Second
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Group.ResetInvalidOffsets = false
	c.Consumer.Group.Session.Timeout = orElse(k.SessionTimeout, 6*time.Second)
	c.Consumer.Group.Heartbeat.Interval = orElse(k.HeartbeatInterval, c.Consumer.Group.Session.Timeout/4)
	c.Consumer.Group.Rebalance.Timeout = rebalance
	c.Consumer.Group.Rebalance.Retry.Backoff = 250 * time.Millisecond
	if k.TLS != nil {
		c.Net.TLS.Enable, c.Net.TLS.Config = true, k.TLS
	}
	if k.Dial != nil {
		c.Net.Proxy.Enable, c.Net.Proxy.Dialer = true, proxyDialer{k.Dial}
	}
	if k.SASL != nil {
		k.SASL.sarama(c)
	}
	return c, c.Validate()
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (s *SASL) sarama(c *sarama.Config) {
	c.Net.SASL.Enable = true
	c.Net.SASL.Mechanism = sarama.SASLMechanism(s.Mechanism)
	c.Net.SASL.User, c.Net.SASL.Password = s.User, s.Password
	switch s.Mechanism {
	case ScramSHA256:
		c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: sha256.New} }
	case ScramSHA512:
		c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: sha512.New} }
	}
}

// proxyDialer fits Kafka.Dial into sarama, which puts TLS on top itself.
type proxyDialer struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (d proxyDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	return d.dial(ctx, network, address)
}

// scramClient is one SCRAM conversation, the seam that sarama leaves open.
type scramClient struct {
	hash         xdgscram.HashGeneratorFcn
	conversation *xdgscram.ClientConversation
}

func (c *scramClient) Begin(user, password, authorization string) error {
	client, err := c.hash.NewClient(user, password, authorization)
	if err != nil {
		return err
	}
	c.conversation = client.NewConversation()
	return nil
}

func (c *scramClient) Step(challenge string) (string, error) { return c.conversation.Step(challenge) }

func (c *scramClient) Done() bool { return c.conversation.Done() }
