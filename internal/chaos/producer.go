package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark/tidemark/eos"
	"github.com/twmb/franz-go/pkg/kgo"
)

// producer writes events at a steady rate, an intent before each and an acknowledgement after it, and folds the oracle.
type producer struct {
	client *kgo.Client
	topic  string
	ids    int
	rekey  float64 // the share of IDs whose events come under a wrong key half of the time
	rng    *rand.Rand
	oracle *oracle
	acked  *acks // nil: nobody reads what was acknowledged
	begun  time.Time

	intents, acks, failed atomic.Int64

	mu      sync.Mutex // guards the fields below
	journal *bufio.Writer
	file    *os.File
	err     error
}

func newProducer(k *eos.Kafka, topic, journal string, cfg *Config, acked *acks) (*producer, error) {
	// Records are retried without end, so that an event is acknowledged or the run is not judged.
	client, err := kgo.NewClient(k.Franz(
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(2*time.Millisecond), kgo.ClientID("chaos-producer"),
		kgo.UnknownTopicRetries(-1), // the topic is new
		kgo.MaxBufferedRecords(1<<20),
	)...)
	if err != nil {
		return nil, err
	}
	file, err := os.Create(journal)
	if err != nil {
		client.Close()
		return nil, err
	}
	o := newOracle()
	if cfg.Views > 0 {
		o.facts = map[string][]*fact{}
	}
	return &producer{
		client: client, topic: topic, ids: cfg.IDs, rekey: cfg.Rekey, oracle: o, acked: acked,
		rng: rand.New(rand.NewPCG(cfg.Seed, 1)), journal: bufio.NewWriter(file), file: file, begun: time.Now(),
	}, nil
}

// run produces rate events a second until enough says that it is enough, and returns when all are acknowledged.
func (p *producer) run(ctx context.Context, rate int, enough func(produced int64) bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := int64(0); !enough(n); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for due := int64(time.Since(p.begun).Seconds() * float64(rate)); n < due; n++ {
			p.produce(ctx, n)
		}
	}
	if err := p.client.Flush(ctx); err != nil {
		return fmt.Errorf("flush the producer: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.failed.Load(); n > 0 || p.acks.Load() != p.intents.Load() {
		return errors.Join(fmt.Errorf("%d events without an acknowledgement: this run cannot be judged", p.intents.Load()-p.acks.Load()), p.err)
	}
	return p.err
}

func (p *producer) produce(ctx context.Context, n int64) {
	i := p.rng.IntN(p.ids)
	e := &event{
		id: fmt.Sprintf("e-%05d", i),
		// The clock that cannot go back.
		timeMs: p.begun.UnixMilli() + time.Since(p.begun).Milliseconds(),
		value:  p.rng.Int64N(200_000) - 50_000,
		hash:   p.rng.Uint64N(1 << 48),
		hit:    p.rng.IntN(3) == 0,
	}
	key, rekeyed := e.id, false
	if float64(i) < p.rekey*float64(p.ids) && p.rng.IntN(2) == 0 {
		key, rekeyed = fmt.Sprintf("k-%d", p.rng.IntN(1000)), true
	}
	value := e.appendJSON(nil)
	p.note("i %d %s %s\n", n, key, value)
	p.intents.Add(1)
	p.oracle.fold(e, rekeyed)
	f := p.oracle.keep(e, rekeyed)
	if p.acked != nil {
		p.acked.produce(e.id)
	}
	p.client.Produce(ctx, &kgo.Record{Topic: p.topic, Key: []byte(key), Value: value}, func(r *kgo.Record, err error) {
		if err != nil {
			if p.failed.Add(1) == 1 {
				p.fail(fmt.Errorf("event %d: %w", n, err))
			}
			p.note("f %d %v\n", n, err)
			return
		}
		f.offset, f.acked = r.Offset, time.Now()
		p.acks.Add(1)
		p.note("a %d %d@%d\n", n, r.Partition, r.Offset)
		if p.acked == nil {
			return
		}
		if err := p.acked.acknowledge(e.id, r.Partition, r.Offset); err != nil {
			p.fail(err)
		}
	})
}

func (p *producer) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintf(p.journal, format, args...); err != nil {
		p.err = fmt.Errorf("journal: %w", err)
	}
}

func (p *producer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *producer) close() error {
	p.client.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.journal.Flush(), p.file.Close())
}
