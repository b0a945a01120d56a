package handler

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// The functions below write lists of flags without the generated models and without reflection.
// Tests compare the output of each function byte for byte with that of encoding/json without HTML
// escaping.

// appendFlagModel appends a flag in the form of flagModel.
func appendFlagModel(b []byte, f *entity.Flag) []byte {
	b = append(b, '{')
	b = appendOptionalText(b, `"createdBy":`, f.CreatedBy)
	b = appendBool(append(b, `"dataRecordsEnabled":`...), f.DataRecordsEnabled)
	b = eval.AppendString(append(b, `,"description":`...), f.Description)
	b = appendBool(append(b, `,"enabled":`...), f.Enabled)
	b = append(b, ',')
	b = appendOptionalText(b, `"entityType":`, f.EntityType)
	b = appendOptionalID(b, f.ID)
	b = appendOptionalText(b, `"key":`, f.Key)
	b = appendOptionalText(b, `"notes":`, f.Notes)
	b = appendList(append(b, `"segments":`...), f.Segments, appendSegmentModel)
	b = appendList(append(b, `,"tags":`...), f.Tags, appendTagModel)
	b = append(b, `,"updatedAt":"`...)
	b = strfmt.NormalizeTimeForMarshal(f.UpdatedAt.UTC()).AppendFormat(b, strfmt.MarshalFormat)
	b = append(b, `",`...)
	b = appendOptionalText(b, `"updatedBy":`, f.UpdatedBy)
	b = appendList(append(b, `"variants":`...), f.Variants, appendVariantModel)
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
	return appendSnapshots(make([]byte, 0, size), snapshots)
}

// appendSnapshots appends a history. It returns an error if the stored flag of a snapshot is
// invalid.
func appendSnapshots(b []byte, snapshots []entity.FlagSnapshot) ([]byte, error) {
	b = append(b, '[')
	for i := range snapshots {
		if i > 0 {
			b = append(b, ',')
		}
		f, err := entity.DecodeFlag(snapshots[i].Flag)
		if err != nil {
			return nil, fmt.Errorf("read the flag in snapshot %d: %w", snapshots[i].ID, err)
		}
		b = appendSnapshot(b, &snapshots[i], f)
		if len(snapshots[i].Flag) > budget.LargeBytes {
			runtime.Gosched() // so that small requests do not wait until all are encoded
		}
	}
	return append(b, ']'), nil
}

func appendSnapshot(b []byte, s *entity.FlagSnapshot, f *entity.Flag) []byte {
	b = appendFlagModel(append(b, `{"flag":`...), f)
	b = append(b, ',')
	b = appendOptionalID(b, s.ID)
	b = s.UpdatedAt.UTC().AppendFormat(append(b, `"updatedAt":"`...), time.RFC3339)
	if s.UpdatedBy != "" {
		b = eval.AppendString(append(b, `","updatedBy":`...), s.UpdatedBy)
		return append(b, '}')
	}
	return append(b, `"}`...)
}

func appendSegmentModel(b []byte, s *entity.Segment) []byte {
	b = appendList(append(b, `{"constraints":`...), s.Constraints, appendConstraintModel)
	b = eval.AppendString(append(b, `,"description":`...), s.Description)
	b = appendList(append(b, `,"distributions":`...), s.Distributions, appendDistributionModel)
	b = append(b, ',')
	b = appendOptionalID(b, s.ID)
	b = appendNumber(append(b, `"rank":`...), s.Rank)
	b = appendNumber(append(b, `,"rolloutPercent":`...), s.RolloutPercent)
	return append(b, '}')
}

func appendConstraintModel(b []byte, c *entity.Constraint) []byte {
	b = appendOptionalID(append(b, '{'), c.ID)
	b = eval.AppendString(append(b, `"operator":`...), c.Operator)
	b = eval.AppendString(append(b, `,"property":`...), c.Property)
	b = eval.AppendString(append(b, `,"value":`...), c.Value)
	return append(b, '}')
}

func appendDistributionModel(b []byte, d *entity.Distribution) []byte {
	b = appendOptionalID(append(b, '{'), d.ID)
	b = appendNumber(append(b, `"percent":`...), d.Percent)
	b = appendNumber(append(b, `,"variantID":`...), d.VariantID)
	b = eval.AppendString(append(b, `,"variantKey":`...), d.VariantKey)
	return append(b, '}')
}

func appendTagModel(b []byte, t *entity.Tag) []byte {
	b = appendOptionalID(append(b, '{'), t.ID)
	b = eval.AppendString(append(b, `"value":`...), t.Value)
	return append(b, '}')
}

func appendVariantModel(b []byte, v *entity.Variant) []byte {
	b = append(append(b, `{"attachment":`...), v.Attachment.JSON()...)
	b = append(b, ',')
	b = appendOptionalID(b, v.ID)
	b = eval.AppendString(append(b, `"key":`...), v.Key)
	return append(b, '}')
}

