package insight

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/catalog"
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
	limits   TrialLimits
	// answer is the estimated length of all results as JSON, and patterns the memory of compiled
	// patterns, both in bytes.
	answer, patterns int
}

// TrialLimits bounds Trials. Zero values select the defaults.
type TrialLimits struct {
	// Entities, if positive, bounds the number of entities in addition to MaxTryEntities.
	Entities int
	// AnswerBytes bounds the results with their debug logs, as JSON. 0 means
	// eval.DefaultAnswerBytes.
	AnswerBytes int
	// Turns limits how many large Trials evaluate at once. Nil means no limit.
	Turns budget.Turns
}

// answerBytes returns AnswerBytes or its default.
func (l TrialLimits) answerBytes() int {
	if l.AnswerBytes > 0 {
		return l.AnswerBytes
	}
	return eval.DefaultAnswerBytes
}

const (
	// fixedTriedBytes is the approximate length of a result as JSON without its debug log and
	// strings.
	fixedTriedBytes = 200
	// fixedLogBytes is the approximate maximum length of a debug log of a segment without the text
	// of its constraint or distributions.
	fixedLogBytes = 160
	// bytesPerShare is the approximate length of a distribution in a debug log without the key.
	bytesPerShare = len(": 1000-1000, ")
	// bytesPerInstruction is the memory of an instruction of a compiled pattern.
	bytesPerInstruction = 50
)

// Tried is the result of one entity.
type Tried struct {
	*eval.Result
	Outcome datar.Outcome
	// MatchedSegmentID is the segment that matched, or 0.
	MatchedSegmentID int64
	// Bucket is the entity's bucket, 0 to 999.
	Bucket int
}

// NewTrial checks the entities and the estimated length of the results, before any evaluation. A
// deleted flag is evaluated as if it were not deleted. One with a value that cannot be read is not
// evaluated, as elsewhere.
//
// The error is a *TrialSizeError, a *TrialDepthError or a *TrialAnswerError, or names the value
// that cannot be read. All match entity.ErrInvalid.
func NewTrial(flag *entity.Flag, entities []eval.Entity, limits TrialLimits) (*Trial, error) {
	if flag.Unreadable != "" {
		return nil, entity.Wrong("api.try.unreadable", "id", catalog.Digits(flag.ID), "problem", catalog.Literal(flag.Unreadable))
	}
	most := MaxTryEntities
	if limits.Entities > 0 {
		most = min(most, limits.Entities)
	}
	if len(entities) == 0 || len(entities) > most {
		return nil, &TrialSizeError{Entities: len(entities), Most: most}
	}
	for i := range entities {
		if entity.Deeper(entities[i].EntityContext, entity.MaxJSONDepth) {
			return nil, &TrialDepthError{Entity: i}
		}
	}
	t := &Trial{flag: *flag, entities: entities, limits: limits, answer: triedBytes(flag, entities), patterns: patternBytes(flag)}
	if t.answer > limits.answerBytes() {
		return nil, t.tooLong(t.answer)
	}
	t.flag.DeletedAt = entity.DeletedAt{}
	return t, nil
}

// triedBytes estimates the length of all results as JSON. It is an upper bound except for
// characters that JSON escapes.
func triedBytes(flag *entity.Flag, entities []eval.Entity) int {
	perEntity := fixedTriedBytes
	for i := range flag.Segments {
		s := &flag.Segments[i]
		longest := 0
		for j := range s.Distributions {
			longest += len(s.Distributions[j].VariantKey) + bytesPerShare
		}
		for j := range s.Constraints {
			c := &s.Constraints[j]
			longest = max(longest, 2*len(c.Property)+len(c.Operator)+len(c.Value))
		}
		perEntity += fixedLogBytes + longest
	}
	n := len(entities) * perEntity
	for i := range entities {
		n += len(entities[i].EntityID)
	}
	return n
}

