package ingest

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/internal/kafkatest"
	"github.com/tidemark/tidemark/view"
)

// madeAgain writes the first event after the topic was made again, and before it is looked up again. It tells whether the event
// was acknowledged, and whether with a token of the topic in which it lies.
func madeAgain(t *testing.T, weak weakness) (acked, right bool) {
	t.Helper()
	j := mustJob(t, kafkatest.Shared(t), jobFile)
	w := j.produces(func(c *Config) { c.lookEvery, c.weak = time.Hour, weak })
	cl, err := kgo.NewClient(j.kafka.Franz()...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if _, err := adm.DeleteTopics(t.Context(), j.input); err != nil {
		t.Fatal(err)
	}
	w.await("the end of the topic", func() bool {
		_, err := adm.CreateTopic(t.Context(), 3, 1, nil, j.input)
		return err == nil
	})
	w.await("the new one's leaders", func() bool {
		ends, err := adm.ListEndOffsets(t.Context(), j.input)
		return err == nil && ends.Error() == nil
	})
	got, err := w.Produce(t.Context(), [][]byte{[]byte(event("a", 1))}, false)
	if err != nil {
		t.Fatal(err)
	}
	id, err := topicID(t.Context(), cl, j.input)
	if err != nil || id == w.writer.Load().topicID {
		t.Fatalf("the topic was not made again: %v", err)
	}
	there := j.written()
	if acked = got[0].Token != ""; !acked {
		if t.Logf("got %+v", got[0]); len(there) > 0 {
			t.Errorf("an event without a token lies in the topic: %+v", got[0])
		}
		return false, false
	}
	return true, len(there) == 1 && got[0].Token == view.Token(1, id, there[0].Partition, there[0].Offset)
}

// TestIngest_ATokenIsOfTheTopicThatHasItsEvent: not of the one that was looked up before. The control lets the client learn of
// the topic with its first event.
func TestIngest_ATokenIsOfTheTopicThatHasItsEvent(t *testing.T) {
	if acked, right := madeAgain(t, weakness{}); acked && !right {
		t.Error("an event was acknowledged with a token of another topic")
	}
	if acked, right := madeAgain(t, weakness{late: true}); !acked || right {
		t.Errorf("the control shows nothing: acknowledged %t, with the right token %t", acked, right)
	}
}

// TestWriter_DoesNotLearnAnotherTopicThanItWasMadeFor: the topic was made again between the look and the client's own.
func TestWriter_DoesNotLearnAnotherTopicThanItWasMadeFor(t *testing.T) {
	j := mustJob(t, mustFake(t).ListenAddrs(), jobFile)
	for other, want := range map[byte]string{0: "", 1: "was made again"} {
		cl, err := kgo.NewClient(j.kafka.Franz()...)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		id, err := topicID(t.Context(), cl, j.input)
		if err != nil {
			t.Fatal(err)
		}
		id[0] ^= other
		w, err := newWriter(&Config{Kafka: j.kafka, Timeout: time.Second}, j.input, id, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer w.client.Close()
		if err := w.learn(t.Context()); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if got := j.written(); len(got) != 0 {
		t.Errorf("learning wrote %d records", len(got))
	}
}
