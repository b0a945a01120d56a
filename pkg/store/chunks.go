package store

import (
	"iter"
	"math/bits"
	"slices"
)

// idsPerQuery keeps lists of ids below the number of parameters that every database takes: older SQLite has 999.
const idsPerQuery = 500

// inChunks yields the values in lists for conditions with IN, of at most idsPerQuery each.
func inChunks[T any](values []T) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for chunk := range slices.Chunk(values, idsPerQuery) {
			if !yield(padded(chunk)) {
				return
			}
		}
	}
}

// padded repeats the last of at most idsPerQuery values until there are idsPerQuery or a power of two: drivers and databases keep
// each text of a statement for each connection, so there must be few.
func padded[T any](values []T) []T {
	if len(values) == 0 {
		return values
	}
	size := min(1<<bits.Len(uint(len(values)-1)), max(idsPerQuery, len(values)))
	values = slices.Clip(values)
	for len(values) < size {
		values = append(values, values[len(values)-1])
	}
	return values
}
