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

// Recorder gets each evaluation, also of flags that are not recorded or do not exist, and each exposure of a recorded flag.
type Recorder interface {
	// AsyncRecord returns at once. It must not keep the result, nor the entity context of its request: both serve later
	// evaluations. It may keep strings, FlagTags and a context of decoded JSON, which never change.
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
	// AnswerBytes is the largest answer to a batch in bytes, estimated before it is made; 0 means DefaultAnswerBytes.
	AnswerBytes int
	// ExposureBatchSize, when positive, is the most exposures that one call of Expose may report.
	ExposureBatchSize int
	// Observe is called for every evaluation, recorded or not, for metrics and logs. Nil: not called. It runs in the
	// goroutine of the request, so it returns at once, and it keeps no more of a result than Recorder.AsyncRecord may.
	Observe func(*Result)
	// Trace is called for every evaluation with the context of its request, for telemetry. Nil: not called. It keeps no
	// more than Observe.
	Trace Tracer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Random makes up the ids of entities that have none; nil means rand.Int32.
	Random func() int32
}

// Tracer adds evaluations to the traces of their requests. Its methods return at once.
type Tracer interface {
	// Evaluated is called for an evaluation. It is alone if the request asks for one flag and one entity.
	Evaluated(ctx context.Context, r *Result, alone bool)
	// EvaluatedSeveral is called at the end of a request that may ask for several, with their number.
	EvaluatedSeveral(ctx context.Context, n int)
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
	if o.AnswerBytes <= 0 {
		o.AnswerBytes = DefaultAnswerBytes
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

// EvaluateInto is Evaluate for callers that have memory for a result. When it returns, nothing refers to the result, and
// they may use it for the next one.
func (s *Service) EvaluateInto(ctx context.Context, request Request, result *Result) {
	*result = Result{Request: request, Timestamp: s.options.Now().UTC()}
	f := s.snapshots.Snapshot().find(request.FlagID, request.FlagKey)
	f.describe(result)
	f.decide(result, s.debug(request.EnableDebug), s.options.Random)
	s.record(result)
	if s.options.Trace != nil {
		s.options.Trace.Evaluated(ctx, result, true)
	}
}

// clockInterval is how many results of a batch share a look at the clock and at the context.
const clockInterval = 16

// maxBatch is how many evaluations a batch makes where nothing is configured. An answer has some 500 bytes for each:
// several hundred megabytes in all.
const maxBatch = 500_000

// EvaluateEach answers, for each entity in turn, for the flags selected by tags in the order of their ids, then for those
// named by id, then for those named by key. A flag that is selected in two of these ways is answered for twice. It calls
// use with each result as soon as it is recorded; use must not keep it, since it serves the next evaluation.
//
// The error matches entity.ErrInvalid if the batch is larger than Options.BatchSize or its answer larger than
// Options.AnswerBytes, and nothing was evaluated then. Otherwise it is that of ctx, or ErrTooSlow, and use may have been
// called.
func (s *Service) EvaluateEach(ctx context.Context, batch BatchRequest, use func(*Result)) error {
	targets, err := s.targets(&batch)
	if err != nil {
		return err
	}
	debug := s.debug(batch.EnableDebug)
	result, begun, now := new(Result), time.Time{}, time.Time{}
	made := 0
	for e := range batch.Entities {
		who := &batch.Entities[e]
		for t := range targets {
			if made%clockInterval == 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
				now = s.options.Now().UTC()
				if made == 0 {
					begun = now
				} else if now.Sub(begun) > batchTimeout {
					return ErrTooSlow
				}
			}
			made++
			*result = targets[t].answer
			result.Timestamp = now
			result.Request.EntityID, result.Request.EntityType = who.EntityID, who.EntityType
			result.Request.EntityContext = who.EntityContext
			targets[t].flag.decide(result, debug, s.options.Random)
			s.record(result)
			if s.options.Trace != nil {
				s.options.Trace.Evaluated(ctx, result, false)
			}
			use(result)
		}
	}
	if s.options.Trace != nil {
		s.options.Trace.EvaluatedSeveral(ctx, made)
	}
	return nil
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
		t := newTarget(f, Request{
			EnableDebug: batch.EnableDebug, FlagTags: batch.FlagTags, FlagTagsOperator: batch.FlagTagsOperator, PlainTexts: batch.PlainTexts,
		})
		t.answer.Asked = AskedByTag
		targets = append(targets, t)
	}
	for _, id := range ids {
		targets = append(targets, newTarget(snapshot.find(id, ""), Request{EnableDebug: batch.EnableDebug, FlagID: id, PlainTexts: batch.PlainTexts}))
	}
	for _, key := range keys {
		targets = append(targets, newTarget(snapshot.find(0, key), Request{EnableDebug: batch.EnableDebug, FlagKey: key, PlainTexts: batch.PlainTexts}))
	}
	if n := answerBytes(batch, targets); n > s.options.AnswerBytes {
		return nil, entity.Invalid("batch of %d entities and %d flags: the answer would have about %d bytes, the limit is %d (FLAGR_EVAL_ANSWER_BYTES); ask for fewer at once, or send less context",
			len(batch.Entities), len(targets), n, s.options.AnswerBytes)
	}
	return targets, nil
}

func (s *Service) debug(asked bool) bool { return asked && s.options.DebugEnabled }

func (s *Service) record(result *Result) {
	if s.options.Observe != nil {
		s.options.Observe(result)
	}
	if s.recorder != nil {
		s.recorder.AsyncRecord(result)
	}
}

// unique returns the items without repetitions, in the order of their first appearance.
func unique[T comparable](items []T) []T {
	seen := make(map[T]struct{}, min(len(items), 100))
	kept := make([]T, 0, min(len(items), 100))
	for _, item := range items {
		if _, ok := seen[item]; !ok {
			seen[item] = struct{}{}
			kept = append(kept, item)
		}
	}
	return kept
}
