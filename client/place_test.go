package client

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark/tidemark/eos"
)

// TestPartition_IsWhereKafkaPutsKeys as the rest of Tidemark has it.
func TestPartition_IsWhereKafkaPutsKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id, n := rapid.String().Draw(t, "id"), rapid.Int32Range(1, 1000).Draw(t, "partitions")
		if got, want := Partition(id, n), eos.Place([]byte(id), n); got != want {
			t.Errorf("%q of %d: got %d, want %d", id, n, got, want)
		}
	})
}
