package eval

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Source has the current snapshot, which is never nil.
type Source interface {
	Snapshot() *Snapshot
}

// Recorder is told of each evaluation that may be recorded.
type Recorder interface {
	// AsyncRecord must return at once. It may keep the result, which then never changes; but see Options.ReuseResults.
	AsyncRecord(*Result)
}

// Options tune a Service. The zero value allows no debugging.
type Options struct {
	// DebugEnabled lets requests ask for SegmentLogs.
	DebugEnabled bool
	// BatchSize, when positive, is the most evaluations that one batch may ask for: entities × (ids + keys + 1 if there
	// are tags), where repeated ids and keys count once. Otherwise a batch may make 500,000 evaluations, with those of the
	// flags that its tags select.
	BatchSize int
	// ExposureBatchSize, when positive, is the most exposures that one call of Expose may report.
	ExposureBatchSize int
	// Observe is told of every evaluation, recorded or not, for metrics and logs; nil tells nobody. It is called by the
	// goroutine of the request, so it must return at once, and it must not keep the result. Texts of it may be kept.
	Observe func(*Result)
	// ReuseResults promises that the recorder keeps no result either, but texts of it at most: results, and contexts of
	// requests, then serve later evaluations.
	ReuseResults bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Random makes up the ids of entities that have none; nil means rand.Int32.
	Random func() int32
}

// Service evaluates and records. It is the only way to an evaluation, so that none is left unrecorded.
type Service struct {
	snapshots Source
	recorder  Recorder
	options   Options
}

// NewService returns a Service. A nil recorder records nothing.
func NewService(snapshots Source, recorder Recorder, o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Int32
	}
	return &Service{snapshots: snapshots, recorder: recorder, options: o}
}

// Evaluate answers one request.
func (s *Service) Evaluate(ctx context.Context, request Request) *Result {
	result := &Result{}
	s.EvaluateInto(ctx, request, result)
	return result
}

// EvaluateInto is Evaluate for callers who have the memory for a result. See KeepsResults for when they may use it again.
func (s *Service) EvaluateInto(_ context.Context, request Request, result *Result) {
	*result = Result{Request: request, Timestamp: s.options.Now().UTC()}
	f := s.snapshots.Snapshot().find(request.FlagID, request.FlagKey)
	f.describe(result)
	f.decide(result, s.debug(request.EnableDebug), s.options.Random)
	s.record(result)
}

// KeepsResults reports whether a result, and so what its request consists of, may be kept by a recorder. If not, all of
// it can be used for something else as soon as the caller has no need for it.
func (s *Service) KeepsResults() bool { return !s.options.ReuseResults }

// blockSize is how many results of a batch share a block of memory and a look at the clock: few enough that one of them,
// kept by a recorder, does not keep the whole batch.
const blockSize = 16

// maxBatch is how many evaluations a batch makes where nothing is configured. An answer holds some 500 bytes for each, and
// three times as much where the results are kept until it is written: several hundred megabytes in all.
const maxBatch = 500_000

// EvaluateBatch answers, for each entity in turn, for the flags selected by tags in the order of their ids, then for
// those named by id, then for those named by key. A flag that is selected in two of these ways is answered for twice.
// The error matches entity.ErrInvalid when the batch is larger than Options.BatchSize allows; otherwise it is that of ctx, and
// the evaluations made until then are recorded.
func (s *Service) EvaluateBatch(ctx context.Context, batch BatchRequest) ([]*Result, error) {
	targets, err := s.targets(&batch)
	if err != nil {
		return nil, err
	}
	results := make([]*Result, 0, len(batch.Entities)*len(targets))
	err = s.evaluateEach(ctx, &batch, targets, false, func(r *Result) { results = append(results, r) })
	if err != nil {
		return nil, err
	}
	return results, nil
}

// EvaluateEach is EvaluateBatch for callers who need one result after the other: use gets each of them as soon as it is
// recorded, and must not keep it. With an error, use may have got some.
func (s *Service) EvaluateEach(ctx context.Context, batch BatchRequest, use func(*Result)) error {
	targets, err := s.targets(&batch)
	if err != nil {
		return err
	}
	return s.evaluateEach(ctx, &batch, targets, s.options.ReuseResults, use)
}

