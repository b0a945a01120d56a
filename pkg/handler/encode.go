package handler

import (
	"context"
	"runtime"
	"strconv"
	"time"

	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// The functions below write flags in the form of the generated models, without them and without
// reflection. Tests compare the output of each function byte for byte with that of encoding/json
// without HTML escaping.

// appendFlagModel appends a flag in the form of models.Flag.
func appendFlagModel(b []byte, f *entity.Flag) []byte {
	b = append(b, '{')
	b = appendOptionalText(b, `"createdBy":`, f.CreatedBy)
	b = strconv.AppendBool(append(b, `"dataRecordsEnabled":`...), f.DataRecordsEnabled)
	b = entity.AppendString(append(b, `,"description":`...), f.Description)
	b = strconv.AppendBool(append(b, `,"enabled":`...), f.Enabled)
	b = append(b, ',')
	b = appendOptionalText(b, `"entityType":`, f.EntityType)
	b = appendOptionalID(b, f.ID)
	b = appendOptionalText(b, `"key":`, f.Key)
	b = appendOptionalText(b, `"notes":`, f.Notes)
	b = entity.AppendList(append(b, `"segments":`...), f.Segments, appendSegmentModel)
	b = entity.AppendList(append(b, `,"tags":`...), f.Tags, appendTagModel)
	if f.Unreadable != "" {
		b = entity.AppendString(append(b, `,"unreadable":`...), f.Unreadable)
	}
	b = append(b, `,"updatedAt":"`...)
	b = strfmt.NormalizeTimeForMarshal(f.UpdatedAt.UTC()).AppendFormat(b, strfmt.MarshalFormat)
	b = append(b, `",`...)
	b = appendOptionalText(b, `"updatedBy":`, f.UpdatedBy)
	b = entity.AppendList(append(b, `"variants":`...), f.Variants, appendVariantModel)
	return append(b, '}')
}

// encodeSnapshots encodes a history. A large one waits for its turn.
func (h *Handler) encodeSnapshots(ctx context.Context, snapshots []entity.FlagSnapshot) ([]byte, error) {
	size := 0
	for i := range snapshots {
		size += len(snapshots[i].Flag)
	}
	turn, err := h.turnFor(ctx, size, "the snapshots were not encoded")
	if err != nil {
		return nil, err
	}
	defer turn.End()
	return appendSnapshots(make([]byte, 0, size), snapshots), nil
}

// appendSnapshots appends a history. A snapshot that is not the JSON of a flag says so.
func appendSnapshots(b []byte, snapshots []entity.FlagSnapshot) []byte {
	b = append(b, '[')
	for i := range snapshots {
		if i > 0 {
			b = append(b, ',')
		}
		f, err := entity.DecodeFlag(snapshots[i].Flag)
		if err != nil {
			f = &entity.Flag{Unreadable: "the snapshot is not the JSON of a flag"}
			f.ID, f.UpdatedAt = snapshots[i].FlagID, snapshots[i].UpdatedAt
		}
		b = appendSnapshot(b, &snapshots[i], f)
		if len(snapshots[i].Flag) > budget.LargeBytes {
			runtime.Gosched() // so that small requests do not wait until all are encoded
		}
	}
	return append(b, ']')
}

func appendSnapshot(b []byte, s *entity.FlagSnapshot, f *entity.Flag) []byte {
	b = appendFlagModel(append(b, `{"flag":`...), f)
	b = append(b, ',')
	b = appendOptionalID(b, s.ID)
	b = s.UpdatedAt.UTC().AppendFormat(append(b, `"updatedAt":"`...), time.RFC3339)
	if s.UpdatedBy != "" {
		b = entity.AppendString(append(b, `","updatedBy":`...), s.UpdatedBy)
		return append(b, '}')
	}
	return append(b, `"}`...)
}

func appendSegmentModel(b []byte, s *entity.Segment) []byte {
	b = entity.AppendList(append(b, `{"constraints":`...), s.Constraints, appendConstraintModel)
	b = entity.AppendString(append(b, `,"description":`...), s.Description)
	b = entity.AppendList(append(b, `,"distributions":`...), s.Distributions, appendDistributionModel)
	b = append(b, ',')
	b = appendOptionalID(b, s.ID)
	b = appendNumber(append(b, `"rank":`...), s.Rank)
	b = appendNumber(append(b, `,"rolloutPercent":`...), s.RolloutPercent)
	return append(b, '}')
}

func appendConstraintModel(b []byte, c *entity.Constraint) []byte {
	b = appendOptionalID(append(b, '{'), c.ID)
	b = entity.AppendString(append(b, `"operator":`...), c.Operator)
	b = entity.AppendString(append(b, `,"property":`...), c.Property)
	b = entity.AppendString(append(b, `,"value":`...), c.Value)
	return append(b, '}')
}

func appendDistributionModel(b []byte, d *entity.Distribution) []byte {
	b = appendOptionalID(append(b, '{'), d.ID)
	b = appendNumber(append(b, `"percent":`...), d.Percent)
	b = appendNumber(append(b, `,"variantID":`...), d.VariantID)
	b = entity.AppendString(append(b, `,"variantKey":`...), d.VariantKey)
	return append(b, '}')
}

func appendTagModel(b []byte, t *entity.Tag) []byte {
	b = appendOptionalID(append(b, '{'), t.ID)
	b = entity.AppendString(append(b, `"value":`...), t.Value)
	return append(b, '}')
}

func appendVariantModel(b []byte, v *entity.Variant) []byte {
	b = append(append(b, `{"attachment":`...), v.Attachment.JSON()...)
	b = append(b, ',')
	b = appendOptionalID(b, v.ID)
	b = entity.AppendString(append(b, `"key":`...), v.Key)
	return append(b, '}')
}

// appendOptionalText appends a member and a comma, or nothing if value is empty.
func appendOptionalText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return append(entity.AppendString(append(b, name...), value), ',')
}

func appendOptionalID(b []byte, id uint) []byte {
	if id == 0 {
		return b
	}
	return append(appendNumber(append(b, `"id":`...), id), ',')
}

func appendNumber(b []byte, n uint) []byte { return strconv.AppendUint(b, uint64(n), 10) }
