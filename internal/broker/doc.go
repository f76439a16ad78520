// Package broker runs the embedded broker: franz-go's kfake with a data directory, in this process.
//
// It is for trying, for demos and for tests; a cluster of Apache Kafka is for data that somebody will miss. What it keeps and
// what it does not (kfake v0.0.0-20260918054303-01f206a7e32c, persist.go):
//
//   - After Close everything is there again: records, topics, committed offsets with their metadata, producer IDs and
//     epochs, and transactions that were open.
//   - After a kill of the process, records that were acknowledged are there, and a transaction that was open is aborted; the
//     next Start cuts off what was written by half (files.go), and reads all partitions once to write the markers that are
//     missing (repair.go). But a transaction over several partitions is completed file by file: a kill in the midst of that can
//     leave it committed in one partition and aborted in another. kfake has no transaction log.
//   - At the first file that it cannot write or read (a full disk, an I/O error) the broker stops (stop.go): kfake is held where it
//     met the error, before it can answer or change anything more, and all connections are closed. So nothing can be read that is
//     not as it was acknowledged; for the rest it is as after a kill, with the same window in the midst of a transaction's end.
//   - kfake does not look at whether the files of records could be synced, neither with Config.Sync nor at Close: an error that
//     only fsync tells is not seen. An error of reading while it answers a fetch is answered as one, and it goes on.
//   - After a crash of the machine, what was not yet written back is gone, as with Kafka's own default, but there is no
//     replica to take it from. Config.Sync has each batch synced to disk.
//   - One goroutine serves all requests, and there is one broker: no replication, no failover. Transactions complete at once,
//     so that nobody sees a marker that arrives late.
//   - Topics with cleanup.policy=compact are compacted once an hour, all partitions in turn, while requests wait. kfake
//     removes a partition's files before it writes them anew: a kill or a full disk in the midst of that loses the partition's records.
//   - Nobody is asked who they are. It listens on the loopback interface alone.
//
// The package knows nothing of jobs, events or this project's topics.
package broker
