package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Config of a Cluster.
type Config struct {
	Seed    uint64
	Brokers int32
	// TransactionsV2 says that transaction.version 2 is finalized (KIP-890 part 2).
	TransactionsV2 bool
	Faults         Faults
	// Trace, if set, is told of every request that a broker has handled, in order.
	Trace func(line string)
}

// Cluster is the model of a Kafka cluster. Its logs and coordinators' states are replicated as Kafka's are with
// min.insync.replicas held: no acknowledged write is lost when a broker goes down, and roles move to another one.
type Cluster struct {
	cfg     Config
	connIDs atomic.Int64
	faults  *faultState

	mu        sync.Mutex // guards the fields below
	rng       *rand.Rand
	brokers   []*node
	topics    map[string]*topic
	names     []string // of topics, in order of creation
	txns      map[string]*txn
	producers int64 // ids handed out
	groups    map[string]*group
	memberIDs int
	coord     map[string]*role // coordinators, by "group/…" and "txn/…"
	appended  signal
	serving   sync.WaitGroup
	closed    bool
}

// node is one broker.
type node struct {
	id    int32
	down  bool
	conns map[*conn]bool
}

// role is what one broker does for one partition or coordinated name, until it moves.
type role struct {
	broker int32
	epoch  int32
	ready  time.Time // while it is being loaded, the holder answers that it is
}

// New makes a cluster with no topics. Close ends it.
func New(cfg Config) *Cluster {
	if cfg.Trace == nil {
		cfg.Trace = func(string) {}
	}
	c := &Cluster{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), topics: map[string]*topic{}, txns: map[string]*txn{},
		groups: map[string]*group{}, coord: map[string]*role{}, producers: 1000,
	}
	c.faults = &faultState{rng: rand.New(rand.NewPCG(cfg.Seed, 2)), Faults: cfg.Faults}
	for i := range cfg.Brokers {
		c.brokers = append(c.brokers, &node{id: i, conns: map[*conn]bool{}})
	}
	c.sweepTransactions()
	return c
}

// Close cuts every connection and waits until no broker serves any.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	for _, n := range c.brokers {
		n.cut()
	}
	c.wakeAll()
	c.mu.Unlock()
	c.serving.Wait()
}

func (n *node) cut() {
	for _, k := range sortedConns(n.conns) {
		_ = k.Close()
	}
}

func sortedConns(m map[*conn]bool) []*conn {
	list := make([]*conn, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b *conn) int { return int(a.id - b.id) })
	return list
}

// Addrs are the addresses of the brokers.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, n := range c.brokers {
		addrs = append(addrs, fmt.Sprintf("%s:%d", n.host(), port))
	}
	return addrs
}

const port = 9092

func (n *node) host() string { return fmt.Sprintf("broker-%d", n.id) }

var errRefused = errors.New("sim: connection refused")

// accept gives a connection to the broker of an address.
func (c *Cluster) accept(addr string, k *conn, from string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range c.Addrs() {
		if a == addr && !c.closed && !c.brokers[i].down {
			n := c.brokers[i]
			n.conns[k] = true
			c.serving.Add(1)
			go func() {
				defer c.serving.Done()
				c.serve(n, k, from)
				_ = k.Close()
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(n.conns, k)
			}()
			return nil
		}
	}
	return errRefused
}

// serve handles the requests of a connection one after the other, as a broker does.
func (c *Cluster) serve(n *node, k *conn, from string) {
	for {
		frame, err := readFrame(k)
		if err != nil {
			return
		}
		src := kbin.Reader{Src: frame}
		key, version, correlation := src.Int16(), src.Int16(), src.Int32()
		client := src.NullableString()
		req := kmsg.RequestForKey(key)
		if req == nil {
			return
		}
		req.SetVersion(version)
		if req.IsFlexible() {
			kmsg.SkipTags(&src)
		}
		fate := c.faults.fate(c, key)
		c.sleep(c.faults.latency(c))
		if fate == loseRequest {
			c.trace(n, from, req, "request lost")
			return
		}
		resp := c.answer(n, k, deref(client), req, src.Src)
		if resp == nil {
			return
		}
		c.trace(n, from, req, fate.String())
		switch fate {
		case loseReply:
			return
		case muteReply: // half open: the client hears nothing, and the broker nothing of it
			c.sleepUntilClosed(k)
			return
		}
		c.sleep(c.faults.latency(c))
		if _, err := k.Write(appendResponse(nil, correlation, resp)); err != nil {
			return
		}
	}
}

func (c *Cluster) trace(n *node, from string, req kmsg.Request, fate string) {
	c.cfg.Trace(fmt.Sprintf("%d %s -> %d %s v%d %s", time.Now().UnixMicro(), from, n.id, kmsg.NameForKey(req.Key()), req.GetVersion(), fate))
}

// answer decodes and handles one request; nil means that the connection is to be closed.
func (c *Cluster) answer(n *node, k *conn, client string, req kmsg.Request, body []byte) kmsg.Response {
	v, known := versions[req.Key()]
	if !known || req.GetVersion() < v.min || req.GetVersion() > v.max {
		if req.Key() == keyAPIVersions {
			return unsupportedAPIVersions()
		}
		return nil
	}
	if err := req.ReadFrom(body); err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || n.down {
		return nil
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if !c.handle(&call{broker: n, conn: k, client: client}, req, resp) {
		return nil
	}
	return resp
}

// call is who asks.
type call struct {
	broker *node
	conn   *conn
	client string
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, frame)
	return frame, err
}

func appendResponse(dst []byte, correlation int32, resp kmsg.Response) []byte {
	dst = append(dst, 0, 0, 0, 0)
	dst = kbin.AppendInt32(dst, correlation)
	if resp.IsFlexible() && resp.Key() != keyAPIVersions {
		dst = append(dst, 0) // no tags
	}
	dst = resp.AppendTo(dst)
	binary.BigEndian.PutUint32(dst, uint32(len(dst)-4))
	return dst
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// signal wakes those who wait for a change. It is used under Cluster.mu.
type signal struct{ ch chan struct{} }

func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// await gives mu free until s fires or the time comes; it tells whether it fired.
func (c *Cluster) await(s *signal, until time.Time) bool {
	ch := s.wait()
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	}
}

func (c *Cluster) wakeAll() {
	c.appended.fire()
	for _, g := range c.groups {
		g.changed.fire()
	}
}

// after runs f under mu when d has passed.
func (c *Cluster) after(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			f()
		}
	})
}

func (c *Cluster) sleep(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

// sleepUntilClosed waits for the client to give the connection up.
func (c *Cluster) sleepUntilClosed(k *conn) {
	var b [512]byte
	for {
		if _, err := k.Read(b[:]); err != nil {
			return
		}
	}
}
