// Package rules turns a job file and events into states. It is pure: it knows no I/O, no clock, no Kafka and no random
// order, so the same events in the same order give the same states, byte for byte.
package rules

import (
	"fmt"
	"strings"

	"github.com/tidemark/tidemark/codecs"
)

// Job is what a job file says besides its totals and flags.
type Job struct {
	Name           string
	Brokers        []string
	Input          Input
	StateBytesMax  int64 // largest encoded state of one ID
	WatchHorizonMs int64
}

// Input says what is read, and how an event finds its ID and its time.
type Input struct {
	Topic             string
	Format            string // "json"
	ID, Time          string // the expressions as written; "" means the record's key, the record's timestamp
	From              From
	AllowedLatenessMs *int64 // nil: each window's own length
	MaxAheadMs        int64
}

// From says where a new job starts: at the log's beginning (the zero value), at its end, or at a time.
type From struct {
	Latest bool
	HasMs  bool
	Ms     int64
}

// Defaults of a job file.
const (
	MaxAheadMsDefault     = 24 * 60 * 60 * 1000
	StateBytesMaxDefault  = 900 * 1024
	WatchHorizonMsDefault = 60 * 60 * 1000
)

// A Fault is one thing wrong with a job file. Line and Column count from 1.
type Fault struct {
	Line, Column int
	Message      string
}

func (f Fault) String() string { return fmt.Sprintf("%d:%d: %s", f.Line, f.Column, f.Message) }

// Faults is every fault of a job file, in the order of their places. It is the error of Load.
type Faults []Fault

func (f *Faults) Error() string {
	lines := make([]string, len(*f))
	for i, one := range *f {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Job returns what the job file says besides its totals and flags. The caller must not change it.
func (rs *RuleSet) Job() *Job { return rs.job }

// Schema returns the names and the digest that states of this job are encoded with. The caller must not change it.
func (rs *RuleSet) Schema() *codecs.Schema { return rs.schema }
