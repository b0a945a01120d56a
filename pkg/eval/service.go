package eval

import (
	"context"
	"time"
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
	// are tags).
	BatchSize int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Service evaluates and records. It is the only way to an evaluation, so that none is left unrecorded.
type Service struct{}

// NewService returns a Service. A nil recorder records nothing.
func NewService(snapshots Source, recorder Recorder, o Options) *Service { panic("unfinished") }

// Evaluate answers one request.
func (s *Service) Evaluate(ctx context.Context, request Request) *Result { panic("unfinished") }

// EvaluateBatch answers, for each entity in turn, for the flags selected by tags in the order of their ids, then for
// those named by id, then for those named by key. The error matches entity.ErrInvalid when the batch is larger than
// Options.BatchSize; otherwise it is that of ctx.
func (s *Service) EvaluateBatch(ctx context.Context, batch BatchRequest) ([]*Result, error) {
	panic("unfinished")
}
