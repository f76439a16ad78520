// Command reads measures how fast a view answers, beside Redis and Postgres, on one machine and in one run.
//
//	make reads                        all parts, on a real Kafka, a Redis and a Postgres that it starts itself
//	make reads ARGS="-quick"          a smoke run; its figures mean nothing
//	make reads ARGS="-parts get"      one part; the parts are get, flag and fresh
//	make reads ARGS="-tidemark old=/tmp/tidemark,new=bin/tidemark"   several versions of Tidemark beside each other
//
// It ends with status 1 where an answer is not what it must be.
//
// # What is measured
//
// This process is the load generator and nothing else. Each service is a process of its own: `tidemark view` as users run
// it, redis-server, and postgres; Kafka idles beside them. All are asked over TCP on the loopback interface, in rounds
// that begin with another contender each time, by callers that send a request as soon as the last was answered.
//
// get: 200,000 IDs, whose states were made by `tidemark run` from events. Redis and Postgres hold under each ID the very
// bytes of its state in JSON, as a consumer would have written them, and give them back; Tidemark says as well as of which
// input position they are, and how old. Every answer is compared with what it must be, byte by byte (over gRPC, where the
// client decodes it, field by field). CPU is user and system time per read, of this process and of the server with its
// children.
//
// flag: of a million IDs a hundred bear a flag; the page that has them is asked for over HTTP.
//
// fresh: events come at a steady rate, by a schedule that does not wait for answers. `tidemark run` and `tidemark view`, a
// consumer that writes to Redis, and one that writes to Postgres work them off, each in its turn. What counts is the
// time from the acknowledgement of an event until a read of the service shows that its partition is past it; the service is asked every
// millisecond. The consumer (consumer.go) has less to do than the job, and counts at least once.
//
// The parts get and flag also measure how long a view takes from the start of its process until it answers, with its local
// state and from Kafka alone.
//
// # What is fair about it
//
// The clients are the ones that people take: go-redis, pgx with prepared statements, grpc-go. HTTP is asked by net/http, by
// fasthttp's client, and by a few lines over a bare socket, which say what the server alone can do: with both on the same
// two cores, a slow client is measured as a slow server.
// Redis keeps no files, Postgres has its table in memory and not a page to write.
package main
