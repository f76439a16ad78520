package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config says where the broker's data lie and where it listens.
type Config struct {
	// Dir holds the data, a lock and the address; it is made if it does not exist. One process at a time may use it.
	Dir string
	// Addr is the host:port to listen on, of the loopback interface; "" is a free port of 127.0.0.1.
	Addr string
	// Sync has every batch of records synced to disk before it is acknowledged.
	Sync bool
	// Logger gets the broker's warnings and errors; nil is none.
	Logger *slog.Logger
}

// ErrLocked says that another process runs a broker on the same directory.
var ErrLocked = errors.New("broker: directory is in use")

// Broker is a running embedded broker.
type Broker struct {
	dir     string
	addr    string
	cluster *kfake.Cluster
	log     *faults
	lock    *os.File

	closing sync.Once
	closed  error // of closing
}

// settings are the broker's own, where they differ from kfake's. Sessions may be short because everything is on one machine;
// data and offsets stay until somebody removes the directory.
var settings = map[string]string{
	"group.min.session.timeout.ms": "500",
	"default.replication.factor":   "1",
	"log.retention.ms":             "-1",
	"offsets.retention.minutes":    strconv.Itoa(10 * 365 * 24 * 60),
}

// Start starts the broker and returns when it answers; the context bounds the waiting alone. It fails with ErrLocked when another
// process holds the directory, and when the address is taken or lies outside the loopback interface.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	host, port, err := loopback(cfg.Addr)
	if err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		return nil, errors.New("broker: no directory for its data")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("broker: make its directory: %w", err)
	}
	b := &Broker{dir: cfg.Dir, log: &faults{to: cfg.Logger}}
	if b.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if err := b.open(ctx, cfg, host, port); err != nil {
		return nil, errors.Join(fmt.Errorf("broker: start on %s: %w", cfg.Dir, err), b.lock.Close())
	}
	b.addr = b.cluster.ListenAddrs()[0]
	if err := b.announce(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// clusterPrefix begins the cluster ID of every embedded broker. The package eos knows them by it: kfake's compaction moves the start
// of a log, which Kafka's never does.
const clusterPrefix = "tidemark-embedded-"

// open starts kfake on the directory, which is mended first if the last broker on it was killed.
func (b *Broker) open(ctx context.Context, cfg Config, host string, port int) error {
	opts := []kfake.Opt{
		kfake.NumBrokers(1), kfake.ClusterID(clusterPrefix + rand.Text()), kfake.DataDir(filepath.Join(cfg.Dir, "data")),
		kfake.BrokerConfigs(settings), kfake.WithLogger(b.log),
	}
	if cfg.Sync {
		opts = append(opts, kfake.SyncWrites())
	}
	killed, err := markUnclean(cfg.Dir)
	if err != nil {
		return err
	}
	if killed {
		if err := repair(ctx, opts); err != nil {
			return fmt.Errorf("mend what a kill left behind: %w", err)
		}
	}
	listen := func(network, address string) (net.Listener, error) { // kfake names 127.0.0.1 itself
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return net.Listen(network, net.JoinHostPort(host, port))
	}
	b.cluster, err = kfake.NewCluster(append(opts, kfake.Ports(port), kfake.ListenFn(listen))...)
	if err != nil && !killed {
		err = errors.Join(err, remove(unclean(cfg.Dir)))
	}
	return err
}

// loopback splits an address and refuses one that other machines could reach.
func loopback(addr string) (host string, port int, err error) {
	if addr == "" {
		return "127.0.0.1", 0, nil
	}
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("broker: address %q: %w", addr, err)
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("broker: address %q: want a port from 0 to 65535", addr)
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return host, port, nil
	}
	return "", 0, fmt.Errorf("broker: address %q: want one of the loopback interface: the embedded broker asks nobody who they are", addr)
}

// Addrs are the broker's addresses for clients.
func (b *Broker) Addrs() []string { return []string{b.addr} }

// Close writes down what is still in memory, stops the broker and gives up the directory. It fails when something could not be
// written. Further calls give the same answer.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		before := b.log.count()
		err := remove(addressFile(b.dir))
		b.cluster.Close()
		if err = errors.Join(err, b.log.since(before)); err == nil {
			err = remove(unclean(b.dir))
		}
		b.closed = errors.Join(err, b.lock.Close())
	})
	return b.closed
}

// remove removes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// faults passes kfake's warnings and errors on, and remembers the errors: kfake reports a failed write at its end only so.
type faults struct {
	to *slog.Logger // may be nil

	mu     sync.Mutex // guards errors
	errors []error
}

// faultsMax bounds what is remembered.
const faultsMax = 100

// Logf is called by kfake.
func (f *faults) Logf(level kfake.LogLevel, format string, args ...any) {
	if level == kfake.LogLevelNone || level > kfake.LogLevelWarn {
		return
	}
	text := fmt.Sprintf(format, args...)
	if f.to != nil {
		f.to.Warn("embedded broker: " + text)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if level == kfake.LogLevelError && len(f.errors) < faultsMax {
		f.errors = append(f.errors, errors.New("broker: "+text))
	}
}

func (f *faults) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.errors)
}

func (f *faults) since(n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.errors[n:]...)
}
