package store

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// flagRanges is into how many ranges many flags are split.
	flagRanges = 64
	// fewFlags are not worth it.
	fewFlags = 4 * flagRanges
)

// flagRange is a half-open range of ids, and the known flags in it, in the order of their ids.
type flagRange struct {
	from, to int64
	known    []*entity.Flag
}

// splitFlags makes ranges of about as many known flags each, which together have all ids. Few flags are one range.
func splitFlags(known []*entity.Flag) []flagRange {
	if len(known) < fewFlags {
		return []flagRange{{0, math.MaxInt64, known}}
	}
	ranges := make([]flagRange, flagRanges)
	for i := range ranges {
		begin, end := i*len(known)/flagRanges, (i+1)*len(known)/flagRanges
		ranges[i].known = known[begin:end]
		if i > 0 {
			ranges[i].from = int64(known[begin].ID)
			ranges[i-1].to = ranges[i].from
		}
	}
	ranges[flagRanges-1].to = math.MaxInt64
	return ranges
}

// flagSums tell one state of some flags from another: any single change shows in them, and several at once do but for a
// coincidence. Their parts are remainders, so that no sum leaves 64 bits.
type flagSums struct{ flags, ids, snapshots, pairs int64 }

const (
	sumModulus  = math.MaxInt32 // a prime
	pairModulus = 1021          // a prime
)

// selectFlagSums reads the number of a range and its flagSums.
var selectFlagSums = fmt.Sprintf("SELECT %%d, COUNT(*), COALESCE(SUM(id %%%% %[1]d), 0), COALESCE(SUM(snapshot_id %%%% %[1]d), 0), "+
	"COALESCE(SUM((snapshot_id %%%% %[1]d) * (id %%%% %[2]d)), 0) FROM flags WHERE deleted_at IS NULL AND id >= ? AND id < ?", sumModulus, pairModulus)

func sumFlags(flags []*entity.Flag) flagSums {
	s := flagSums{flags: int64(len(flags))}
	for _, f := range flags {
		id, snapshot := int64(f.ID), int64(f.SnapshotID)%sumModulus
		s.ids += id % sumModulus
		s.snapshots += snapshot
		s.pairs += snapshot * (id % pairModulus)
	}
	return s
}

// differing gives the ranges whose flags are not all as they are known. All sums are read by one statement.
func differing(tx *gorm.DB, ranges []flagRange) (different []flagRange, err error) {
	selects, bounds := make([]string, len(ranges)), make([]any, 0, 2*len(ranges))
	for i, r := range ranges {
		selects[i] = fmt.Sprintf(selectFlagSums, i)
		bounds = append(bounds, r.from, r.to)
	}
	rows, err := tx.Raw(strings.Join(selects, " UNION ALL "), bounds...).Rows()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	sums := make([]flagSums, len(ranges))
	for rows.Next() {
		var number int
		var s flagSums
		if err := rows.Scan(&number, &s.flags, &s.ids, &s.snapshots, &s.pairs); err != nil {
			return nil, err
		}
		sums[number] = s
	}
	for i, r := range ranges {
		if sums[i] != sumFlags(r.known) {
			different = append(different, r)
		}
	}
	return different, rows.Err()
}
