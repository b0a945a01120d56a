package eval

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Source provides the current snapshot, which is never nil.
type Source interface {
	Snapshot() *Snapshot
}

// Recorder receives each evaluation, including those of unrecorded and unknown flags, and each
// exposure of a recorded flag.
type Recorder interface {
	// AsyncRecord returns at once. It must not keep the result, or a string, a list or an *Object
	// of its request, because they are reused. It may keep everything else: what describes the
	// flag, and a context of decoded JSON, which never change. FlagKey describes the request if no
	// flag was found.
	AsyncRecord(*Result)
}

// BatchingRecorder is a Recorder that records the results of a batch at a lower cost.
type BatchingRecorder interface {
	Recorder
	// Batch returns a recorder for the results of one batch.
	Batch() BatchRecorder
}

// BatchRecorder records the results of a batch. It is for one goroutine.
type BatchRecorder interface {
	Recorder
	// Flush records the results that are still pending.
	Flush()
}

// Options tune a Service. The zero value allows no debugging.
type Options struct {
	// DebugEnabled allows requests for SegmentLogs.
	DebugEnabled bool
	// BatchSize, if positive, is the maximum number of evaluations that a batch may request:
	// entities × (IDs + keys + 1 if there are tags), where repeated IDs and keys count once.
	// Otherwise a batch may make 500,000 evaluations, including those of the flags that its tags
	// select.
	BatchSize int
	// AnswerBytes is the maximum response to a batch in bytes, estimated before evaluation; 0 means
	// DefaultAnswerBytes.
	AnswerBytes int
	// ExposureBatchSize, if positive, is the maximum number of exposures of one call of Expose.
	ExposureBatchSize int
	// Observe is called for every evaluation, recorded or not, for metrics and logs. It may be nil.
	// It runs in the goroutine of the request, so it must return at once, and it may keep only what
	// Recorder.AsyncRecord may keep.
	Observe func(*Result)
	// Trace is called for every evaluation with the context of its request, for telemetry. It may
	// be nil. It may keep only what Observe may keep.
	Trace Tracer
	// Turns schedules evaluations that take long, unless the request has a turn. Nil means that
	// they begin at once.
	Turns Turns
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Random generates the IDs of entities without one; nil means rand.Int32.
	Random func() int32
}

// Tracer adds evaluations to the traces of their requests. Its methods must return at once.
type Tracer interface {
	// Evaluated is called for an evaluation. It is alone if the request is for one flag and one
	// entity.
	Evaluated(ctx context.Context, r *Result, alone bool)
	// EvaluatedSeveral is called at the end of a request that may evaluate several flags, with the
	// number of evaluations.
	EvaluatedSeveral(ctx context.Context, n int)
}

// Service evaluates and records. All evaluations use it, so no entry point can skip recording.
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

// Evaluate evaluates one request. The error is that of ctx, see EvaluateInto.
func (s *Service) Evaluate(ctx context.Context, request Request) (*Result, error) {
	result := &Result{}
	if err := s.EvaluateInto(ctx, request, result); err != nil {
		return nil, err
	}
	return result, nil
}

// EvaluateInto is Evaluate for callers that reuse a result. After it returns, nothing refers to the
// result, so the caller may use it for the next request. The error is that of ctx if it ended
// before the evaluation got its turn: then the result is wrong, and not recorded.
func (s *Service) EvaluateInto(ctx context.Context, request Request, result *Result) error {
	*result = Result{Request: request, Timestamp: s.options.Now().UTC()}
	f := s.snapshots.Snapshot().find(request.FlagID, request.FlagKey)
	f.describe(result)
	if err := s.decide(ctx, f, result, request.InTurn); err != nil {
		return err
	}
	s.record(result, s.recorder)
	if s.options.Trace != nil {
		s.options.Trace.Evaluated(ctx, result, true)
	}
	return nil
}

