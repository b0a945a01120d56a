package metrics

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/trace"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// Names of OpenTelemetry's semantic conventions for feature flags, version 1.44.0, and some of this
// server.
const (
	eventName       = "feature_flag.evaluation"
	attrKey         = "feature_flag.key"
	attrVariant     = "feature_flag.result.variant"
	attrReason      = "feature_flag.result.reason"
	attrVersion     = "feature_flag.version"
	attrProvider    = "feature_flag.provider.name"
	attrSetID       = "feature_flag.set.id"
	attrContextID   = "feature_flag.context.id"
	attrErrorType   = "error.type"
	attrFlagID      = "flagr.flag.id"
	attrSegmentID   = "flagr.segment.id"
	attrVariantID   = "flagr.variant.id"
	attrEntityType  = "flagr.entity.type"
	attrFlagrReason = "flagr.reason"
	attrCount       = "flagr.evaluation.count"
)

// EventMode is which evaluations are sent as events.
type EventMode uint8

// The modes.
const (
	// EventsOff sends none.
	EventsOff EventMode = iota
	// EventsOfSampled sends those of requests with a sampled span.
	EventsOfSampled
	// EventsOfAll sends all up to a limit.
	EventsOfAll
)

// ContextIDMode is how events identify an entity.
type ContextIDMode uint8

// The modes.
const (
	// ContextIDLeftOut omits it.
	ContextIDLeftOut ContextIDMode = iota
	// ContextIDHashed sends sha256_ and the hexadecimal digits of the hash.
	ContextIDHashed
	// ContextIDClear sends the ID.
	ContextIDClear
)

// TraceOptions configure a Tracer.
type TraceOptions struct {
	Events EventMode
	// EventsPerSecond limits the events of a flag with EventsOfAll; 0 means no limit.
	EventsPerSecond int
	ContextID       ContextIDMode
	// FlagSetID is the name of the set of flags; empty omits it.
	FlagSetID string
}

// Tracer is an eval.Tracer. It adds attributes to the spans of requests, and sends evaluations as
// log events.
type Tracer struct {
	logs             log.Logger
	options          TraceOptions
	limiter          *eval.Limiter // nil: no limit
	emitted, dropped atomic.Uint64
}

var _ eval.Tracer = (*Tracer)(nil)

// NewTracer returns a Tracer that sends events to the log exporter of NewOpenTelemetry.
func (o *OpenTelemetry) NewTracer(options TraceOptions) *Tracer {
	t := &Tracer{logs: o.logs, options: options}
	if options.EventsPerSecond > 0 {
		t.limiter = eval.NewLimiter(options.EventsPerSecond)
	}
	return t
}

// Events returns the number of events sent, and of events beyond the limit.
func (t *Tracer) Events() (emitted, dropped uint64) { return t.emitted.Load(), t.dropped.Load() }

// Evaluated implements eval.Tracer.
func (t *Tracer) Evaluated(ctx context.Context, r *eval.Result, alone bool) {
	span := trace.SpanFromContext(ctx)
	sampled := span.SpanContext().IsSampled()
	if alone && sampled && span.IsRecording() {
		span.SetAttributes(spanAttributes(r)...)
	}
	switch t.options.Events {
	case EventsOfSampled:
		if sampled {
			t.emit(ctx, r)
		}
	case EventsOfAll:
		if t.limiter != nil && !t.limiter.Allow(r) {
			t.dropped.Add(1)
			return
		}
		t.emit(ctx, r)
	default:
	}
}

// EvaluatedSeveral implements eval.Tracer.
func (t *Tracer) EvaluatedSeveral(ctx context.Context, n int) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(attribute.Int(attrCount, n))
	}
}

// spanAttributes returns the attributes of a request for one flag.
func spanAttributes(r *eval.Result) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 0, 5)
	attributes = append(attributes, attribute.String(attrKey, keyOf(r)), attribute.String(attrReason, reasonOf(r)))
	if r.VariantKey != "" {
		attributes = append(attributes, attribute.String(attrVariant, r.VariantKey))
	}
	if r.FlagSnapshotID != 0 {
		attributes = append(attributes, attribute.String(attrVersion, strconv.FormatInt(r.FlagSnapshotID, 10)))
	}
	if kind := errorType(r.Reason); kind != "" {
		attributes = append(attributes, attribute.String(attrErrorType, kind))
	}
	return attributes
}

// keyOf returns the flag's key, or the requested key if the flag is unknown.
func keyOf(r *eval.Result) string {
	if r.FlagKey == "" && r.FlagID != 0 {
		return strconv.FormatInt(r.FlagID, 10)
	}
	key := r.FlagKey
	if r.Reason == eval.FlagNotFound {
		key = strings.Clone(key) // of the request
	}
	return strings.ToValidUTF8(key, "?")
}

func reasonOf(r *eval.Result) string { return strings.ToLower(r.OpenFeatureReason()) }

// emit sends one event. It does not block: a full queue drops its oldest record.
func (t *Tracer) emit(ctx context.Context, r *eval.Result) {
	var record log.Record
	record.SetEventName(eventName)
	record.SetTimestamp(r.Timestamp)
	record.SetSeverity(log.SeverityInfo)
	record.AddAttributes(attribute.String(attrKey, keyOf(r)), attribute.String(attrReason, reasonOf(r)), attribute.String(attrProvider, "Flagr"),
		attribute.String(attrFlagrReason, reasonLabel(r.Reason)))
	text := func(name, value string) {
		if value != "" {
			record.AddAttributes(attribute.String(name, strings.ToValidUTF8(strings.Clone(value), "?")))
		}
	}
	number := func(name string, value int64) {
		if value != 0 {
			record.AddAttributes(attribute.Int64(name, value))
		}
	}
	text(attrVariant, r.VariantKey)
	text(attrErrorType, errorType(r.Reason))
	if r.FlagSnapshotID != 0 {
		text(attrVersion, strconv.FormatInt(r.FlagSnapshotID, 10))
	}
	text(attrSetID, t.options.FlagSetID)
	text(attrContextID, t.contextID(r.Request.EntityID))
	if r.Reason != eval.FlagNotFound {
		number(attrFlagID, r.FlagID)
	}
	number(attrSegmentID, r.SegmentID)
	number(attrVariantID, r.VariantID)
	text(attrEntityType, r.Request.EntityType)
	t.logs.Emit(ctx, record)
	t.emitted.Add(1)
}

func (t *Tracer) contextID(id string) string {
	switch {
	case id == "":
		return ""
	case t.options.ContextID == ContextIDClear:
		return id
	case t.options.ContextID == ContextIDHashed:
		sum := sha256.Sum256([]byte(id))
		return "sha256_" + hex.EncodeToString(sum[:])
	default:
		return ""
	}
}
