package insight

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// MaxTryEntities is the most entities of one Try.
const MaxTryEntities = 1_000

// Tried is what one entity would get.
type Tried struct {
	*eval.Result
	// Bucket is the entity's bucket, 0 to 999.
	Bucket int
}

// Try evaluates a flag, which can be a draft, for some entities, each with its debug log. It counts, records, observes and logs nothing. Limit, when
// positive, is the most entities beside MaxTryEntities. The error matches entity.ErrInvalid.
func Try(flag *entity.Flag, entities []eval.Entity, limit int, now time.Time) ([]Tried, error) {
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
		result := snapshot.Evaluate(eval.Request{
			FlagID: int64(flag.ID), EntityID: e.EntityID, EntityType: e.EntityType, EntityContext: e.EntityContext, EnableDebug: true,
		}, now, true)
		tried[i] = Tried{result, eval.BucketOf(int64(flag.ID), result.Request.EntityID)}
	}
	return tried, nil
}
