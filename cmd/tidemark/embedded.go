package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/tidemark/tidemark/eos"
	"github.com/tidemark/tidemark/internal/broker"
)

// starting says what a verb does with an embedded broker that is not up.
type starting int

const (
	mayStart starting = iota // start it for the time of the verb
	toRun                    // start it for as long as this process lives, and tell so
)

// embedded gives the embedded broker of the data directory: the one that another process runs there, or one of its own. The
// function closes what was started.
func (a *app) embedded(may starting) (*eos.Kafka, func() error, error) {
	if len(a.Brokers) > 0 {
		return nil, nil, usagef("--embedded and --brokers: say one of them")
	}
	dir := filepath.Join(a.dataDir(), "broker")
	if addrs, ok := broker.Running(dir); ok {
		return embeddedKafka(addrs), func() error { return nil }, nil
	}
	b, err := broker.Start(a.ctx, broker.Config{Dir: dir, Logger: a.logger(a.err)})
	if errors.Is(err, broker.ErrLocked) {
		return nil, nil, fmt.Errorf("another process holds the embedded broker in %s, and it does not answer: %w", dir, err)
	} else if err != nil {
		return nil, nil, err
	}
	if may == toRun {
		fmt.Fprintf(a.err, "embedded broker on %s, data in %s: for one machine, and for trying; real data want a Kafka cluster\n", b.Addrs()[0], dir)
	}
	return embeddedKafka(b.Addrs()), a.endsWith(b), nil
}

// endsWith ends the verb's context when the broker stops by itself, and gives what closes it.
func (a *app) endsWith(b *broker.Broker) (shut func() error) {
	ctx, cancel := context.WithCancel(a.ctx)
	a.ctx = ctx
	go func() {
		select {
		case <-b.Failed():
			cancel()
		case <-ctx.Done():
		}
	}()
	return func() error {
		cancel()
		return b.Close()
	}
}

func embeddedKafka(addrs []string) *eos.Kafka {
	return &eos.Kafka{Brokers: addrs, ClientID: "tidemark"}
}
