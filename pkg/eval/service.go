package eval

import (
	"context"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Source has the current snapshot, which is never nil.
type Source interface {
	Snapshot() *Snapshot
}

// Recorder is told of each evaluation that may be recorded.
type Recorder interface {
	// AsyncRecord must return at once. It may keep the result, which never changes.
	AsyncRecord(*Result)
}

// Options tune a Service. The zero value allows no debugging and limits no batch.
type Options struct {
	// DebugEnabled lets requests ask for SegmentLogs.
	DebugEnabled bool
	// BatchSize, when positive, is the most evaluations that one batch may ask for: entities × (ids + keys + 1 if there
	// are tags), where repeated ids and keys count once.
	BatchSize int
	// ExposureBatchSize, when positive, is the most exposures that one call of Expose may report.
	ExposureBatchSize int
	// Observe is told of every evaluation, recorded or not, for metrics and logs; nil tells nobody. It is called by the
	// goroutine of the request, so it must return at once. It may keep the result, which never changes.
	Observe func(*Result)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
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
	return &Service{snapshots: snapshots, recorder: recorder, options: o}
}

// Evaluate answers one request.
func (s *Service) Evaluate(_ context.Context, request Request) *Result {
	result := s.snapshots.Snapshot().Evaluate(request, s.options.Now(), s.debug(request.EnableDebug))
	s.record(result)
	return result
}

// EvaluateBatch answers, for each entity in turn, for the flags selected by tags in the order of their ids, then for
// those named by id, then for those named by key. A flag that is selected in two of these ways is answered for twice.
// The error matches entity.ErrInvalid when the batch is larger than Options.BatchSize; otherwise it is that of ctx, and
// the evaluations made until then are recorded.
func (s *Service) EvaluateBatch(ctx context.Context, batch BatchRequest) ([]*Result, error) {
	ids, keys := unique(batch.FlagIDs), unique(batch.FlagKeys)
	asked := len(ids) + len(keys)
	if len(batch.FlagTags) > 0 {
		asked++
	}
	if limit := s.options.BatchSize; limit > 0 && len(batch.Entities)*asked > limit {
		return nil, entity.Invalid("batch of %d entities and %d flags or tag selections asks for %d evaluations: the limit is %d",
			len(batch.Entities), asked, len(batch.Entities)*asked, limit)
	}

	type target struct {
		flag    *flag
		request Request // without its entity
	}
	snapshot := s.snapshots.Snapshot()
	tagged := snapshot.tagged(batch.FlagTags, batch.FlagTagsOperator)
	targets := make([]target, 0, len(tagged)+len(ids)+len(keys))
	for _, f := range tagged {
		targets = append(targets, target{f, Request{FlagTags: batch.FlagTags, FlagTagsOperator: batch.FlagTagsOperator}})
	}
	for _, id := range ids {
		targets = append(targets, target{snapshot.find(id, ""), Request{FlagID: id}})
	}
	for _, key := range keys {
		targets = append(targets, target{snapshot.find(0, key), Request{FlagKey: key}})
	}

	debug := s.debug(batch.EnableDebug)
	results := make([]*Result, 0, len(batch.Entities)*len(targets))
	for _, e := range batch.Entities {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		now := s.options.Now().UTC()
		// One block of memory for an entity: its results live about as long as one another.
		block := make([]Result, len(targets))
		for i := range targets {
			result := &block[i]
			result.Request, result.Timestamp = targets[i].request, now
			result.Request.EnableDebug = batch.EnableDebug
			result.Request.EntityID, result.Request.EntityType = e.EntityID, e.EntityType
			result.Request.EntityContext = e.EntityContext
			targets[i].flag.evaluate(result, debug)
			s.record(result)
			results = append(results, result)
		}
	}
	return results, nil
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
