package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/ops"
	"github.com/tidemark/tidemark/rules"
)

// globals are the flags of every verb.
type globals struct {
	Job      string   `short:"j" placeholder:"FILE" env:"TIDEMARK_JOB" help:"The job file."`
	Brokers  []string `short:"b" placeholder:"HOST:PORT" env:"TIDEMARK_BROKERS" help:"Kafka brokers to begin with; 'brokers:' in the job file does the same."`
	Embedded bool     `help:"Use the embedded broker, whose data lies in ./.tidemark. It is for one machine, and for trying."`

	TLS     bool   `group:"tls" help:"Speak TLS with the brokers, with the system's certificate authorities."`
	TLSCA   string `name:"tls-ca" group:"tls" placeholder:"FILE" help:"Certificate authorities to trust, PEM; implies --tls."`
	TLSCert string `name:"tls-cert" group:"tls" placeholder:"FILE" help:"Certificate of this client, PEM (mTLS); implies --tls."`
	TLSKey  string `name:"tls-key" group:"tls" placeholder:"FILE" help:"Its private key, PEM."`

	SASLMechanism    string `name:"sasl-mechanism" group:"sasl" default:"SCRAM-SHA-512" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."`
	SASLUser         string `name:"sasl-user" group:"sasl" env:"TIDEMARK_SASL_USER" help:"The user."`
	SASLPassword     string `name:"sasl-password" group:"sasl" env:"TIDEMARK_SASL_PASSWORD" help:"The password. Others can read a command line: prefer the environment or a file."`
	SASLPasswordFile string `name:"sasl-password-file" group:"sasl" placeholder:"FILE" help:"File with the password."`

	Verbose bool   `short:"v" help:"Log more."`
	Log     string `enum:"text,json" default:"text" help:"How to log: text or json."`

	dir string // where .tidemark lies; "" is here
}

// How long a verb waits for the first answer of a broker: one that only asks, and a processor, which may have been started
// together with Kafka.
const (
	patience    = 10 * time.Second
	runPatience = 30 * time.Second
)

// dataDir is where Tidemark keeps its files by default.
func (g *globals) dataDir() string { return filepath.Join(g.dir, ".tidemark") }

// rules reads and checks the job file.
func (g *globals) rules() (*rules.RuleSet, error) {
	if g.Job == "" {
		return nil, usagef("no job file: name it with --job FILE")
	}
	src, err := os.ReadFile(g.Job)
	if err != nil {
		return nil, usagef("job file: %w", err)
	}
	rs, err := rules.Load(src)
	var faults *rules.Faults
	if errors.As(err, &faults) {
		return nil, &jobFaults{g.Job, faults}
	}
	return rs, err
}

// kafka says how to reach the cluster that flags, environment or job file name, the flags first.
func (g *globals) kafka(rs *rules.RuleSet) (*eos.Kafka, error) {
	k := &eos.Kafka{Brokers: g.Brokers, ClientID: "tidemark"}
	if len(k.Brokers) == 0 && rs != nil {
		k.Brokers = rs.Job().Brokers
	}
	if len(k.Brokers) == 0 {
		return nil, usagef("no Kafka named: say --brokers HOST:PORT (or TIDEMARK_BROKERS, or brokers: in the job file), or --embedded to try it with the embedded broker")
	}
	for i, b := range k.Brokers {
		if k.Brokers[i] = strings.TrimSpace(b); k.Brokers[i] == "" {
			return nil, usagef("--brokers has an empty address in %q", strings.Join(g.Brokers, ","))
		}
		if _, _, err := net.SplitHostPort(k.Brokers[i]); err != nil {
			return nil, usagef("broker %q: want HOST:PORT, such as localhost:9092", k.Brokers[i])
		}
	}
	var err error
	if k.TLS, err = g.tls(); err != nil {
		return nil, err
	}
	if k.SASL, err = g.sasl(); err != nil {
		return nil, err
	}
	if err := k.Validate(); err != nil {
		return nil, &usage{err}
	}
	return k, nil
}

