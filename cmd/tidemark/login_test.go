package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// TestLogin_EveryVerbSpeaksTLSAndSASL runs a job on a real Kafka through each door that the brokers have.
func TestLogin_EveryVerbSpeaksTLSAndSASL(t *testing.T) {
	users := []kafkatest.User{
		{Mechanism: "PLAIN", Name: "petra", Password: "plain secret"},
		{Mechanism: "SCRAM-SHA-256", Name: "sam", Password: "salted secret"},
		{Mechanism: "SCRAM-SHA-512", Name: "sue", Password: "saltier secret"},
	}
	c := kafkatest.MustCluster(t, kafkatest.Options{TLS: true, Users: users})
	pki := c.PKI()
	for _, door := range []struct {
		name     string
		listener kafkatest.Listener
		flags    []string
	}{
		{"plain over TLS", kafkatest.SASLTLS, login(t, pki.CAFile, users[0])},
		{"scram 256 over TLS", kafkatest.SASLTLS, login(t, pki.CAFile, users[1])},
		{"scram 512 without TLS", kafkatest.SASLPlaintext, login(t, "", users[2])},
		{"mutual TLS", kafkatest.MutualTLS, []string{"--tls-ca", pki.CAFile, "--tls-cert", pki.ClientCertFile, "--tls-key", pki.ClientKeyFile}},
	} {
		t.Run(door.name, func(t *testing.T) {
			l := mustLogin(t, append([]string{"--brokers", strings.Join(c.AddrsOf(door.listener), ",")}, door.flags...))
			l.must("topics", "--create", "--partitions", "2")
			l.must("produce", filepath.Join("..", "..", "testdata", "hurdat2_storms", "events.ndjson.gz"))
			l.must("run", "--until-caught-up", "--state", filepath.Join(t.TempDir(), "state"))
			if out := l.must("dump"); strings.Count(out, "\n") < 100 {
				t.Errorf("dump gave %d lines, want every storm", strings.Count(out, "\n"))
			}
			l.must("verify")
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		wrong := users[2]
		wrong.Password = "guessed"
		l := mustLogin(t, append([]string{"--brokers", c.AddrsOf(kafkatest.SASLPlaintext)[0]}, login(t, "", wrong)...))
		if code, _, said := l.run("topics"); code != exitUser || !strings.Contains(strings.ToLower(said), "sasl") {
			t.Errorf("got exit %d and %q, want %d and a word of SASL", code, said, exitUser)
		}
	})
}

// login are the flags of a user; ca "" is without TLS.
func login(t *testing.T, ca string, u kafkatest.User) []string {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(u.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--sasl-mechanism", u.Mechanism, "--sasl-user", u.Name, "--sasl-password-file", file}
	if ca != "" {
		flags = append(flags, "--tls-ca", ca)
	}
	return flags
}

// loggedIn runs verbs of a job of its own with the same flags.
type loggedIn struct {
	t     *testing.T
	flags []string
}

func mustLogin(t *testing.T, flags []string) *loggedIn {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", "..", "testdata", "hurdat2_storms", "job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(src), "\n")
	name := kafkatest.TopicName(t)
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "name:"):
			lines[i] = "name: " + name
		case strings.HasPrefix(line, "  topic:"):
			lines[i] = "  topic: " + name + "-events"
		}
	}
	file := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return &loggedIn{t, append([]string{"--job", file}, flags...)}
}

func (l *loggedIn) run(verb ...string) (code int, out, said string) {
	var stdout, stderr bytes.Buffer
	code = run(l.t.Context(), append(verb, l.flags...), stdio{strings.NewReader(""), &stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

func (l *loggedIn) must(verb ...string) string {
	l.t.Helper()
	code, out, said := l.run(verb...)
	if code != exitDone {
		l.t.Fatalf("%v: exit %d: %s", verb, code, said)
	}
	return out
}
