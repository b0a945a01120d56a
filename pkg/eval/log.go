package eval

import (
	"context"
	"log/slog"
)

// maxLinesPerSecond limits the lines per second over all flags: a batch of 2,000 flags may write
// one line for each.
const maxLinesPerSecond = 2000

// Log logs evaluations at level info, up to a limit for each flag and second, so that a busy flag
// neither fills the log nor slows down. Exposures are not logged.
type Log struct {
	logger  *slog.Logger
	limiter Limiter
	all     Window // of all lines
}

// NewLog returns a Log of at most perSecond lines for each flag and second.
func NewLog(logger *slog.Logger, perSecond int) *Log {
	return &Log{logger: logger, limiter: Limiter{perSecond: boundPerSecond(perSecond)}}
}

// Observe logs an evaluation, unless its flag has reached the limit of this second.
func (l *Log) Observe(r *Result) {
	if !l.limiter.Allow(r) || !l.all.Take(r.Timestamp.Unix(), maxLinesPerSecond) {
		return
	}
	attributes := []slog.Attr{
		slog.Int64("flag_id", r.FlagID),
		slog.String("flag_key", r.FlagKey),
		slog.Int64("flag_snapshot_id", r.FlagSnapshotID),
		slog.String("entity_id", r.Request.EntityID),
		slog.String("entity_type", r.Request.EntityType),
		slog.Int64("segment_id", r.SegmentID),
		slog.Int64("variant_id", r.VariantID),
		slog.String("variant_key", r.VariantKey),
	}
	if r.Message != "" {
		attributes = append(attributes, slog.String("message", r.Message))
	}
	l.logger.LogAttrs(context.Background(), slog.LevelInfo, "evaluation", attributes...)
}
