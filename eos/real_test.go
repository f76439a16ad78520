package eos

import (
	"testing"

	"github.com/tidemark/tidemark/internal/kafkatest"
)

// mustReal reaches a real Kafka which all tests of the package share.
func mustReal(t testing.TB) *Kafka {
	t.Helper()
	return &Kafka{Brokers: kafkatest.Shared(t), ClientID: "test"}
}
