package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// Options says what cluster to start. The zero value is one broker with a plaintext listener.
type Options struct {
	Brokers    int               // default 1
	Properties map[string]string // of server.properties, for every broker; they win over the package's own
	Users      []User            // opens SASLPlaintext, and with TLS also SASLTLS
	TLS        bool              // opens TLS and MutualTLS
	Format     []string          // further arguments to the formatting of a new data directory, such as --feature transaction.version=1
	JVM        []string          // further flags of the JVM; the default is tuned to start fast

	Dir   string // where data and logs lie and stay; "" is a temporary folder that Close removes
	Ports []int  // of the plaintext listeners, one for each broker; default free ones
}

// User may log in at the listeners with SASL.
type User struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Name      string
	Password  string
}

// Cluster is a running Apache Kafka of one or several brokers on the loopback interface.
type Cluster struct {
	Nodes []*Node

	clusterID string
	dir       string
	temporary bool
	keep      bool
	ports     []*port
	pki       *PKI // nil without TLS
}

// startTries is how often a cluster is begun anew when another program took one of its ports meanwhile.
const startTries = 3

// Start starts a cluster and returns when every broker takes part in it. The error is ErrTool where java or mvn is missing.
// Close ends it, and so does the end of this process.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	jars, err := openCache(ctx)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		c, err := start(ctx, o, jars)
		if err == nil || try == startTries || !strings.Contains(err.Error(), "java.net.BindException") {
			return c, err
		}
	}
}

func start(ctx context.Context, o Options, jars cache) (_ *Cluster, err error) {
	c := &Cluster{clusterID: newClusterID(), dir: o.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "tidemark-kafka-"); err != nil {
			return nil, err
		}
		c.temporary = true
		if err := removeWithProcess(c.dir); err != nil {
			return nil, err
		}
	}
	if o.TLS {
		if c.pki, err = newPKI(filepath.Join(c.dir, "tls")); err != nil {
			return nil, err
		}
	}
	if err := c.plan(o, jars); err != nil {
		return nil, err
	}
	format, formatCtx := errgroup.WithContext(ctx)
	for _, n := range c.Nodes {
		format.Go(func() error { return n.prepare(formatCtx, c, o) })
	}
	if err := format.Wait(); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return nil, err
		}
	}
	return c, c.WaitReady(ctx)
}

// plan gives each broker its folder and its ports.
func (c *Cluster) plan(o Options, jars cache) error {
	listeners := o.listeners()
	for i := range max(1, o.Brokers) {
		n := &Node{
			ID: int32(i + 1), dir: filepath.Join(c.dir, fmt.Sprintf("broker-%d", i+1)),
			jars: jars.jars(), jvm: append(slices.Clone(fastStart), o.JVM...), ports: map[Listener]*port{},
		}
		c.Nodes = append(c.Nodes, n)
		for _, l := range append([]Listener{controller}, listeners...) {
			var p *port
			var err error
			if l == Plaintext && i < len(o.Ports) {
				p, err = takeThisPort(o.Ports[i])
			} else {
				p, err = takePort()
			}
			if err != nil {
				return err
			}
			c.ports = append(c.ports, p)
			n.ports[l] = p
		}
	}
	return nil
}

// prepare writes a broker's files and formats its data directory unless that was done in an earlier life.
func (n *Node) prepare(ctx context.Context, c *Cluster, o Options) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(n.dir, "log4j2.properties"), []byte(log4j), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(n.properties(), c.serverProperties(n, o), 0o600); err != nil {
		return err
	}
	formatted, err := exists(filepath.Join(n.dir, "data", "meta.properties"))
	if err != nil || formatted {
		return err
	}
	return n.format(ctx, c.clusterID, append(scramArguments(o.Users), o.Format...))
}

// Addrs are the addresses of all brokers for clients without TLS and SASL.
func (c *Cluster) Addrs() []string { return c.AddrsOf(Plaintext) }

// AddrsOf are the addresses of one listener of all brokers. It panics when the options did not open that listener.
func (c *Cluster) AddrsOf(l Listener) []string {
	addrs := make([]string, 0, len(c.Nodes))
	for _, n := range c.Nodes {
		p, ok := n.ports[l]
		if !ok {
			panic(fmt.Sprintf("kafkatest: the cluster has no listener %s", l))
		}
		addrs = append(addrs, p.addr())
	}
	return addrs
}

