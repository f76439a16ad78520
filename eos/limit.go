package eos

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// MessageBytesMax is the largest record batch that a topic takes (max.message.bytes), 64 MiB at most; Kafka's default where
// it may not be asked for. It fails where no answer came, which tells nothing of the limit.
func MessageBytesMax(ctx context.Context, adm *kadm.Client, topic string) (int32, error) {
	const standard, most = 1_000_012, 64 << 20
	configs, err := adm.DescribeTopicConfigs(ctx, topic)
	var rc kadm.ResourceConfig
	if err == nil {
		rc, err = configs.On(topic, nil)
	}
	if err == nil {
		err = rc.Err
	}
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return standard, nil
	case err != nil:
		return 0, fmt.Errorf("ask for max.message.bytes of %s: %w", topic, err)
	}
	for _, c := range rc.Configs {
		if n, err := strconv.ParseInt(c.MaybeValue(), 10, 32); c.Key == "max.message.bytes" && err == nil && n > 0 {
			return int32(min(n, most)), nil
		}
	}
	return standard, nil
}
