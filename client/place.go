package client

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
)

// Partition gives the partition of the input on which an ID's events lie, where producers place their keys as Kafka's
// default partitioner does: murmur2, the sign bit masked away, modulo the number of partitions.
func Partition(id string, partitions int32) int32 { return int32(murmur2(id)&0x7fffffff) % partitions }

// murmur2 is the 32-bit MurmurHash2 with the seed that Kafka uses (org.apache.kafka.common.utils.Utils.murmur2).
func murmur2(key string) uint32 {
	const (
		seed = 0x9747b28c
		mix  = 0x5bd1e995
	)
	h := uint32(seed) ^ uint32(len(key))
	b := []byte(key)
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * mix
		k ^= k >> 24
		h = h*mix ^ k*mix
	}
	for i := len(b) - 1; i >= 0; i-- {
		h ^= uint32(b[i]) << (8 * i)
	}
	if len(b) > 0 {
		h *= mix
	}
	h = (h ^ h>>13) * mix
	return h ^ h>>15
}

// partitionCount gives the number of the input's partitions, and asks a view where no answer has told it yet.
func (c *Client) partitionCount(ctx context.Context) (int32, error) {
	if n := c.partitions.Load(); n > 0 {
		return n, nil
	}
	st, err := c.Status(ctx)
	if err != nil {
		return 0, err
	}
	if len(st.Partitions) == 0 {
		return 0, &Error{kind: ErrNotReady, Message: "the number of partitions is not known yet: " + st.Why}
	}
	return int32(len(st.Partitions)), nil
}

// token names an event of the input.
type token struct {
	partition int32
	offset    int64
	// generation and topic, of a token that Produce gave; a place has none.
	generation uint64
	topic      string
	text       string
}

func parseToken(text string) (_ token, err error) {
	malformed := invalidf("a token is PARTITION@OFFSET such as 3@1042, or one that Produce gave, got %q", text)
	at, of, _ := strings.Cut(text, ".")
	partition, offset, ok := strings.Cut(at, "@")
	n, err1 := strconv.ParseUint(partition, 10, 31)
	o, err2 := strconv.ParseUint(offset, 10, 63)
	if !ok || err1 != nil || err2 != nil {
		return token{}, malformed
	}
	t := token{partition: int32(n), offset: int64(o), text: text}
	generation, topic, _ := strings.Cut(of, ".")
	if t.topic = topic; of != "" {
		if t.generation, err = strconv.ParseUint(generation, 10, 32); err != nil {
			return token{}, malformed
		}
	}
	return t, nil
}

// later gives the one of two events of a partition that who waits for both has to wait for. A topic of a later generation is later;
// of two of one generation nobody knows, and the one that was heard of last is taken. A place is taken to be of the topic that is known.
func later(was, now token) token {
	switch known := was.topic != "" && now.topic != ""; {
	case known && was.generation > now.generation:
		return was
	case known && (was.generation < now.generation || was.topic != now.topic):
		return now
	}
	newest, of := was, was
	if now.offset > was.offset {
		newest = now
	}
	if was.topic == "" {
		of = now
	}
	newest.generation, newest.topic = of.generation, of.topic
	return newest
}