// patternBytes estimates the memory of the compiled patterns of a flag.
func patternBytes(flag *entity.Flag) int {
	n := 0
	for i := range flag.Segments {
		for j := range flag.Segments[i].Constraints {
			pattern, found := flag.Segments[i].Constraints[j].Pattern()
			if !found {
				continue
			}
			if size, err := entity.PatternSize(pattern, entity.MaxPatternSize); err == nil {
				n += min(size, entity.MaxPatternSize) * bytesPerInstruction
			}
		}
	}
	return n
}

// Each evaluates the entities in their order and calls use with each result. It checks ctx before
// each entity, because a draft may contain patterns that take a third of a second. Large Trials
// take a turn for each entity, so that they leave processors to other requests. use is called
// during the turn, and returns how many bytes it keeps of the result. Its error ends the Trial.
//
// The request takes the estimated memory of results and patterns with budget.Add. At the end, it
// has the memory that use keeps. The error is budget.ErrExhausted, the error of use, or an
// *UnfinishedError if ctx ends.
func (t *Trial) Each(ctx context.Context, now time.Time, use func(Tried) (kept int, err error)) error {
	estimated := t.answer + t.answer/len(t.entities) + t.patterns
	if err := budget.Add(ctx, int64(estimated)); err != nil {
		return err
	}
	kept := 0
	turns := t.limits.Turns
	if t.answer+t.patterns <= budget.LargeBytes {
		turns = nil
	}
	var snapshot *eval.Snapshot
	one := func(e *eval.Entity) error {
		if err := turns.Take(ctx); err != nil {
			return err
		}
		defer turns.Release()
		if err := ctx.Err(); err != nil {
			return err
		}
		if snapshot == nil {
			snapshot = eval.Compile([]entity.Flag{t.flag})
		}
		id := int64(t.flag.ID)
		result := snapshot.Evaluate(eval.Request{
			FlagID: id, EntityID: e.EntityID, EntityType: e.EntityType, EntityContext: e.EntityContext, EnableDebug: true,
		}, now, true)
		outcome, segmentID := result.Outcome()
		n, err := use(Tried{Result: result, Outcome: datar.Outcome(outcome), MatchedSegmentID: segmentID, Bucket: eval.BucketOf(id, result.Request.EntityID)})
		kept += n
		return err
	}
	for i := range t.entities {
		if err := one(&t.entities[i]); err != nil {
			if ctx.Err() != nil {
				return &UnfinishedError{Work: fmt.Sprintf("%d of %d entities were evaluated", i, len(t.entities)), Err: ctx.Err()}
			}
			return err
		}
	}
	return budget.Add(ctx, int64(kept-estimated))
}

// CheckAnswer returns a *TrialAnswerError if results of n bytes are too long. It is for results
// that are longer than the estimate.
func (t *Trial) CheckAnswer(n int) error {
	if n > t.limits.answerBytes() {
		return t.tooLong(n)
	}
	return nil
}

func (t *Trial) tooLong(n int) error {
	return &TrialAnswerError{Entities: len(t.entities), Segments: len(t.flag.Segments), Bytes: n, Most: t.limits.answerBytes()}
}

// UnfinishedError is the error of work that was not finished when its context ended. Other requests
// may have used the processors meanwhile.
type UnfinishedError struct {
	// Work describes how far the work was.
	Work string
	// Err is the error of the context.
	Err error
}

// Error implements error.
func (e *UnfinishedError) Error() string {
	if errors.Is(e.Err, context.DeadlineExceeded) {
		return e.Work + " within the time limit: send less, or retry later"
	}
	return e.Work + ": " + e.Err.Error()
}

// Unwrap returns the error of the context.
func (e *UnfinishedError) Unwrap() error { return e.Err }

// TrialAnswerError is the error of a Trial whose results would be too long.
type TrialAnswerError struct{ Entities, Segments, Bytes, Most int }

// Error implements error.
func (e *TrialAnswerError) Error() string {
	return fmt.Sprintf("trial of %d entities and %d segments: the answer would have about %d bytes, the limit is %d (FLAGR_EVAL_ANSWER_BYTES); send fewer entities",
		e.Entities, e.Segments, e.Bytes, e.Most)
}

// Unwrap returns entity.ErrInvalid.
func (e *TrialAnswerError) Unwrap() error { return entity.ErrInvalid }

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
