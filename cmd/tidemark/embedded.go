package main

import "github.com/tidemark/tidemark/eos"

// starting says what a verb does with an embedded broker that is not up.
type starting int

const (
	neverStart starting = iota // say that it is not up
	mayStart                   // start it for the time of the verb
	toRun                      // start it, or fail because it is up already
)

// embedded gives the embedded broker of the data directory.
func (a *app) embedded(starting) (*eos.Kafka, func() error, error) {
	return nil, nil, usagef("--embedded: this build has no embedded broker; say --brokers HOST:PORT")
}
