package sim

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type txnState string

// The states of a transaction, as ListTransactions names them.
const (
	txnEmpty          txnState = "Empty"
	txnOngoing        txnState = "Ongoing"
	txnPrepareCommit  txnState = "PrepareCommit"
	txnPrepareAbort   txnState = "PrepareAbort"
	txnCompleteCommit txnState = "CompleteCommit"
	txnCompleteAbort  txnState = "CompleteAbort"
)

// txn is what the coordinator knows of one transactional.id.
type txn struct {
	id         string
	producer   int64
	epoch      int16
	state      txnState
	timeout    time.Duration
	begun      time.Time
	partitions []*partition
	groups     []*group
	markers    int // that are still to be written
}

// sweepEvery is how often transactions are looked at for their timeout
// (transaction.abort.timed.out.transaction.cleanup.interval.ms).
const sweepEvery = 10 * time.Second

func (c *Cluster) sweepTransactions() {
	c.after(sweepEvery, func() {
		for _, name := range c.coordinated() {
			t := c.txns[name[min(len("txn/"), len(name)):]]
			if t != nil && t.state == txnOngoing && c.coordinates(nil, name) == 0 && time.Since(t.begun) > t.timeout {
				t.epoch++
				c.decide(t, false)
			}
		}
		c.sweepTransactions()
	})
}

// decide ends a transaction: the decision is durable when this returns, and the markers follow, each when its time has
// come. Until the last one is written the transactional.id can do nothing else.
func (c *Cluster) decide(t *txn, commit bool) {
	t.state = txnPrepareAbort
	if commit {
		t.state = txnPrepareCommit
	}
	producer, epoch := t.producer, t.epoch
	t.markers = len(t.partitions) + len(t.groups)
	for _, p := range t.partitions {
		c.mark1(t, &p.lead, func() { c.mark(p, producer, epoch, commit) })
	}
	for _, g := range t.groups {
		c.mark1(t, g.lead, func() { g.mark(producer, epoch, commit) })
	}
	if t.markers == 0 {
		c.complete(t)
	}
}

// mark1 writes one marker, later, when somebody holds the role.
func (c *Cluster) mark1(t *txn, at *role, write func()) {
	var try func()
	try = func() {
		if c.brokers[at.broker].down || time.Now().Before(at.ready) {
			c.after(100*time.Millisecond, try)
			return
		}
		write()
		if t.markers--; t.markers == 0 {
			c.complete(t)
		}
	}
	c.after(c.faults.marker(), try)
}

func (c *Cluster) complete(t *txn) {
	if t.state == txnPrepareCommit {
		t.state = txnCompleteCommit
	} else {
		t.state = txnCompleteAbort
	}
	t.partitions, t.groups = nil, nil
}

func (c *Cluster) initProducerID(from *call, req *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse) {
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if req.TransactionalID == nil {
		c.producers++
		resp.ProducerID, resp.ProducerEpoch = c.producers, 0
		return
	}
	id := *req.TransactionalID
	if resp.ErrorCode = c.coordinates(from, "txn/"+id); resp.ErrorCode != 0 {
		return
	}
	t := c.txns[id]
	if t == nil {
		c.producers++
		t = &txn{id: id, producer: c.producers, epoch: -1, state: txnEmpty}
		c.txns[id] = t
	}
	switch {
	case req.ProducerID >= 0 && req.ProducerID != t.producer:
		resp.ErrorCode = kerr.InvalidProducerIDMapping.Code
		return
	case req.ProducerID >= 0 && req.ProducerEpoch != t.epoch:
		resp.ErrorCode = kerr.ProducerFenced.Code
		return
	}
	switch t.state {
	case txnPrepareCommit, txnPrepareAbort:
		resp.ErrorCode = kerr.ConcurrentTransactions.Code
		return
	case txnOngoing: // fence whoever holds it, and end what is open
		t.epoch++
		c.decide(t, false)
		resp.ErrorCode = kerr.ConcurrentTransactions.Code
		return
	}
	t.epoch++
	t.state, t.timeout = txnEmpty, time.Duration(req.TransactionTimeoutMillis)*time.Millisecond
	resp.ProducerID, resp.ProducerEpoch = t.producer, t.epoch
}

// holder answers the transaction of a request, or the error code for one who does not hold it.
func (c *Cluster) holder(id string, producer int64, epoch int16, stale *kerr.Error) (*txn, int16) {
	t := c.txns[id]
	switch {
	case t == nil || t.producer != producer:
		return nil, kerr.InvalidProducerIDMapping.Code
	case epoch != t.epoch:
		return nil, stale.Code
	case t.state == txnPrepareCommit || t.state == txnPrepareAbort:
		return nil, kerr.ConcurrentTransactions.Code
	}
	return t, 0
}

func (t *txn) open() {
	if t.state != txnOngoing {
		t.state, t.begun = txnOngoing, time.Now()
	}
}

