package insight

import (
	"context"
	"fmt"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// MaxTryEntities is the maximum number of entities of one Try.
const MaxTryEntities = 1_000

// Tried is the result of one entity.
type Tried struct {
	*eval.Result
	Outcome datar.Outcome
	// MatchedSegmentID is the segment that matched, or 0.
	MatchedSegmentID int64
	// Bucket is the entity's bucket, 0 to 999.
	Bucket int
}

// Try evaluates a flag, which can be a draft, for some entities, each with its debug log. It does
// not count, record, observe or log anything. limit, if positive, bounds the number of entities in
// addition to MaxTryEntities.
//
// The error matches entity.ErrInvalid, or is the error of ctx. Try checks ctx before each entity,
// because a draft may contain patterns that take a third of a second.
func Try(ctx context.Context, flag *entity.Flag, entities []eval.Entity, limit int, now time.Time) ([]Tried, error) {
	most := MaxTryEntities
	if limit > 0 {
		most = min(most, limit)
	}
	if len(entities) == 0 || len(entities) > most {
		return nil, entity.Invalid("entities has %d entries, want 1 to %d", len(entities), most)
	}
	live := *flag
	live.DeletedAt = entity.DeletedAt{}
	snapshot := eval.Compile([]entity.Flag{live})
	tried := make([]Tried, len(entities))
	for i, e := range entities {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("try entity %d of %d: %w", i+1, len(entities), err)
		}
		result := snapshot.Evaluate(eval.Request{
			FlagID: int64(flag.ID), EntityID: e.EntityID, EntityType: e.EntityType, EntityContext: e.EntityContext, EnableDebug: true,
		}, now, true)
		tried[i] = Tried{Result: result, Bucket: eval.BucketOf(int64(flag.ID), result.Request.EntityID)}
		tried[i].Outcome, tried[i].MatchedSegmentID, _ = OutcomeOf(result)
	}
	return tried, nil
}

// OutcomeOf returns the outcome of an evaluation and the segment that matched. It returns false for
// a request without an outcome: one that was rejected, or whose flag does not exist.
func OutcomeOf(r *eval.Result) (outcome datar.Outcome, segmentID int64, ok bool) {
	switch r.Reason {
	case eval.FlagDisabled:
		return datar.Disabled, 0, true
	case eval.NoSegments:
		return datar.NoSegments, 0, true
	case eval.Matched:
		return datar.Matched, r.SegmentID, true
	case eval.HeldOut:
		return datar.HeldOut, r.HeldOutSegmentID, true
	case eval.NoMatch:
		return datar.NoMatch, 0, true
	default:
		return 0, 0, false
	}
}
