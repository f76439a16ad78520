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
	stopper *stopper
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
	b := &Broker{dir: cfg.Dir}
	if b.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	b.stopper = newStopper(cfg.Dir, cfg.Logger, b.lock)
	if err := b.open(ctx, cfg, host, port); err != nil {
		return nil, errors.Join(fmt.Errorf("broker: start on %s: %w", cfg.Dir, err), b.unlock())
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
	data := filepath.Join(cfg.Dir, "data")
	opts := []kfake.Opt{
		kfake.NumBrokers(1), kfake.ClusterID(clusterPrefix + rand.Text()), kfake.DataDir(data), kfake.BrokerConfigs(settings),
	}
	if cfg.Sync {
		opts = append(opts, kfake.SyncWrites())
	}
	killed, err := markUnclean(cfg.Dir)
	if err != nil {
		return err
	}
	if killed {
		err := mendFiles(data)
		if err == nil {
			err = repair(ctx, b.stopper, opts)
		}
		if err != nil {
			return fmt.Errorf("mend what a kill left behind: %w", err)
		}
	}
	listen := func(network, address string) (net.Listener, error) { // kfake names 127.0.0.1 itself
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return b.stopper.listen(network, net.JoinHostPort(host, port))
	}
	b.cluster, err = b.stopper.start(append(opts, kfake.Ports(port), kfake.ListenFn(listen)))
	if err != nil && !killed && b.stopper.err() == nil {
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

// Failed is closed when the broker has stopped by itself, at the first file of its directory that it could not write or read. From
// then on it answers nobody, and the directory is as after a kill of the process: the next Start mends it, in another process, because
// this one keeps the lock. Close says why, as a *Fault.
func (b *Broker) Failed() <-chan struct{} { return b.stopper.stopped }

// Close writes down what is still in memory, stops the broker and gives up the directory. It fails with a *Fault when the broker has
// stopped by itself, or does so because something cannot be written. Further calls give the same answer.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		err := errors.Join(remove(addressFile(b.dir)), b.stopper.close(b.cluster))
		if err == nil {
			err = remove(unclean(b.dir))
		}
		b.closed = errors.Join(err, b.unlock())
	})
	return b.closed
}

// unlock gives up the directory, unless the broker has stopped by itself: then the lock goes with the process.
func (b *Broker) unlock() error {
	if b.stopper.err() != nil {
		return nil
	}
	return b.lock.Close()
}

// remove removes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
