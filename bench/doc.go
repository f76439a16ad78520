// Command bench measures Tidemark against stock Goka and against reading alone, on one machine and in one run.
//
//	go run ./bench                          everything, on a real Kafka that it starts itself (half an hour and more)
//	go run ./bench -quick                   a smoke run of about a minute; its figures mean nothing
//	go run ./bench -broker embedded         on the embedded broker
//	go run ./bench -brokers host:9092       on brokers that are there; it makes and drops topics named bench-*
//	go run ./bench -parts speed -ids 10000  one part; the parts are speed, hot, latency and recovery
//	go run ./bench -profiles DIR            with a CPU profile of each contender in DIR
//
// It ends with status 1 where a table is not what it must be.
//
// # What is measured
//
// speed: a million JSON events of about 110 bytes lie in a topic of four partitions. Each contender, a process of its own,
// works them off in turn, in rounds that begin with another one each time. The time runs from the moment that it consumes
// until the broker, asked from outside, has the group's offsets at the end of every partition; "from start" counts the
// start of the process too. CPU is user and system time of the contender's process, the start included; what the broker
// needs for it comes on top and takes from the same cores. Memory is the peak of the process (VmHWM). Then the table is
// read back, and each ID's count, sum, minimum, maximum and flag are compared with what was computed beside the production
// of the events, with integers.
//
// hot: one ID whose window holds 50,000 entries, and as many again that late events could need. A backlog of ten windows
// is worked off; after it events come at a steady rate. The changelog's bytes are those of keys and values per event. At a
// steady rate the ID's own record is written once a commit, so fast commits cost more bytes.
//
// latency: events are produced at a rate, by a schedule that does not wait for answers, until each is visible in a view
// in a process beside the processor. It counts from the scheduled time; the first three seconds are left out. Tidemark's
// view is asked every half millisecond what it shows, so that its figures are never too good and up to that much too bad;
// Goka's view notes the time at which it has stored a record. Goka shows what may yet be counted again after a crash,
// Tidemark what is committed. "GET p50" is a request over HTTP to Tidemark's view, to be added for a remote reader.
//
// recovery: the table of a million IDs is filled by each processor, then its local state is deleted, and the time is taken
// from the start of the process until it consumes. MB are keys and values in the changelog, the same for both but for the
// few bytes of position records.
//
// # What is fair about it
//
// Stock Goka does the same job by a processor written by hand, for which everything general (expressions, nulls, late
// events, refusals, sizes) is left away: it has less to do. It has our event decoder, decimals and state codec, and once
// more encoding/json. It is tuned as configureGoka says, and a fourth contender has a storage that gathers writes, which
// Goka's interfaces allow: the best that we know to make of Goka without changing it. Goka counts at least once: what it
// is spared is what Tidemark's transactions cost.
//
// The broker is a process of its own, with the optimising compiler and G1, on the same machine: on few cores its share is
// large, and a contender that sends it fewer records gains twice. Nothing is pinned. Other work on the machine makes all
// figures worse, those in events/s more than those in CPU; ratios are taken within a round for that reason.
package main