// appendFlagEntity appends a flag in the form of the export, which is that of the struct.
func appendFlagEntity(b []byte, f *entity.Flag) []byte {
	b = appendModel(b, &f.Model)
	b = eval.AppendString(append(b, `,"Key":`...), f.Key)
	b = eval.AppendString(append(b, `,"Description":`...), f.Description)
	b = eval.AppendString(append(b, `,"CreatedBy":`...), f.CreatedBy)
	b = eval.AppendString(append(b, `,"UpdatedBy":`...), f.UpdatedBy)
	b = appendBool(append(b, `,"Enabled":`...), f.Enabled)
	b = appendNullableList(append(b, `,"Segments":`...), f.Segments, appendSegmentEntity)
	b = appendNullableList(append(b, `,"Variants":`...), f.Variants, appendVariantEntity)
	b = appendNullableList(append(b, `,"Tags":`...), f.Tags, appendTagEntity)
	b = appendNumber(append(b, `,"SnapshotID":`...), f.SnapshotID)
	b = eval.AppendString(append(b, `,"Notes":`...), f.Notes)
	b = appendBool(append(b, `,"DataRecordsEnabled":`...), f.DataRecordsEnabled)
	b = eval.AppendString(append(b, `,"EntityType":`...), f.EntityType)
	return append(b, '}')
}

func appendSegmentEntity(b []byte, s *entity.Segment) []byte {
	b = appendModel(b, &s.Model)
	b = appendNumber(append(b, `,"FlagID":`...), s.FlagID)
	b = eval.AppendString(append(b, `,"Description":`...), s.Description)
	b = appendNumber(append(b, `,"Rank":`...), s.Rank)
	b = appendNumber(append(b, `,"RolloutPercent":`...), s.RolloutPercent)
	b = appendNullableList(append(b, `,"Constraints":`...), s.Constraints, appendConstraintEntity)
	b = appendNullableList(append(b, `,"Distributions":`...), s.Distributions, appendDistributionEntity)
	return append(b, '}')
}

func appendConstraintEntity(b []byte, c *entity.Constraint) []byte {
	b = appendModel(b, &c.Model)
	b = appendNumber(append(b, `,"SegmentID":`...), c.SegmentID)
	b = eval.AppendString(append(b, `,"Property":`...), c.Property)
	b = eval.AppendString(append(b, `,"Operator":`...), c.Operator)
	b = eval.AppendString(append(b, `,"Value":`...), c.Value)
	return append(b, '}')
}

func appendDistributionEntity(b []byte, d *entity.Distribution) []byte {
	b = appendModel(b, &d.Model)
	b = appendNumber(append(b, `,"SegmentID":`...), d.SegmentID)
	b = appendNumber(append(b, `,"VariantID":`...), d.VariantID)
	b = eval.AppendString(append(b, `,"VariantKey":`...), d.VariantKey)
	b = appendNumber(append(b, `,"Percent":`...), d.Percent)
	return append(b, '}')
}

func appendVariantEntity(b []byte, v *entity.Variant) []byte {
	b = appendModel(b, &v.Model)
	b = appendNumber(append(b, `,"FlagID":`...), v.FlagID)
	b = eval.AppendString(append(b, `,"Key":`...), v.Key)
	b = append(append(b, `,"Attachment":`...), v.Attachment.JSON()...)
	return append(b, '}')
}

func appendTagEntity(b []byte, t *entity.Tag) []byte {
	b = appendModel(b, &t.Model)
	b = eval.AppendString(append(b, `,"Value":`...), t.Value)
	return append(b, `,"Flags":null}`...) // never set
}

// appendModel appends the first fields of a row.
func appendModel(b []byte, m *entity.Model) []byte {
	b = appendNumber(append(b, `{"ID":`...), m.ID)
	b = appendTime(append(b, `,"CreatedAt":`...), m.CreatedAt)
	b = appendTime(append(b, `,"UpdatedAt":`...), m.UpdatedAt)
	b = append(b, `,"DeletedAt":`...)
	if !m.DeletedAt.Valid {
		return append(b, "null"...)
	}
	return appendTime(b, m.DeletedAt.Time)
}

// appendTime appends a time, or null if RFC 3339 cannot represent it, for example after the year
// 9999.
func appendTime(b []byte, t time.Time) []byte {
	start := len(b)
	if b, err := t.AppendText(append(b, '"')); err == nil {
		return append(b, '"')
	}
	return append(b[:start], "null"...)
}

// appendList appends a list. A list without elements becomes [], even if it is nil.
func appendList[T any](b []byte, list []T, one func([]byte, *T) []byte) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, &list[i])
	}
	return append(b, ']')
}

// appendNullableList appends a list. A nil list becomes null.
func appendNullableList[T any](b []byte, list []T, one func([]byte, *T) []byte) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	return appendList(b, list, one)
}

// appendOptionalText appends a member and a comma, or nothing if value is empty.
func appendOptionalText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return append(eval.AppendString(append(b, name...), value), ',')
}

func appendOptionalID(b []byte, id uint) []byte {
	if id == 0 {
		return b
	}
	return append(appendNumber(append(b, `"id":`...), id), ',')
}

func appendNumber(b []byte, n uint) []byte { return strconv.AppendUint(b, uint64(n), 10) }

func appendBool(b []byte, value bool) []byte { return strconv.AppendBool(b, value) }
