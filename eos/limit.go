package eos

import (
	"context"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
)

// MessageBytesMax is the largest record batch that a topic takes (max.message.bytes), 64 MiB at most; Kafka's default where
// it may not be asked for.
func MessageBytesMax(ctx context.Context, adm *kadm.Client, topic string) int32 {
	const standard, most = 1_000_012, 64 << 20
	configs, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return standard
	}
	for _, rc := range configs {
		for _, c := range rc.Configs {
			if n, err := strconv.ParseInt(c.MaybeValue(), 10, 32); c.Key == "max.message.bytes" && err == nil && n > 0 {
				return int32(min(n, most))
			}
		}
	}
	return standard
}
