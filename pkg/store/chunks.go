package store

import (
	"iter"
	"math/bits"
	"slices"
)

// idsPerQuery keeps lists of IDs below the parameter limit of every database. Older SQLite versions
// accept 999.
const idsPerQuery = 500

// inChunks yields values in lists of at most idsPerQuery each, for conditions with IN.
func inChunks[T any](values []T) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for chunk := range slices.Chunk(values, idsPerQuery) {
			if !yield(padded(chunk)) {
				return
			}
		}
	}
}

// padded repeats the last of at most idsPerQuery values until their number is idsPerQuery or a
// power of two. Drivers and databases cache each statement text per connection, so the number of
// different texts must be small.
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
