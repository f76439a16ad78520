package watchers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/rules"
)

// jobFile is the job of every run. NAME becomes the run's own name. A state says when its last event was sent, and the flag
// comes and goes with every other event.
const jobFile = `name: NAME
input: {topic: NAME-events, id: event.id}
totals:
  sent: {last: event.sent}
  pad:  {last: event.pad}
flags:
  high: {when: event.value >= 50, clear: event.value < 50}
`

const (
	totalSent = "sent"
	flagHigh  = "high"

	partitions = 4
	tenths     = 20 // how many prefixes the IDs have
)

func loadJob(name string) (*rules.RuleSet, error) {
	return rules.Load([]byte(strings.ReplaceAll(jobFile, "NAME", name)))
}

// idOf gives the IDs of a run; those of a prefix are a twentieth of them.
func idOf(n int) string { return fmt.Sprintf("%s%05d", prefixOf(n), n/tenths) }

func prefixOf(n int) string { return fmt.Sprintf("p%02d-", n%tenths) }

// stream produces events at a steady rate.
type stream struct {
	kafka *eos.Kafka
	topic string
	ids   int
	pad   string
	rnd   *rand.Rand
}

func (s *stream) createTopic(ctx context.Context) error {
	cl, err := kgo.NewClient(s.kafka.Franz()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, s.topic); err != nil {
		return fmt.Errorf("create topic %s: %w", s.topic, err)
	}
	return nil
}

// produce sends rate events a second for a while, and returns when all of them are acknowledged.
func (s *stream) produce(ctx context.Context, rate int, during time.Duration) (sent int, err error) {
	cl, err := kgo.NewClient(s.kafka.Franz(kgo.ProducerLinger(0))...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	const step = 10 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	failed := make(chan error, 1)
	for begun := time.Now(); time.Since(begun) < during; {
		for due := int(float64(rate) * time.Since(begun).Seconds()); sent < due; sent++ {
			cl.Produce(ctx, s.event(), func(_ *kgo.Record, err error) {
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
		select {
		case <-tick.C:
		case err := <-failed:
			return sent, fmt.Errorf("produce: %w", err)
		case <-ctx.Done():
			return sent, context.Cause(ctx)
		}
	}
	return sent, cl.Flush(ctx)
}

func (s *stream) event() *kgo.Record {
	id := idOf(s.rnd.IntN(s.ids))
	value := fmt.Appendf(nil, `{"id":%q,"value":%d,"sent":%d,"pad":%q}`, id, s.rnd.IntN(100), time.Now().UnixNano(), s.pad)
	return &kgo.Record{Topic: s.topic, Key: []byte(id), Value: value}
}
