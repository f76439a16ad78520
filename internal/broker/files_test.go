package broker

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBroker_ABatchWithoutItsIndexEntryWasNeverThere has what a kill between the two leaves of "y", which is in a transaction.
func TestBroker_ABatchWithoutItsIndexEntryWasNeverThere(t *testing.T) {
	dir := t.TempDir()
	addr, kill := startChild(t, dir)
	write(t, addr)
	kill()
	index := filepath.Join(dir, "data", "partitions", topic+"-0", "0.idx")
	st, err := os.Stat(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(index, st.Size()-indexEntry/2); err != nil {
		t.Fatal(err)
	}
	check(t, mustStart(t, dir).Addrs()[0], "a", "b", "end", "last")
}

func TestBroker_ATransactionThatWasOpenAtCloseIsAbortedByALaterKill(t *testing.T) {
	dir := t.TempDir()
	b, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	write(t, b.Addrs()[0])
	if err := b.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	_, kill := startChild(t, dir)
	kill()
	check(t, mustStart(t, dir).Addrs()[0], "a", "b", "end", "last")
}
