// Package eval decides which variant an entity gets. Compile turns flags into an immutable
// Snapshot, Snapshot.Evaluate evaluates without locks or I/O, and Service also records evaluations.
package eval

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Operators of a request for flags by tags. An empty operator means TagsAny.
const (
	// TagsAny selects the flags that have at least one of the tags.
	TagsAny = "ANY"
	// TagsAll selects the flags that have all of the tags.
	TagsAll = "ALL"
)

// Request is a request for the variant of one flag for one entity.
type Request struct {
	// FlagID is looked up first; if it is 0, only FlagKey is used.
	FlagID int64
	// FlagKey is a flag's key or, if no flag has that key, its ID in decimal.
	FlagKey string
	// EntityID determines the bucket. If it is empty, a random ID is used, unless EntityIDRequired
	// is set.
	EntityID string
	// EntityIDRequired forbids random IDs. Without an ID, the result is EntityIDMissing if the
	// bucket would decide.
	EntityIDRequired bool

	EntityType string
	// EntityContext is decoded JSON with json.Number for numbers, or an *Object. Only an *Object
	// and a map[string]any can match constraints. A map and its contents must never change, because
	// recorders keep it. An *Object, and the other strings of the request, may change after the
	// evaluation.
	EntityContext any
	// EnableDebug requests Result.SegmentLogs.
	EnableDebug bool
	// FlagTags and FlagTagsOperator do not select a flag here; they are only copied to the result.
	FlagTags         []string
	FlagTagsOperator string
	// PlainTexts promises that JSON does not escape any string of the request, as IsPlain reports.
	// It saves another check.
	PlainTexts bool
	// InTurn says that the caller has one of Options.Turns, so that the evaluation takes none.
	InTurn bool
}

// BatchRequest is a request for every named flag and every entity.
type BatchRequest struct {
	Entities    []Entity
	EnableDebug bool
	// FlagIDs and FlagKeys name flags; repeated names count once.
	FlagIDs  []int64
	FlagKeys []string
	// FlagTags selects flags by their tags, according to FlagTagsOperator (TagsAny when empty).
	FlagTags         []string
	FlagTagsOperator string
	// PlainTexts is like Request.PlainTexts, for the strings of the batch and of its entities.
	PlainTexts bool
	// InTurn is like Request.InTurn.
	InTurn bool
	// Reserve reserves the memory of the response in a BatchEncoder with an output. It is called
	// before the first evaluation, and its error ends the batch. It may be nil.
	Reserve func(bytes int) error
}

// Entity is an entity of a BatchRequest; its fields are like those of Request.
type Entity struct {
	EntityID, EntityType string
	EntityContext        any
}

// Reason is how an evaluation ended.
type Reason uint8

// The reasons. Only NoMatch, HeldOut and Matched are decisions about an entity.
const (
	// FlagNotFound means that no flag has the requested ID or key.
	FlagNotFound Reason = iota + 1
	// FlagDisabled means that the flag is off.
	FlagDisabled
	// NoSegments means that the flag has no segments.
	NoSegments
	// NoMatch means that no segment matched.
	NoMatch
	// HeldOut means that a segment matched, but its rollout or its distribution assigned no
	// variant.
	HeldOut
	// Matched means that a variant was assigned.
	Matched
	// EntityIDMissing means that the bucket would decide, but the request has no entity ID and
	// random IDs are forbidden.
	EntityIDMissing
)

// Asked is a set of bits about how a flag was asked for.
type Asked uint8

// The bits of Asked.
const (
	// AskedByTag: the request selected the flag by a tag, or all flags, and did not name it.
	AskedByTag Asked = 1 << iota
	// AskedWithoutEntityID: the request had no entity ID, so a random one was used.
	AskedWithoutEntityID
	// AskedUnevaluable: a constraint could not be evaluated, because a property was missing or of
	// another type.
	AskedUnevaluable
)

// RecordSource is the kind of event that a Result reports.
type RecordSource uint8

// The sources of records.
const (
	// SourceEvaluation is an evaluation by this server.
	SourceEvaluation RecordSource = iota
	// SourceExposure is a client's report that an entity was shown a variant.
	SourceExposure
)

// String returns the source's name in records: evaluation or exposure.
func (s RecordSource) String() string {
	if s == SourceExposure {
		return "exposure"
	}
	return "evaluation"
}

// Result is the result of a Request. It belongs to the caller of Service. Recorders and observers
// may use it only during a call, and copy what they need.
type Result struct {
	// RecordSource is SourceEvaluation for the result of a Request. An exposure is also recorded as
	// a Result, without a Reason, a segment and an attachment.
	RecordSource RecordSource
	// Request is the evaluated request, with the random entity ID and the flag's entity type.
	Request Request
	// FlagID, FlagKey, FlagSnapshotID and FlagTags describe the flag. If no flag was found, FlagID
	// and FlagKey are those of the request. FlagTags belongs to the snapshot and must not be
	// changed.
	FlagID         int64
	FlagKey        string
	FlagSnapshotID int64
	FlagTags       []string
	// SegmentID, VariantID, VariantKey and VariantAttachment are set only if Reason is Matched. An
	// exposure of a variant has VariantID and VariantKey.
	SegmentID         int64
	VariantID         int64
	VariantKey        string
	VariantAttachment entity.Attachment
	Reason            Reason
	// HeldOutSegmentID is the segment that matched if Reason is HeldOut, else 0. It is not part of
	// responses.
	HeldOutSegmentID int64
	// Asked is how the flag was asked for. It is not part of responses.
	Asked Asked
	// DataRecordsEnabled reports whether the flag is recorded.
	DataRecordsEnabled bool
	// Timestamp is the time of the evaluation, in UTC.
	Timestamp time.Time
	// Message explains why the flag itself gives no variant; otherwise it is empty.
	Message string
	// SegmentLogs has one entry for each segment that was tried. It is nil without debugging.
	SegmentLogs []SegmentLog

	flag    *flag  // for Encoder; nil if no flag was found, and for exposures
	given   *share // if Matched
	scratch scratch
	records BatchRecorder // of a batch; nil if nothing is pending
}

// Copy returns a copy that may be kept. It does not have what the evaluation converted of the
// context, which can take 20 times the memory of its text.
func (r *Result) Copy() Result {
	c := *r
	c.scratch, c.records = scratch{}, nil
	return c
}

// Recorded reports whether recorders use the result: it is an exposure, or a decision about an
// entity, and its flag is recorded.
func (r *Result) Recorded() bool {
	if !r.DataRecordsEnabled {
		return false
	}
	switch r.Reason {
	case NoMatch, HeldOut, Matched:
		return true
	default:
		return r.RecordSource == SourceExposure
	}
}

// SegmentLog explains what happened in one segment.
type SegmentLog struct {
	SegmentID int64
	Message   string
}
