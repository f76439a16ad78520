package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// addressFile tells other processes where the broker of a directory listens: its address, and the cluster ID by which they know
// that it is the one.
func addressFile(dir string) string { return filepath.Join(dir, "address") }

// runningWithin is how long a broker that is up may take to answer Running.
const runningWithin = 3 * time.Second

// Running gives the addresses of the broker that some process runs on the directory; ok is false when none answers there. An
// address left behind by a process that was killed is not believed, even when another cluster listens on it by now.
func Running(dir string) (addrs []string, ok bool) {
	text, err := os.ReadFile(addressFile(dir))
	if err != nil {
		return nil, false
	}
	addr, cluster, found := strings.Cut(strings.TrimSpace(string(text)), " ")
	if !found {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), runningWithin)
	defer cancel()
	if id, err := clusterAt(ctx, addr); err != nil || id != cluster {
		return nil, false
	}
	return []string{addr}, true
}

// announce waits until the broker answers, and then writes its address.
func (b *Broker) announce(ctx context.Context) error {
	id, err := clusterAt(ctx, b.addr)
	if err != nil {
		return fmt.Errorf("broker: ask the broker at %s: %w", b.addr, err)
	}
	part := addressFile(b.dir) + ".part" // never half an address
	if err := os.WriteFile(part, []byte(b.addr+" "+id+"\n"), 0o644); err != nil {
		return fmt.Errorf("broker: write its address: %w", err)
	}
	return os.Rename(part, addressFile(b.dir))
}

// clusterAt asks for a cluster's ID, once: where nobody listens, the answer is there at once.
func clusterAt(ctx context.Context, addr string) (string, error) {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&net.Dialer{Timeout: runningWithin}).DialContext(ctx, network, address)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.RetryTimeout(runningWithin), kgo.Dialer(dial))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl.SeedBrokers()[0])
	if err != nil {
		return "", err
	}
	if meta.ClusterID == nil {
		return "", errors.New("a cluster without an ID")
	}
	return *meta.ClusterID, nil
}
