// Package chaos runs a job on a real Kafka while its processes are killed, frozen and restarted, and then compares every
// ID with what the producer knows. The oracle never asks Kafka: it is folded from what was acknowledged.
//
// Each event carries a random number whose sum is kept beside the count, so that a lost and a doubled event of one ID cannot
// cancel out. The same run over stock Goka is the control: it has to find errors.
//
// A run by hand, the control, and a run with brokers, scaling and damaged state:
//
//	go run ./internal/chaos/cmd -faults 30 -events 300000
//	go run ./internal/chaos/cmd -faults 30 -events 300000 -subject stock
//	go run ./internal/chaos/cmd -faults 80 -events 1000000 -brokers 3 -processors-max 4 -damage
//
// Views can be asked meanwhile, and judged: every answer against what the producer knows (ledger), reads that name what was just
// acknowledged against the number of acknowledged events (question), and what watchers are told who go from view to view against
// the order of commits (package history), each other and the producer. `make token-reads` is the long run of these.
//
// The seed fixes the events and the faults; when a fault hits what is the machine's own affair. A run that fails leaves its
// directory behind: "wrong" says what, "journal" has every intent and acknowledgement, and each processor has its log.
//
// The package knows nothing of how the unit of work is built; it sees processes, topics and what is in them.
package chaos
