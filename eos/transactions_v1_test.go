package eos

import (
	"testing"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// olderTransactions is a cluster that was not moved to transaction.version 2.
var olderTransactions = kafkatest.Options{Format: []string{"--feature", "transaction.version=1"}}

// Clusters that were not moved to transaction.version 2 want offsets and partitions to be announced.
func TestUnit_CountsOnceWithTheOlderTransactionProtocol(t *testing.T) {
	cluster := kafkatest.MustCluster(t, olderTransactions)
	w := newWorld(t, cluster.Addrs(), 2)
	w.produce(1000, 100)
	cfg := w.config("a", t.TempDir())
	u, stop := w.run(cfg)
	w.caughtUp(u)
	if v2, err := u.admin.transactionsV2(t.Context()); v2 || err != nil {
		t.Fatalf("transactions v2: %t, %v; want a cluster without", v2, err)
	}
	for range 20 {
		w.produce(50, 100)
	}
	w.feedUntil(func() { w.crashChild("b", t.TempDir(), "before EndTxn", 2) })
	w.caughtUp(u)
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	w.check()
}
