// Package chaos runs a job on a real Kafka while its processes are killed, frozen and restarted, and then compares every
// ID with what the producer knows. The oracle never asks Kafka: it is folded from what was acknowledged.
//
// Each event carries a random number whose sum is kept beside the count, so that a lost and a doubled event of one ID cannot
// cancel out. The same run over stock Goka is the control: it has to find errors.
//
// The package knows nothing of how the unit of work is built; it sees processes, topics and what is in them.
package chaos
