package eos

import (
	"errors"
	"fmt"

	"github.com/tidemark/tidemark/internal/wire"
)

var (
	// ErrNotFound says that a key has no value.
	ErrNotFound = errors.New("eos: not found")
	// ErrDamaged says that local state cannot be believed. Kafka is the truth: the state is removed and built again.
	ErrDamaged = errors.New("eos: local state is damaged")
	// ErrLocked says that another process holds a state directory.
	ErrLocked = errors.New("eos: state directory is in use")
	// ErrFormat says that bytes carry a format version that this binary does not know: they were written by a newer one.
	ErrFormat = wire.ErrFormat
	// ErrMalformed says that bytes claim a known format and break it, or are none of ours.
	ErrMalformed = wire.ErrMalformed
	// ErrTruncated says that a position lies outside what its partition still holds.
	ErrTruncated = errors.New("eos: position outside the log")
	// ErrRecreated says that a topic was deleted and made again: the name is the same, the ID is not.
	ErrRecreated = errors.New("eos: topic was recreated")
	// ErrUnknownTopic says that a topic or a partition does not exist.
	ErrUnknownTopic = errors.New("eos: unknown topic or partition")
)

// FailStop is a fault under which going on would break a guarantee (exit code 3). Nothing retries it; a person mends it.
type FailStop struct {
	// Fault says what is wrong, with the names of the things concerned.
	Fault string
	// Mend says what to do about it.
	Mend string
	// Err is the cause where callers may ask for it with errors.Is; it is not printed again.
	Err error
}

// Stop makes a FailStop with a formatted fault.
func Stop(cause error, mend, format string, args ...any) *FailStop {
	return &FailStop{Fault: fmt.Sprintf(format, args...), Mend: mend, Err: cause}
}

// Error gives the fault and the mend in one line.
func (f *FailStop) Error() string {
	if f.Mend == "" {
		return f.Fault
	}
	return f.Fault + ": " + f.Mend
}

// Unwrap gives the cause.
func (f *FailStop) Unwrap() error { return f.Err }
