package kafkatest_test

import (
	"crypto/tls"
	"errors"
	"testing"

	"github.com/IBM/sarama"
	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/twmb/franz-go/pkg/kgo"
)

// reach has both clients ask the cluster for its brokers.
func reach(t *testing.T, k *eos.Kafka) (franz, saramas error) {
	t.Helper()
	cl, err := kgo.NewClient(k.Franz(kgo.RequestRetries(0))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	config, err := k.Sarama()
	if err != nil {
		t.Fatal(err)
	}
	config.Metadata.Retry.Max = 0
	client, err := sarama.NewClient(k.Brokers, config)
	if err == nil {
		_, err = client.Controller() // the client itself connects to nothing
		err = errors.Join(err, client.Close())
	}
	return cl.Ping(within(t)), err
}

func TestListeners_LetInWhomTheyShould(t *testing.T) {
	t.Parallel()
	const user, password = "user", `pass "word"`
	c := kafkatest.MustCluster(t, kafkatest.Options{TLS: true, Users: []kafkatest.User{
		{Mechanism: "PLAIN", Name: user, Password: password},
		{Mechanism: "SCRAM-SHA-256", Name: user, Password: "pass-256"},
		{Mechanism: "SCRAM-SHA-512", Name: user, Password: "pass-512"},
	}})
	sasl := func(m eos.Mechanism, password string) *eos.SASL {
		return &eos.SASL{Mechanism: m, User: user, Password: password}
	}
	stranger := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, door := range []struct {
		listener kafkatest.Listener
		tls      *tls.Config
		sasl     *eos.SASL
		open     bool
	}{
		{kafkatest.Plaintext, nil, nil, true},
		{kafkatest.TLS, c.PKI().Client(), nil, true},
		{kafkatest.TLS, stranger, nil, false},
		{kafkatest.MutualTLS, c.PKI().MutualClient(), nil, true},
		{kafkatest.MutualTLS, c.PKI().Client(), nil, false},
		{kafkatest.SASLPlaintext, nil, sasl(eos.Plain, password), true},
		{kafkatest.SASLPlaintext, nil, sasl(eos.ScramSHA256, "pass-256"), true},
		{kafkatest.SASLTLS, c.PKI().Client(), sasl(eos.ScramSHA512, "pass-512"), true},
		{kafkatest.SASLTLS, c.PKI().Client(), sasl(eos.ScramSHA512, "wrong"), false},
		{kafkatest.SASLPlaintext, nil, sasl(eos.Plain, "wrong"), false},
	} {
		franz, saramas := reach(t, &eos.Kafka{Brokers: c.AddrsOf(door.listener), TLS: door.tls, SASL: door.sasl})
		if (franz == nil) != door.open || (saramas == nil) != door.open {
			t.Errorf("%s with %+v: got %v and %v, want let in: %v", door.listener, door.sasl, franz, saramas, door.open)
		}
	}
}
