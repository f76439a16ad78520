package eos

import (
	"errors"
	"fmt"
	"strings"

	"github.com/IBM/sarama"
)

// inflatedBytesMax is the default of Config.InflatedBytesMax. A topic's max.message.bytes holds for what is compressed
// alone: a batch of 1 MiB may inflate to gigabytes, while producers of good will
// bound a batch before they compress it. The heap grows by about three times the bound.
const inflatedBytesMax = 128 << 20

func init() { sarama.MaxDecompressedBatchSize = inflatedBytesMax }

// boundInflation sets sarama's bound, which all consumers of the process share.
func boundInflation(n int32) {
	if sarama.MaxDecompressedBatchSize != n {
		sarama.MaxDecompressedBatchSize = n
	}
}

// inflated answers the fail-stop for a batch that would inflate beyond the bound; nil for other errors. sarama drops the
// whole answer that the batch came in, so nothing behind it can be read, and which partition it lies in is not known.
func (u *Unit) inflated(err error) *FailStop {
	if !errors.Is(err, sarama.ErrDecompressedBatchTooLarge) {
		return nil
	}
	var places []string
	for _, st := range u.Status() {
		next := int64(0)
		if src := st.Position.Source(u.cfg.Input); src != nil {
			next = src.Next
		}
		places = append(places, fmt.Sprintf("%d@%d", st.Partition, next))
	}
	return Stop(err, "give this process memory for it and raise the bound (`tidemark run --inflated-mib`); nothing was lost",
		"a record batch of %s inflates to more than %d MiB, the bound that protects this process's memory; it lies at or behind one of %s",
		u.cfg.Input, u.cfg.InflatedBytesMax>>20, strings.Join(places, " "))
}
