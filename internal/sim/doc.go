// Package sim is a model of a Kafka cluster in memory, made for simulating the exactly-once unit of work: it speaks Kafka's
// protocol over connections in memory, and its time and chance are those of a testing/synctest bubble. It knows nothing of the
// unit of work: the histories in which that lives and dies are tests of package eos (sim_*_test.go, tag simruntime), and package
// histories runs them.
//
// # What is modelled
//
// Brokers that go down and come back, leaders and coordinators that move and load what they take over; the log with its
// sequences, transactions, late markers, last stable offset and aborted transactions; the transaction coordinator with epochs,
// timeouts and their sweep, in both protocols (transactions v1 and v2); the classic group with its generations, sessions and
// rebalances; its offsets, pending and stable; and a network on which each request or reply may be late, get lost, or leave the
// connection half open. A process that is killed leaves what it had sent in flight; a frozen one neither sends nor hears.
// Each rule stands where its request is handled. TestModel_AnswersAsKafkaDoes has the same conversation with the model and
// with a real Kafka.
//
// # Where it is kinder than Kafka
//
//   - A write that a broker handled is on every replica. An unacknowledged one that a failover drops looks, to a client and to
//     its readers, as a request that got lost, and those there are. What unclean elections lose is not promised.
//   - The partitions of one Produce request fare alike on one broker. The unit spreads a commit over several topics, whose
//     leaders differ and fail each on its own.
//   - No compaction, no retention, no quotas, no full disks, no expired offsets or producers. Nothing in a commit depends on
//     these; what does has tests on a real Kafka (docs/guarantees.md).
//   - Every broker knows at once who holds a role, and one that lost it answers no more for it. In Kafka one that is cut off from
//     the others may go on for seconds to answer reads from a log that is too short. The table and the group's offsets must agree in
//     the number of their last commit: a table that is behind is waited for, offsets that are behind stop the job. That both
//     their leaders are behind, and equally, is modelled nowhere.
//   - One clock for all. The unit compares no clock with another's.
//   - A coordinator that moves while markers are being written goes on where it was; in Kafka the new one begins them again.
//     A marker is written to the same end either way.
//   - A killed process leaves the files that the system had been given, as kill -9 does; a machine that loses its power may
//     leave fewer. Damaged and torn files have tests of their own (diskdamage_test.go).
//   - A frozen process is held at its connections and at the step where it froze; its timers and callbacks go on. SIGSTOP of
//     whole processes is the chaos harness's (internal/chaos).
//
// And where it is meaner: a new group coordinator has forgotten the generation that was being formed, and uses its number again;
// transactional offsets of protocol v1 are not verified with the transaction's coordinator; an epoch that is not the newest is
// refused also where Kafka would know a repetition.
//
// # What is deterministic
//
// With the runtime of package overlay, a seed and one processor: every draw of the history, of the faults and of math/rand, the
// order of maps, of select's cases and of goroutines that become ready, and time. One binary takes the same course for a seed, to
// the last request, under any load; TestSimulation_ASeedTakesTheSameCourseAgain compares hashes over all requests and steps.
// Another binary (a changed source, another version of Go) may take another, and so does one whose local state lies on another
// kind of file system: Go copies files in other ways there, and what that takes of memory moves addresses, by which maps are
// ordered. Histories lie in /dev/shm where there is one.
//
// Not deterministic are a history that needs more than 3 GiB, where the garbage collector sets in, and what file systems answer,
// in so far as they fail.
package sim
