package insight

import (
	"slices"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// HistoryOf computes the history of a flag from its snapshots, oldest first, as the Service does.
func HistoryOf(snapshots []entity.FlagSnapshot, created bool, all time.Time) History {
	r := historyReader{created: created, left: len(snapshots)}
	for i := range slices.Backward(snapshots) {
		r.add(&snapshots[i])
	}
	return r.history(all)
}