// PKI is what TLS clients need; nil unless the options asked for TLS.
func (c *Cluster) PKI() *PKI { return c.pki }

// pollEvery is how often a condition of the cluster is looked at.
const pollEvery = 25 * time.Millisecond

// WaitReady returns when each broker that is up answers and knows all of them, and a controller leads. It fails with the end
// of the log of a broker that has ended by itself.
func (c *Cluster) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := c.ready(ctx)
		if err == nil {
			return nil
		}
		for _, n := range c.Nodes {
			if err := n.died(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster did not become ready: %w; last: %w; logs in %s", ctx.Err(), err, c.dir)
		case <-tick.C:
		}
	}
}

func (c *Cluster) ready(ctx context.Context) error {
	var up []string
	for _, n := range c.Nodes {
		if n.PID() != 0 {
			up = append(up, n.Addr())
		}
	}
	for _, addr := range up {
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.RetryTimeout(time.Second))
		if err != nil {
			return err
		}
		meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl.SeedBrokers()[0])
		cl.Close()
		if err != nil {
			return err
		}
		if len(meta.Brokers) != len(up) || meta.ControllerID < 0 {
			return fmt.Errorf("broker at %s knows %d of %d brokers, controller %d", addr, len(meta.Brokers), len(up), meta.ControllerID)
		}
	}
	return nil
}

// Keep has Close leave the folder with data and logs behind, and returns where it will be.
func (c *Cluster) Keep() string {
	c.keep = true
	return c.keptDir()
}

// keptDir is another name than that which removeWithProcess knows.
func (c *Cluster) keptDir() string {
	if c.temporary {
		return c.dir + "-kept"
	}
	return c.dir
}

// Close kills the brokers and removes a temporary folder. For a clean end call Stop first.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Kill())
	}
	for _, p := range c.ports {
		errs = append(errs, p.Close())
	}
	c.ports = nil
	switch {
	case c.temporary && c.keep:
		errs = append(errs, os.Rename(c.dir, c.keptDir()))
	case c.temporary:
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// Stop stops all brokers at once in the clean way.
func (c *Cluster) Stop(ctx context.Context) error {
	var all errgroup.Group
	for _, n := range c.Nodes {
		all.Go(func() error { return n.Stop(ctx) })
	}
	return all.Wait()
}

// newClusterID is 16 random bytes as Kafka writes them (org.apache.kafka.common.Uuid).
func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // a leading '-' would be taken for an option
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// fastStart are flags for a JVM that lives for a test: no optimising compiler, no threads for collecting garbage.
var fastStart = []string{"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}

const log4j = `status = error
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
`

// serverProperties is the broker's configuration.
func (c *Cluster) serverProperties(n *Node, o Options) []byte {
	replicas, inSync := min(3, len(c.Nodes)), min(2, len(c.Nodes))
	p := map[string]string{
		"process.roles": "broker,controller",
		"node.id":       fmt.Sprint(n.ID),
		"log.dirs":      filepath.Join(n.dir, "data"),

		"offsets.topic.num.partitions":                                "4",
		"offsets.topic.replication.factor":                            fmt.Sprint(replicas),
		"transaction.state.log.num.partitions":                        "4",
		"transaction.state.log.replication.factor":                    fmt.Sprint(replicas),
		"transaction.state.log.min.isr":                               fmt.Sprint(inSync),
		"default.replication.factor":                                  fmt.Sprint(replicas),
		"min.insync.replicas":                                         fmt.Sprint(inSync),
		"auto.create.topics.enable":                                   "false",
		"log.retention.hours":                                         "-1",
		"group.initial.rebalance.delay.ms":                            "0",
		"group.min.session.timeout.ms":                                "1000",
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",      // 10 s by default
		"log.cleaner.dedupe.buffer.size":                              "16777216", // a fourth of the heap by default
		"log.cleaner.backoff.ms":                                      "200",      // 15 s by default
	}
	c.listenerProperties(n, o, p)
	maps.Copy(p, o.Properties)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strings.ReplaceAll(p[k], `\`, `\\`)) // java.util.Properties takes it for an escape
	}
	return []byte(b.String())
}
