// Package eval decides which variant an entity gets. Compile turns flags into an immutable Snapshot, Snapshot.Evaluate
// answers from it without locks or I/O, and Service adds the recording of what was decided.
package eval

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Operators of a request for flags by tags. An empty operator means TagsAny.
const (
	// TagsAny selects the flags that carry at least one of the tags.
	TagsAny = "ANY"
	// TagsAll selects the flags that carry every one of the tags.
	TagsAll = "ALL"
)

// Request asks for the variant of one flag for one entity.
type Request struct {
	// FlagID is looked up first; 0 asks by FlagKey alone.
	FlagID int64
	// FlagKey is a flag's key or, when no flag has that key, its id in decimal.
	FlagKey string
	// EntityID decides the bucket. When it is empty, an id is made up, unless EntityIDRequired is set.
	EntityID string
	// EntityIDRequired forbids making up an id. Without an id the result is EntityIDMissing if the bucket would decide.
	EntityIDRequired bool

	EntityType string
	// EntityContext is decoded JSON with json.Number for numbers, or an *Object. Only that and a map[string]any can match
	// constraints. A map and what is in it must never change: recorders keep it. An *Object may change after the evaluation,
	// its strings may not.
	EntityContext any
	// EnableDebug asks for Result.SegmentLogs.
	EnableDebug bool
	// FlagTags and FlagTagsOperator do not select a flag here; they are echoed.
	FlagTags         []string
	FlagTagsOperator string
	// PlainTexts promises that all texts of the request stand in JSON as they are, as IsPlain says. It saves looking again.
	PlainTexts bool
}

// BatchRequest asks for every named flag, for every entity.
type BatchRequest struct {
	Entities    []Entity
	EnableDebug bool
	// FlagIDs and FlagKeys name flags; repeated ones count once.
	FlagIDs  []int64
	FlagKeys []string
	// FlagTags selects flags by their tags, according to FlagTagsOperator (TagsAny when empty).
	FlagTags         []string
	FlagTagsOperator string
	// PlainTexts is that of Request, for the texts of the batch and of its entities.
	PlainTexts bool
}

// Entity is one of the entities of a BatchRequest; its fields are those of Request.
type Entity struct {
	EntityID, EntityType string
	EntityContext        any
}

// Reason tells how an evaluation ended.
type Reason uint8

// The reasons. Only NoMatch, HeldOut and Matched are decisions about an entity.
const (
	// FlagNotFound means that no flag has the asked id or key.
	FlagNotFound Reason = iota + 1
	// FlagDisabled means that the flag is switched off.
	FlagDisabled
	// NoSegments means that the flag has nobody to decide about.
	NoSegments
	// NoMatch means that no segment matched.
	NoMatch
	// HeldOut means that a segment matched, and that its rollout or its distribution gave no variant.
	HeldOut
	// Matched means that a variant was assigned.
	Matched
	// EntityIDMissing means that the bucket would decide, the request has no entity id, and none may be made up.
	EntityIDMissing
)

// Asked is a set of bits that says how a flag was asked for.
type Asked uint8

// The bits of Asked.
const (
	// AskedByTag: the request selected the flag by a tag, or all flags at once, and did not name it.
	AskedByTag Asked = 1 << iota
	// AskedWithoutEntityID: the request had no entity id, so one was made up.
	AskedWithoutEntityID
	// AskedUnevaluable: a constraint could not be evaluated, because a property was missing or of another type.
	AskedUnevaluable
)

// RecordSource tells what a Result reports.
type RecordSource uint8

// The sources of records.
const (
	// SourceEvaluation is a decision of this server.
	SourceEvaluation RecordSource = iota
	// SourceExposure is a client's word that an entity was shown a variant.
	SourceExposure
)

// String is the source as records name it: evaluation or exposure.
func (s RecordSource) String() string {
	if s == SourceExposure {
		return "exposure"
	}
	return "evaluation"
}

// Result is the answer to a Request. It belongs to the caller of Service; recorders and observers see it during a call
// and copy what they need.
type Result struct {
	// RecordSource is SourceEvaluation for every answer to a Request. An exposure is recorded as a Result, too: it has
	// neither a Reason, for nothing was decided, nor a segment and an attachment.
	RecordSource RecordSource
	// Request is the request as used: with the made-up entity id and the flag's entity type.
	Request Request
	// FlagID, FlagKey, FlagSnapshotID and FlagTags are those of the flag that was found. When there is none, FlagID and
	// FlagKey repeat what was asked for. FlagTags belongs to the snapshot: read it only.
	FlagID         int64
	FlagKey        string
	FlagSnapshotID int64
	FlagTags       []string
	// SegmentID, VariantID, VariantKey and VariantAttachment are set only when Reason is Matched; but an exposure that
	// names a variant has its VariantID and VariantKey. VariantAttachment belongs to the snapshot: read it only.
	SegmentID         int64
	VariantID         int64
	VariantKey        string
	VariantAttachment entity.Attachment
	Reason            Reason
	// HeldOutSegmentID is the segment that matched if Reason is HeldOut, else 0. Answers do not have it.
	HeldOutSegmentID int64
	// Asked says how the flag was asked for. Answers do not have it.
	Asked Asked
	// DataRecordsEnabled is the flag's switch for recording.
	DataRecordsEnabled bool
	// Timestamp is when the evaluation happened, in UTC.
	Timestamp time.Time
	// Message explains a result that has no variant because of the flag itself; else it is empty.
	Message string
	// SegmentLogs has one entry for each segment that was tried. It is nil unless debugging.
	SegmentLogs []SegmentLog

	flag  *flag  // that was found, for Encoder; nil if there was none, and for exposures
	given *share // when Matched
	work  int    // see properties
}

// Recorded reports whether the result belongs into records: it is an exposure, or a decision about an entity, and its flag
// is recorded.
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

// SegmentLog explains, for a person, what happened in one segment.
type SegmentLog struct {
	SegmentID int64
	Message   string
}
