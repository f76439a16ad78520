// Package kafkatest gives tests a real Apache Kafka without containers, and the embedded broker beside it.
//
// The jars come from Maven Central (deploy/kafka/pom.xml), once, into .cache/kafka of the repository. A cluster runs in
// KRaft combined mode: broker and controller in one JVM. It ends with the process that started it, even when that is killed
// (on Linux; elsewhere a kill -9 leaves it behind).
//
// The package knows nothing of jobs, events or this project's topics.
package kafkatest
