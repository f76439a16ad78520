// Package codecs is what travels: versioned bytes for events, states, flag changes, dead letters and
// re-keyed events, and the exact values in them. It knows neither rules nor Kafka: bytes in, values out.
package codecs

import "github.com/tidemark/tidemark/internal/wire"

var (
	// ErrFormat says that bytes carry a format version that this binary does not know: they were
	// written by a newer one.
	ErrFormat = wire.ErrFormat
	// ErrMalformed says that bytes claim a known format and break it.
	ErrMalformed = wire.ErrMalformed
)

// Schema names what a job's states hold; totals and flags of a state go by their index in it.
type Schema struct {
	Job        string
	InputTopic string
	Digest     string // of the rules, hexadecimal
	Generation uint32
	Totals     []string // sorted
	Flags      []string // sorted
}

// Header is a Kafka record header.
type Header struct {
	Key   string
	Value []byte
}
