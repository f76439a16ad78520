package eos

import (
	"regexp"
	"slices"
	"strconv"
)

// Names gives every name that a job has in Kafka; no other code builds one. State topics and the group carry the
// generation, from the second on; flags and dead letters are read by others and keep their names.
type Names struct {
	// Job is the job's name.
	Job string
	// Generation counts from 1; 0 is taken as 1.
	Generation uint32
}

// Group is the consumer group.
func (n Names) Group() string { return n.stem() }

// Table is the group table: the changelog of the state.
func (n Names) Table() string { return n.stem() + "-table" }

// Loop is the topic of re-keyed events.
func (n Names) Loop() string { return n.stem() + "-loop" }

// Flags is the topic of flag changes.
func (n Names) Flags() string { return n.Job + "-flags" }

// DeadLetters is the topic of refused events.
func (n Names) DeadLetters() string { return n.Job + "-dead-letters" }

// Owns tells whether a topic is one that the job writes. As its own input it would feed itself for ever.
func (n Names) Owns(topic string) bool {
	return slices.Contains([]string{n.Table(), n.Loop(), n.Flags(), n.DeadLetters()}, topic)
}

var instanceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,200}$`)

// ValidInstance tells what a slot may be called: its name fits into client ids and offset metadata, and no log, shell or
// file system takes it for anything else.
func ValidInstance(name string) bool { return instanceName.MatchString(name) }

// TransactionalPrefix begins the transactional.id of every member of the job; the ACLs name it.
func (n Names) TransactionalPrefix() string { return n.stem() + "/" }

// TransactionalID is the transactional.id of one stable slot (an instance name).
func (n Names) TransactionalID(slot string) string { return n.TransactionalPrefix() + slot }

func (n Names) stem() string {
	if n.Generation <= 1 {
		return n.Job
	}
	return n.Job + ".g" + strconv.FormatUint(uint64(n.Generation), 10)
}
