package eos

import (
	"encoding/binary"
	"hash"
)

// Place gives the partition on which producers with Kafka's default partitioner put a key: murmur2, the sign bit masked
// away, modulo the number of partitions (Kafka: BuiltInPartitioner.partitionForKey and Utils.toPositive). librdkafka's
// murmur2 partitioners and franz-go's default agree. partitions must be positive.
func Place(key []byte, partitions int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % partitions
}

// NewHasher gives Place's hash to Goka (WithHasher): the sign bit is masked, because Goka negates a negative hash and
// panics on the one that has no opposite.
func NewHasher() hash.Hash32 { return &placeHash{} }

// placeHash collects the key: murmur2 mixes the length in first, so it cannot be computed as bytes arrive.
type placeHash struct{ key []byte }

func (h *placeHash) Write(p []byte) (int, error) {
	h.key = append(h.key, p...)
	return len(p), nil
}

func (h *placeHash) Sum32() uint32 { return murmur2(h.key) & 0x7fffffff }

func (h *placeHash) Sum(b []byte) []byte { return binary.BigEndian.AppendUint32(b, h.Sum32()) }

func (h *placeHash) Reset() { h.key = h.key[:0] }

func (h *placeHash) Size() int { return 4 }

func (h *placeHash) BlockSize() int { return 4 }

// murmur2 is the 32-bit MurmurHash2 with the seed that Kafka uses (org.apache.kafka.common.utils.Utils.murmur2).
func murmur2(key []byte) uint32 {
	const (
		seed = 0x9747b28c
		mix  = 0x5bd1e995
	)
	h := uint32(seed) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := binary.LittleEndian.Uint32(key) * mix
		k ^= k >> 24
		h = h*mix ^ k*mix
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * mix
	}
	h = (h ^ h>>13) * mix
	return h ^ h>>15
}
