package eos

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// silence is a network in which, once it is on, nothing arrives any more and no connection ends.
type silence struct{ on atomic.Bool }

type silentConn struct {
	net.Conn
	s *silence
}

func (s *silence) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return silentConn{conn, s}, nil
}

func (c silentConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.s.on.Load() {
			return n, err
		}
	}
}

// stopInSilence stops a unit that no broker answers any more, and tells what the stop said, once it has.
func stopInSilence(t *testing.T, weak weakness) (s *silence, session time.Duration, stopped chan error) {
	t.Helper()
	w := newWorld(t, startFake(t), 2)
	s, stopped = &silence{}, make(chan error, 1)
	k := *w.kafka
	k.Dial = s.dial
	cfg := w.config("a", t.TempDir())
	cfg.Kafka, cfg.SessionTimeout, cfg.weak = &k, 2*time.Second, weak
	u, stop := w.run(cfg)
	w.produce(500, 20)
	w.caughtUp(u)
	s.on.Store(true)
	go func() { stopped <- stop() }()
	return s, cfg.SessionTimeout, stopped
}

func TestProtect_AStopEndsThoughNoBrokerAnswers(t *testing.T) {
	t.Parallel()
	_, session, stopped := stopInSilence(t, weakness{})
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("stop: %v", err)
		}
	case <-time.After(session + 15*time.Second): // and not the minutes that sarama takes
		t.Error("the stop waits for answers")
	}
}

// Control: minutes.
func TestProtect_AStopThatWaitsForAnswersTakesLong(t *testing.T) {
	t.Parallel()
	s, session, stopped := stopInSilence(t, weakness{noCut: true})
	select {
	case <-stopped:
		t.Error("the stop did not wait for answers: the network is not silent")
	case <-time.After(session + 15*time.Second):
	}
	s.on.Store(false)
	if err := <-stopped; err != nil {
		t.Logf("stop: %v", err)
	}
}
