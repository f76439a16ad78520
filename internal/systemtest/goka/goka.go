// Package goka stands in for github.com/lovoo/goka in Goka's own system tests: the same names, but a processor is built over
// eos.Unit. Only an import line of a test changes.
package goka

import (
	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	_ "github.com/stretchr/testify/require" // the tests need it

	"github.com/tidemark/tidemark/eos"
)

// What the tests use as it is.
type (
	Context        = goka.Context
	Edge           = goka.Edge
	Emitter        = goka.Emitter
	Group          = goka.Group
	ProcessorStats = goka.ProcessorStats
	Stream         = goka.Stream
	Table          = goka.Table
	View           = goka.View
)

// What the tests use as it is.
const (
	TMConfigMismatchBehaviorFail = goka.TMConfigMismatchBehaviorFail
	ViewStateConnecting          = goka.ViewStateConnecting
	ViewStateRunning             = goka.ViewStateRunning
)

// What the tests use as it is.
var (
	ErrEmitterAlreadyClosed = goka.ErrEmitterAlreadyClosed
	ErrVisitAborted         = goka.ErrVisitAborted

	ConsumerGroupBuilderWithConfig            = goka.ConsumerGroupBuilderWithConfig
	DefaultConfig                             = goka.DefaultConfig
	DefaultHasher                             = goka.DefaultHasher
	DefaultTopicManagerBuilder                = goka.DefaultTopicManagerBuilder
	GroupTable                                = goka.GroupTable
	NewTopicManagerConfig                     = goka.NewTopicManagerConfig
	ProducerBuilderWithConfig                 = goka.ProducerBuilderWithConfig
	SaramaConsumerBuilderWithConfig           = goka.SaramaConsumerBuilderWithConfig
	TopicManagerBuilderWithConfig             = goka.TopicManagerBuilderWithConfig
	TopicManagerBuilderWithTopicManagerConfig = goka.TopicManagerBuilderWithTopicManagerConfig
	Visitor                                   = goka.Visitor
	WithConsumerGroupBuilder                  = goka.WithConsumerGroupBuilder
	WithConsumerSaramaBuilder                 = goka.WithConsumerSaramaBuilder
	WithEmitterProducerBuilder                = goka.WithEmitterProducerBuilder
	WithEmitterTopicManagerBuilder            = goka.WithEmitterTopicManagerBuilder
	WithHotStandby                            = goka.WithHotStandby
	WithPartitionChannelSize                  = goka.WithPartitionChannelSize
	WithProducerBuilder                       = goka.WithProducerBuilder
	WithRecoverAhead                          = goka.WithRecoverAhead
	WithStorageBuilder                        = goka.WithStorageBuilder
	WithTopicManagerBuilder                   = goka.WithTopicManagerBuilder
	WithViewAutoReconnect                     = goka.WithViewAutoReconnect
	WithViewConsumerSaramaBuilder             = goka.WithViewConsumerSaramaBuilder
	WithViewStorageBuilder                    = goka.WithViewStorageBuilder
	WithViewTopicManagerBuilder               = goka.WithViewTopicManagerBuilder
)

// ReplaceGlobalConfig sets what emitters and views begin with; a unit has its own configuration.
func ReplaceGlobalConfig(cfg *sarama.Config) { goka.ReplaceGlobalConfig(cfg) }

// NewEmitter is Goka's, with the unit's hasher.
func NewEmitter(brokers []string, topic Stream, codec goka.Codec, options ...goka.EmitterOption) (*Emitter, error) {
	return goka.NewEmitter(brokers, topic, codec, append(options, goka.WithEmitterHasher(eos.NewHasher))...)
}

// NewView is Goka's, with the unit's hasher.
func NewView(brokers []string, topic Table, codec goka.Codec, options ...goka.ViewOption) (*View, error) {
	return goka.NewView(brokers, topic, codec, append(options, goka.WithViewHasher(eos.NewHasher))...)
}
