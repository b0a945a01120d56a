package kafka

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// partitionerOf returns the partitioner of records by key. Records without a key go to one
// partition at a time, which changes with each batch.
func partitionerOf(name string) (kgo.Partitioner, error) {
	switch name {
	case FNV1a, "":
		return kgo.StickyKeyPartitioner(fnv1aPartition), nil
	case Murmur2:
		return kgo.StickyKeyPartitioner(nil), nil
	default:
		return nil, fmt.Errorf("partitioner %q is not known", name)
	}
}

// fnv1aPartition is the rule of sarama's hash partitioner: the 32-bit FNV-1a hash of the key as a
// signed number, modulo the number of partitions, without its sign. RFC 9923 describes FNV-1a.
func fnv1aPartition(key []byte, partitions int) int {
	const offsetBasis, prime = 2166136261, 16777619
	hash := uint32(offsetBasis)
	for _, b := range key {
		hash = (hash ^ uint32(b)) * prime
	}
	p := int32(hash) % int32(partitions)
	if p < 0 {
		p = -p
	}
	return int(p)
}
