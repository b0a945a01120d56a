package store

import (
	"iter"
	"math/bits"
	"slices"
	"strconv"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
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

// listReader is a dialector whose database reads a long list of IDs faster from one parameter than
// from a parameter for each ID.
type listReader interface {
	// readList returns a subquery for the IDs in a JSON array, ?.
	readList() string
}

// fewIDs is the maximum length of a list that is not worth a subquery.
const fewIDs = 8

// among narrows a query to rows whose column has one of at most idsPerQuery IDs.
func among(tx *gorm.DB, column clause.Column, ids []uint) *gorm.DB {
	reader, ok := tx.Dialector.(listReader)
	if !ok || len(ids) <= fewIDs {
		return tx.Where("? IN ?", column, padded(ids))
	}
	list := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendUint(list, uint64(id), 10)
	}
	return tx.Where("? IN ("+reader.readList()+")", column, string(append(list, ']')))
}