// decide evaluates a flag for the request of a result that describes the flag. The error is that of
// ctx: then the result is wrong.
func (s *Service) decide(ctx context.Context, f *flag, result *Result, inTurn bool) error {
	slow := s.turnFor(ctx, f, inTurn)
	defer slow.end() // also after a panic
	if slow != nil && f.isLong(result.Request.EntityContext) && !slow.begin() {
		return slow.failure()
	}
	result.scratch.slow = slow
	f.decide(result, s.debug(result.Request.EnableDebug), s.options.Random)
	result.scratch.slow = nil
	return slow.failure()
}

// LogBytes returns the approximate maximum memory of the SegmentLogs of an evaluation, including
// their JSON. It is 0 if the request is for none.
func (s *Service) LogBytes(request Request) int {
	if !s.debug(request.EnableDebug) {
		return 0
	}
	return s.snapshots.Snapshot().find(request.FlagID, request.FlagKey).logBytes()
}

// clockInterval is the number of results of a batch between two checks of the clock and the
// context.
const clockInterval = 16

// maxBatch is the maximum number of evaluations of a batch by default. A response has about 500
// bytes for each: several hundred megabytes in all.
const maxBatch = 500_000

// EvaluateEach evaluates, for each entity in turn, the flags selected by tags in the order of their
// IDs, then the flags named by ID, then the flags named by key. A flag that is selected in two of
// these ways is evaluated twice. It calls use with each result; use must not keep the result,
// because the next evaluation reuses it. A result is recorded before a BatchEncoder sends it, and
// all are when EvaluateEach returns.
//
// The error matches entity.ErrInvalid if the batch is larger than Options.BatchSize or its response
// larger than Options.AnswerBytes, or it is that of batch.Reserve; nothing was evaluated then.
// Otherwise it is the error of ctx, or ErrTooSlow, and use may have been called.
func (s *Service) EvaluateEach(ctx context.Context, batch BatchRequest, use func(*Result)) error {
	targets, err := s.targets(&batch)
	if err != nil {
		return err
	}
	recorder := s.recorder
	if b, ok := recorder.(BatchingRecorder); ok {
		batched := b.Batch()
		defer batched.Flush()
		recorder = batched
		for t := range targets {
			targets[t].answer.records = batched
		}
	}
	result, begun, now := new(Result), time.Time{}, time.Time{}
	made := 0
	for e := range batch.Entities {
		who := &batch.Entities[e]
		for t := range targets {
			if made%clockInterval == 0 || targets[t].flag.isSlow() {
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
			known := result.scratch.known
			*result = targets[t].answer
			if t > 0 {
				result.scratch.share(known)
			}
			result.Timestamp = now
			result.Request.EntityID, result.Request.EntityType = who.EntityID, who.EntityType
			result.Request.EntityContext = who.EntityContext
			if err := s.decide(ctx, targets[t].flag, result, batch.InTurn); err != nil {
				return err
			}
			s.record(result, recorder)
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

// target is a flag of a batch, or nil if it does not exist, and the part of the result that does
// not depend on the entity.
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
	n := answerBytes(batch, targets)
	if n > s.options.AnswerBytes {
		return nil, entity.Invalid("batch of %d entities and %d flags: the answer would have about %d bytes, the limit is %d (FLAGR_EVAL_ANSWER_BYTES); ask for fewer at once, or send less context",
			len(batch.Entities), len(targets), n, s.options.AnswerBytes)
	}
	if batch.Reserve != nil {
		logs, longest := 0, 0
		if s.debug(batch.EnableDebug) {
			for t := range targets {
				bytes := targets[t].flag.logBytes()
				logs, longest = logs+bytes, max(longest, bytes)
			}
		}
		if err := batch.Reserve(min(n+len(batch.Entities)*logs, MaxBatchBuffer) + longest); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

func (s *Service) debug(asked bool) bool { return asked && s.options.DebugEnabled }

func (s *Service) record(result *Result, recorder Recorder) {
	if s.options.Observe != nil {
		s.options.Observe(result)
	}
	if recorder != nil {
		recorder.AsyncRecord(result)
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
