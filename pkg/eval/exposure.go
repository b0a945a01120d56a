package eval

import (
	"context"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Exposure is a client's report that an entity was shown a flag, or one of its variants.
type Exposure struct {
	// FlagID and FlagKey name the flag; one of them is enough. A key may also be the ID in decimal,
	// as in a Request.
	FlagID  int64
	FlagKey string
	// VariantID and VariantKey name a variant of the flag; one of them is enough. If both are
	// empty, the exposure has no variant.
	VariantID  int64
	VariantKey string
	// EntityID must not be empty.
	EntityID, EntityType string
	// EntityContext is kept without a copy, and must not change.
	EntityContext any
	// FlagSnapshotID is the version of the flag that was shown; 0 means the current one.
	FlagSnapshotID int64
	// Timestamp is when it was shown; the zero time means now.
	Timestamp time.Time
}

// ExposureError describes why one exposure was rejected.
type ExposureError struct {
	// Index is the place of the exposure in the request, from 0.
	Index int
	// Err matches entity.ErrInvalid or entity.ErrNotFound.
	Err error
}

// Expose records exposures of flags that have data records enabled, including disabled flags, and
// returns how many it recorded. An invalid exposure is reported and does not prevent the others
// from being recorded. The error matches entity.ErrInvalid if there are more exposures than
// Options.ExposureBatchSize; nothing is recorded then.
func (s *Service) Expose(_ context.Context, exposures []Exposure) (recorded int, refused []ExposureError, err error) {
	if limit := s.options.ExposureBatchSize; limit > 0 && len(exposures) > limit {
		return 0, nil, entity.Invalid("exposures has %d rows, more than the %d allowed (FLAGR_EXPOSURE_BATCH_SIZE)", len(exposures), limit)
	}
	snapshot, now := s.snapshots.Snapshot(), s.options.Now()
	for i := range exposures {
		result, err := snapshot.expose(&exposures[i], now)
		if err != nil {
			refused = append(refused, ExposureError{Index: i, Err: err})
			continue
		}
		if s.recorder != nil && result.DataRecordsEnabled {
			s.recorder.AsyncRecord(result)
			recorded++
		}
	}
	return recorded, refused, nil
}

// expose checks an exposure and returns the result to record.
func (s *Snapshot) expose(e *Exposure, now time.Time) (*Result, error) {
	if e.EntityID == "" {
		return nil, entity.Invalid("entityID is required")
	}
	if entity.Deeper(e.EntityContext, entity.MaxJSONDepth) {
		return nil, entity.Invalid("entityContext nests more than the %d levels of objects and lists allowed", entity.MaxJSONDepth)
	}
	f, err := s.exposed(e.FlagID, e.FlagKey)
	if err != nil {
		return nil, err
	}
	variant, err := exposedVariant(f.source, e.VariantID, e.VariantKey)
	if err != nil {
		return nil, err
	}
	result := &Result{
		RecordSource: SourceExposure,
		Request: Request{
			FlagID:        f.id,
			FlagKey:       f.source.Key,
			EntityID:      e.EntityID,
			EntityType:    e.EntityType,
			EntityContext: e.EntityContext,
		},
		FlagID:             f.id,
		FlagKey:            f.source.Key,
		FlagSnapshotID:     e.FlagSnapshotID,
		FlagTags:           f.tags,
		DataRecordsEnabled: f.source.DataRecordsEnabled,
		Timestamp:          e.Timestamp.UTC(),
	}
	if f.source.EntityType != "" {
		result.Request.EntityType = f.source.EntityType
	}
	if result.FlagSnapshotID == 0 {
		result.FlagSnapshotID = int64(f.source.SnapshotID)
	}
	if e.Timestamp.IsZero() {
		result.Timestamp = now.UTC()
	}
	if variant != nil {
		result.VariantID, result.VariantKey = int64(variant.ID), variant.Key
	}
	return result, nil
}

// exposed returns the flag of an exposure.
func (s *Snapshot) exposed(id int64, key string) (*flag, error) {
	if id == 0 && key == "" {
		return nil, entity.Invalid("flagID or flagKey is required")
	}
	var byID, byKey *flag
	if id != 0 {
		byID = s.byID[id]
	}
	if key != "" {
		byKey = s.find(0, key)
	}
	switch {
	case id != 0 && byID == nil, key != "" && byKey == nil:
		return nil, entity.NotFound("flag not found")
	case id == 0:
		return byKey, nil
	case key != "" && byID != byKey:
		return nil, entity.Invalid("flagID and flagKey refer to different flags")
	default:
		return byID, nil
	}
}

// exposedVariant returns the variant of an exposure, or nil if it names none.
func exposedVariant(f *entity.Flag, id int64, key string) (*entity.Variant, error) {
	var byID, byKey *entity.Variant
	for i := range f.Variants {
		v := &f.Variants[i]
		if id != 0 && int64(v.ID) == id {
			byID = v
		}
		if key != "" && v.Key == key && byKey == nil {
			byKey = v
		}
	}
	switch {
	case id != 0 && byID == nil:
		return nil, entity.Invalid("variantID %d not found on flag", id)
	case key != "" && byID != nil && byID.Key != key:
		return nil, entity.Invalid("variantID %d has the key %q, not %q", id, byID.Key, key)
	case byID != nil:
		return byID, nil
	case key != "" && byKey == nil:
		return nil, entity.Invalid("variantKey %q not found on flag", key)
	default:
		return byKey, nil
	}
}