// target is one of the flags that a batch asks for, nil if there is no such flag, and the answer for an entity about which
// nothing is known.
type target struct {
	flag   *flag
	answer Result
}

func newTarget(f *flag, request Request) target {
	t := target{flag: f, answer: Result{Request: request}}
	f.describe(&t.answer)
	return t
}

func (s *Service) targets(batch *BatchRequest) ([]target, error) {
	ids, keys := unique(batch.FlagIDs), unique(batch.FlagKeys)
	asked := len(ids) + len(keys)
	if len(batch.FlagTags) > 0 {
		asked++
	}
	if limit := s.options.BatchSize; limit > 0 && len(batch.Entities)*asked > limit {
		return nil, entity.Invalid("batch of %d entities and %d flags or tag selections asks for %d evaluations: the limit is %d",
			len(batch.Entities), asked, len(batch.Entities)*asked, limit)
	}
	snapshot := s.snapshots.Snapshot()
	tagged := snapshot.tagged(batch.FlagTags, batch.FlagTagsOperator)
	if all := len(tagged) + len(ids) + len(keys); s.options.BatchSize <= 0 && len(batch.Entities)*all > maxBatch {
		return nil, entity.Invalid("batch of %d entities and %d flags asks for %d evaluations: the limit is %d, unless FLAGR_EVAL_BATCH_SIZE sets another",
			len(batch.Entities), all, len(batch.Entities)*all, maxBatch)
	}
	targets := make([]target, 0, len(tagged)+len(ids)+len(keys))
	for _, f := range tagged {
		targets = append(targets, newTarget(f, Request{
			EnableDebug: batch.EnableDebug, FlagTags: batch.FlagTags, FlagTagsOperator: batch.FlagTagsOperator, PlainTexts: batch.PlainTexts,
		}))
	}
	for _, id := range ids {
		targets = append(targets, newTarget(snapshot.find(id, ""), Request{EnableDebug: batch.EnableDebug, FlagID: id, PlainTexts: batch.PlainTexts}))
	}
	for _, key := range keys {
		targets = append(targets, newTarget(snapshot.find(0, key), Request{EnableDebug: batch.EnableDebug, FlagKey: key, PlainTexts: batch.PlainTexts}))
	}
	return targets, nil
}

// evaluateEach evaluates and records. With reuse, a result is another one's as soon as use has returned.
func (s *Service) evaluateEach(ctx context.Context, batch *BatchRequest, targets []target, reuse bool, use func(*Result)) error {
	debug := s.debug(batch.EnableDebug)
	left := len(batch.Entities) * len(targets)
	var block []Result
	var now time.Time
	at := 0 // in block
	for e := range batch.Entities {
		who := &batch.Entities[e]
		for t := range targets {
			if at == len(block) {
				if err := ctx.Err(); err != nil {
					return err
				}
				if block == nil || !reuse {
					block = make([]Result, min(blockSize, left))
				}
				at, now = 0, s.options.Now().UTC()
			}
			result := &block[at]
			at++
			left--
			*result = targets[t].answer
			result.Timestamp = now
			result.Request.EntityID, result.Request.EntityType = who.EntityID, who.EntityType
			result.Request.EntityContext = who.EntityContext
			targets[t].flag.decide(result, debug, s.options.Random)
			s.record(result)
			use(result)
		}
	}
	return nil
}

func (s *Service) debug(asked bool) bool { return asked && s.options.DebugEnabled }

func (s *Service) record(result *Result) {
	if s.options.Observe != nil {
		s.options.Observe(result)
	}
	if s.recorder != nil && result.DataRecordsEnabled && (result.Reason == NoMatch || result.Reason == Matched) {
		s.recorder.AsyncRecord(result)
	}
}

// unique returns the items without repetitions, in the order of their first appearance.
func unique[T comparable](items []T) []T {
	seen := make(map[T]struct{}, len(items))
	kept := make([]T, 0, len(items))
	for _, item := range items {
		if _, ok := seen[item]; !ok {
			seen[item] = struct{}{}
			kept = append(kept, item)
		}
	}
	return kept
}
