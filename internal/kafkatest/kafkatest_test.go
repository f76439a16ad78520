package kafkatest

import (
	"testing"
	"time"
)

func TestShared_TimeToReady(t *testing.T) {
	begin := time.Now()
	addrs := Shared(t)
	ready := time.Since(begin)
	name := TopicName(t)
	MustTopic(t, addrs, name, 4, "cleanup.policy=compact")
	t.Logf("ready after %v, topic after %v", ready, time.Since(begin))
}