func (t *txn) addPartition(p *partition) {
	t.open()
	if !slices.Contains(t.partitions, p) {
		t.partitions = append(t.partitions, p)
	}
}

func (t *txn) addGroup(g *group) {
	t.open()
	if !slices.Contains(t.groups, g) {
		t.groups = append(t.groups, g)
	}
}

// joinTxn lets a leader ask the coordinator whether a batch may be written: since transactions v2 that adds the
// partition, before it must have been added (KIP-890).
func (c *Cluster) joinTxn(id string, producer int64, epoch int16, p *partition, implicit bool) int16 {
	if c.coordinates(nil, "txn/"+id) != 0 {
		return kerr.NotEnoughReplicas.Code
	}
	t, code := c.holder(id, producer, epoch, kerr.InvalidProducerEpoch)
	switch {
	case code == kerr.ConcurrentTransactions.Code && !implicit:
		return kerr.NotEnoughReplicas.Code
	case code != 0:
		return code
	case !implicit && (t.state != txnOngoing || !slices.Contains(t.partitions, p)):
		return kerr.InvalidTxnState.Code
	}
	t.addPartition(p)
	return 0
}

func (c *Cluster) addPartitions(from *call, req *kmsg.AddPartitionsToTxnRequest, resp *kmsg.AddPartitionsToTxnResponse) {
	code := c.coordinates(from, "txn/"+req.TransactionalID)
	var t *txn
	if code == 0 {
		t, code = c.holder(req.TransactionalID, req.ProducerID, req.ProducerEpoch, kerr.ProducerFenced)
	}
	for i := range req.Topics {
		rt := kmsg.NewAddPartitionsToTxnResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for _, id := range req.Topics[i].Partitions {
			out := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
			out.Partition, out.ErrorCode = id, code
			p := c.partition(rt.Topic, id)
			switch {
			case code == 0 && p == nil:
				out.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case code == 0:
				t.addPartition(p)
			}
			rt.Partitions = append(rt.Partitions, out)
		}
		resp.Topics = append(resp.Topics, rt)
	}
}

func (c *Cluster) addOffsets(from *call, req *kmsg.AddOffsetsToTxnRequest, resp *kmsg.AddOffsetsToTxnResponse) {
	resp.ErrorCode = c.coordinates(from, "txn/"+req.TransactionalID)
	if resp.ErrorCode != 0 {
		return
	}
	var t *txn
	if t, resp.ErrorCode = c.holder(req.TransactionalID, req.ProducerID, req.ProducerEpoch, kerr.ProducerFenced); t != nil {
		t.addGroup(c.group(req.Group))
	}
}

func (c *Cluster) endTxn(from *call, req *kmsg.EndTxnRequest, resp *kmsg.EndTxnResponse) {
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	resp.ErrorCode = c.coordinates(from, "txn/"+req.TransactionalID)
	if resp.ErrorCode != 0 {
		return
	}
	t := c.txns[req.TransactionalID]
	v2 := req.Version >= 5
	if t == nil || t.producer != req.ProducerID {
		resp.ErrorCode = kerr.InvalidProducerIDMapping.Code
		return
	}
	// With v2 the decision raises the epoch; who asks again with the one before has missed the answer.
	ended := t.state != txnOngoing && t.state != txnEmpty
	again := v2 && ended && req.ProducerEpoch == t.epoch-1
	if req.ProducerEpoch != t.epoch && !again {
		resp.ErrorCode = kerr.ProducerFenced.Code
		return
	}
	switch t.state {
	case txnOngoing:
		if v2 {
			t.epoch++
		}
		c.decide(t, req.Commit)
	case txnPrepareCommit, txnPrepareAbort:
		resp.ErrorCode = kerr.ConcurrentTransactions.Code
		if req.Commit != (t.state == txnPrepareCommit) {
			resp.ErrorCode = kerr.InvalidTxnState.Code
		}
	case txnCompleteCommit, txnCompleteAbort:
		if req.Commit != (t.state == txnCompleteCommit) || v2 && !again {
			resp.ErrorCode = kerr.InvalidTxnState.Code
		}
	default:
		resp.ErrorCode = kerr.InvalidTxnState.Code
	}
	if resp.ErrorCode == 0 {
		resp.ProducerID, resp.ProducerEpoch = t.producer, t.epoch
	}
}

func (c *Cluster) listTransactions(from *call, req *kmsg.ListTransactionsRequest, resp *kmsg.ListTransactionsResponse) {
	for _, name := range c.coordinated() {
		t := c.txns[name[min(len("txn/"), len(name)):]]
		if t == nil || c.coord[name].broker != from.broker.id {
			continue
		}
		if len(req.StateFilters) > 0 && !slices.Contains(req.StateFilters, string(t.state)) {
			continue
		}
		s := kmsg.NewListTransactionsResponseTransactionState()
		s.TransactionalID, s.ProducerID, s.TransactionState = t.id, t.producer, string(t.state)
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
}
