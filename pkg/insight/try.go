package insight

import (
	"context"
	"fmt"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// MaxTryEntities is the maximum number of entities of one Trial.
const MaxTryEntities = 1_000

// Trial evaluates a flag, which can be a draft, for some entities, each with its debug log. It does
// not count, record, observe or log anything.
type Trial struct {
	flag     entity.Flag
	entities []eval.Entity
}

// Tried is the result of one entity.
type Tried struct {
	*eval.Result
	Outcome datar.Outcome
	// MatchedSegmentID is the segment that matched, or 0.
	MatchedSegmentID int64
	// Bucket is the entity's bucket, 0 to 999.
	Bucket int
}

// NewTrial checks the entities. limit, if positive, bounds their number in addition to
// MaxTryEntities. A deleted flag is evaluated as if it were not deleted.
//
// The error is a *TrialSizeError or a *TrialDepthError. Both match entity.ErrInvalid.
func NewTrial(flag *entity.Flag, entities []eval.Entity, limit int) (*Trial, error) {
	most := MaxTryEntities
	if limit > 0 {
		most = min(most, limit)
	}
	if len(entities) == 0 || len(entities) > most {
		return nil, &TrialSizeError{Entities: len(entities), Most: most}
	}
	for i := range entities {
		if entity.Deeper(entities[i].EntityContext, entity.MaxJSONDepth) {
			return nil, &TrialDepthError{Entity: i}
		}
	}
	t := &Trial{flag: *flag, entities: entities}
	t.flag.DeletedAt = entity.DeletedAt{}
	return t, nil
}

// Each evaluates the entities in their order and calls use with each result. It checks ctx before
// each entity, because a draft may contain patterns that take a third of a second. The error is the
// error of ctx.
func (t *Trial) Each(ctx context.Context, now time.Time, use func(Tried)) error {
	snapshot := eval.Compile([]entity.Flag{t.flag})
	id := int64(t.flag.ID)
	for i, e := range t.entities {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("try entity %d of %d: %w", i+1, len(t.entities), err)
		}
		result := snapshot.Evaluate(eval.Request{
			FlagID: id, EntityID: e.EntityID, EntityType: e.EntityType, EntityContext: e.EntityContext, EnableDebug: true,
		}, now, true)
		outcome, segmentID := result.Outcome()
		use(Tried{Result: result, Outcome: datar.Outcome(outcome), MatchedSegmentID: segmentID, Bucket: eval.BucketOf(id, result.Request.EntityID)})
	}
	return nil
}

// TrialSizeError is the error of a Trial of no entities, or of too many.
type TrialSizeError struct{ Entities, Most int }

// Error implements error.
func (e *TrialSizeError) Error() string {
	return fmt.Sprintf("entities has %d entries, want 1 to %d", e.Entities, e.Most)
}

// Unwrap returns entity.ErrInvalid.
func (e *TrialSizeError) Unwrap() error { return entity.ErrInvalid }

// TrialDepthError is the error of a context with more than entity.MaxJSONDepth levels. Evaluations
// also reject such a context.
type TrialDepthError struct {
	// Entity is the index of the first entity with such a context.
	Entity int
}

// Error implements error.
func (e *TrialDepthError) Error() string {
	return fmt.Sprintf("entities.%d.entityContext nests more than the %d levels of objects and lists allowed", e.Entity, entity.MaxJSONDepth)
}

// Unwrap returns entity.ErrInvalid.
func (e *TrialDepthError) Unwrap() error { return entity.ErrInvalid }
