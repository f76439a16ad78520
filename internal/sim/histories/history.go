// Package histories runs simulated histories of the unit of work, each in a process of its own, and adds them up. It knows
// nothing of Kafka and nothing of what goes on in a history: that is package sim, and the tests of package eos that are built
// with the tag simruntime.
package histories

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
)

// History is what one history is to be. Everything in it follows from this.
type History struct {
	Seed    uint64
	Without string // protections that are switched off, by their names in eos, with commas between
	Crashes int    // until it is over (default 40)
	Trace   string // the file for its trace; none by default
}

// The environment of a process that lives through a history.
const (
	seedVar    = "SIM_SEED"
	withoutVar = "SIM_WITHOUT"
	crashesVar = "SIM_CRASHES"
	traceVar   = "SIM_TRACE"
)

func (h History) environ() []string {
	return []string{
		fmt.Sprintf("%s=%d", seedVar, h.Seed), withoutVar + "=" + h.Without, fmt.Sprintf("%s=%d", crashesVar, h.Crashes), traceVar + "=" + h.Trace,
	}
}

// Asked answers the history that this process is to live through.
func Asked() (History, error) {
	seed, err := strconv.ParseUint(os.Getenv(seedVar), 10, 64)
	if err != nil {
		return History{}, fmt.Errorf("%s: %w", seedVar, err)
	}
	h := History{Seed: seed, Without: os.Getenv(withoutVar), Trace: os.Getenv(traceVar)}
	if h.Crashes, err = strconv.Atoi(os.Getenv(crashesVar)); err != nil || h.Crashes == 0 {
		h.Crashes = 40
	}
	return h, nil
}

// Report is what a history tells of itself.
type Report struct {
	Seed    uint64
	Crashes map[string]int // by step; a step at which none happened is named too
	Crashed int            // their sum
	Freezes int
	Stops   int // in good order
	Brokers int // faults of brokers
	Events  int
	Virtual float64  // seconds that passed in the history
	Trace   string   // the hash of every request and step
	Finds   []string // what was wrong
}

const reportPrefix = "sim-report "

// Print is how a report gets out of its process.
func (r Report) Print(to io.Writer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to, "%s%s\n", reportPrefix, line)
	return err
}
