// Package sim is a model of a Kafka cluster in memory, made for simulating the exactly-once unit of work: it speaks Kafka's
// protocol over connections in memory, and its time and chance are those of a testing/synctest bubble.
package sim