func (g *globals) tls() (*tls.Config, error) {
	if !g.TLS && g.TLSCA == "" && g.TLSCert == "" && g.TLSKey == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if g.TLSCA != "" {
		pem, err := os.ReadFile(g.TLSCA)
		if err != nil {
			return nil, usagef("--tls-ca: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("--tls-ca: %s holds no certificate in PEM", g.TLSCA)
		}
	}
	if (g.TLSCert == "") != (g.TLSKey == "") {
		return nil, usagef("--tls-cert and --tls-key go together")
	}
	if g.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(g.TLSCert, g.TLSKey)
		if err != nil {
			return nil, usagef("--tls-cert, --tls-key: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

func (g *globals) sasl() (*eos.SASL, error) {
	if g.SASLUser == "" {
		if g.SASLPassword != "" || g.SASLPasswordFile != "" {
			return nil, usagef("a SASL password without --sasl-user")
		}
		return nil, nil
	}
	s := &eos.SASL{Mechanism: eos.Mechanism(strings.ToUpper(g.SASLMechanism)), User: g.SASLUser, Password: g.SASLPassword}
	if g.SASLPasswordFile != "" {
		b, err := os.ReadFile(g.SASLPasswordFile)
		if err != nil {
			return nil, usagef("--sasl-password-file: %w", err)
		}
		s.Password = strings.TrimRight(string(b), "\r\n")
	}
	if s.Password == "" {
		return nil, usagef("--sasl-user without a password: set TIDEMARK_SASL_PASSWORD or --sasl-password-file FILE")
	}
	return s, nil
}

func (g *globals) logger(w io.Writer) *slog.Logger { return g.loggerFrom(slog.LevelInfo, w) }

// quietLogger logs only what somebody should look at.
func (g *globals) quietLogger(w io.Writer) *slog.Logger { return g.loggerFrom(slog.LevelWarn, w) }

func (g *globals) loggerFrom(level slog.Level, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if g.Verbose {
		o.Level = slog.LevelDebug
	}
	if g.Log == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// connection is a job and the way to its cluster. Close ends what was started for it.
type connection struct {
	rules *rules.RuleSet
	kafka *eos.Kafka
	job   *ops.Job
	close func() error
}

// connect reads the job file, finds the cluster, and makes sure that it answers. may says whether an embedded broker that
// is not up may be started for the time of this verb.
func (a *app) connect(may starting) (*connection, error) {
	rs, err := a.rules()
	if err != nil {
		return nil, err
	}
	c := &connection{rules: rs, close: func() error { return nil }}
	if a.Embedded {
		if c.kafka, c.close, err = a.embedded(may); err != nil {
			return nil, err
		}
	} else if c.kafka, err = a.kafka(rs); err != nil {
		return nil, err
	}
	wait := patience
	if may == toRun {
		wait = runPatience
	}
	if err := ops.Reach(a.ctx, c.kafka, wait); err != nil {
		return nil, errors.Join(err, c.close())
	}
	c.job = &ops.Job{Kafka: c.kafka, Names: eos.Names{Job: rs.Job().Name}, Input: rs.Job().Input.Topic, Schema: rs.Schema()}
	return c, nil
}

// inputExists fails where the input topic is not there.
func (c *connection) inputExists(ctx context.Context) error {
	report, err := ops.Topics(ctx, c.kafka, c.plan(0, 0), false)
	if err != nil {
		return err
	}
	if !report.Topic(eos.RoleInput).Exists {
		return usagef("the input topic %s does not exist: write events with `tidemark produce --create-topics`, or create it with `tidemark topics --create --partitions N`", c.job.Input)
	}
	return nil
}

// plan is what the job's topics should be.
func (c *connection) plan(partitions int32, replication int16) *eos.TopicPlan {
	return &eos.TopicPlan{
		Names: c.job.Names, Input: c.job.Input, Partitions: partitions, Replication: replication,
		WatchHorizon: c.watchHorizon(),
	}
}

// watchHorizon is how far back a watch can be resumed.
func (c *connection) watchHorizon() time.Duration {
	return time.Duration(c.rules.Job().WatchHorizonMs) * time.Millisecond
}
