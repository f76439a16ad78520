package sim

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Faults are the chances of what may befall. The zero value is a network and brokers without any.
type Faults struct {
	// LoseRequest, LoseReply and MuteReply are chances of one request: it never arrives, it is handled and the connection
	// breaks, it is handled and nobody is told anything any more.
	LoseRequest, LoseReply, MuteReply float64
	// Commits multiplies these for the requests that make up a transaction.
	Commits float64
	// Latency is the mean of one way; SlowLatency that of the tenth part of ways that are slow.
	Latency, SlowLatency time.Duration
	// MarkerDelay is the mean time after EndTxn at which a partition gets its marker; SlowMarker that of one in eight.
	MarkerDelay, SlowMarker time.Duration
}

type faultState struct {
	Faults
	mu  sync.Mutex // guards rng and off
	rng *rand.Rand
	off bool
}

type fate int

const (
	delivered fate = iota
	loseRequest
	loseReply
	muteReply
)

func (f fate) String() string {
	return [...]string{"", "request lost", "reply lost", "reply muted"}[f]
}

// fate of a request.
func (f *faultState) fate(_ *Cluster, key int16) fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return delivered
	}
	at := f.rng.Float64()
	if f.Commits > 0 && partOfCommit[key] {
		at /= f.Commits
	}
	switch {
	case at < f.LoseRequest:
		return loseRequest
	case at < f.LoseRequest+f.LoseReply:
		return loseReply
	case at < f.LoseRequest+f.LoseReply+f.MuteReply:
		return muteReply
	}
	return delivered
}

func (f *faultState) latency(*Cluster) time.Duration {
	if f.SlowLatency > 0 && f.chance(0.1) {
		return f.exponential(f.SlowLatency)
	}
	return f.exponential(f.Latency)
}

func (f *faultState) marker() time.Duration {
	if f.SlowMarker > 0 && f.chance(0.125) {
		return f.exponential(f.SlowMarker)
	}
	return f.exponential(f.MarkerDelay)
}

func (f *faultState) chance(p float64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rng.Float64() < p
}

func (f *faultState) exponential(mean time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Duration(f.rng.ExpFloat64() * float64(mean))
}

// StopFaults lets every request and reply arrive from now on; latencies stay.
func (c *Cluster) StopFaults() {
	c.faults.mu.Lock()
	defer c.faults.mu.Unlock()
	c.faults.off = true
}
