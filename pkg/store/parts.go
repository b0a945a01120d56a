package store

import (
	"fmt"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// idsPerQuery keeps lists of ids below the number of parameters that every database takes: older SQLite has 999.
const idsPerQuery = 500

// loadParts fills in variants, segments with their parts, and tags. Soft-deleted parts are left out, also those of a
// deleted flag, which GORM's own preloading would include.
func loadParts(tx *gorm.DB, flags []entity.Flag) error {
	if err := loadTags(tx, flags); err != nil {
		return err
	}
	ids := make([]uint, len(flags))
	for i := range flags {
		ids[i] = flags[i].ID
	}
	variants, err := partsOf[entity.Variant](tx, "flag_id", ids, "id")
	if err != nil {
		return fmt.Errorf("read variants: %w", err)
	}
	segments, err := segmentsOf(tx, ids)
	if err != nil {
		return err
	}
	variantsOf := grouped(variants, func(v entity.Variant) uint { return v.FlagID })
	segmentsOf := grouped(segments, func(s entity.Segment) uint { return s.FlagID })
	for i := range flags {
		flags[i].Variants = orEmpty(variantsOf[flags[i].ID])
		flags[i].Segments = orEmpty(segmentsOf[flags[i].ID])
	}
	return nil
}

// loadTags fills in the tags; variants and segments become empty.
func loadTags(tx *gorm.DB, flags []entity.Flag) error {
	byID := make(map[uint]*entity.Flag, len(flags))
	ids := make([]uint, len(flags))
	for i := range flags {
		ids[i] = flags[i].ID
		byID[ids[i]] = withoutParts(&flags[i])
	}
	for chunk := range slices.Chunk(ids, idsPerQuery) {
		var rows []struct {
			entity.Tag
			OfFlag uint
		}
		err := tx.Model(&entity.Tag{}).Select("tags.*", "flags_tags.flag_id AS of_flag").
			Joins("JOIN flags_tags ON flags_tags.tag_id = tags.id").
			Where("flags_tags.flag_id IN ?", chunk).Order("tags.id").Find(&rows).Error
		if err != nil {
			return fmt.Errorf("read tags: %w", err)
		}
		for _, row := range rows {
			flag := byID[row.OfFlag]
			flag.Tags = append(flag.Tags, row.Tag)
		}
	}
	return nil
}

// segmentsOf reads the segments of flags with their parts, in the order in which they are evaluated.
func segmentsOf(tx *gorm.DB, flagIDs []uint) ([]entity.Segment, error) {
	segments, err := partsOf[entity.Segment](tx, "flag_id", flagIDs, "rank", "id")
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	ids := make([]uint, len(segments))
	for i := range segments {
		ids[i] = segments[i].ID
	}
	constraints, err := partsOf[entity.Constraint](tx, "segment_id", ids, "id")
	if err != nil {
		return nil, fmt.Errorf("read constraints: %w", err)
	}
	distributions, err := partsOf[entity.Distribution](tx, "segment_id", ids, "variant_id", "id")
	if err != nil {
		return nil, fmt.Errorf("read distributions: %w", err)
	}
	constraintsOf := grouped(constraints, func(c entity.Constraint) uint { return c.SegmentID })
	distributionsOf := grouped(distributions, func(d entity.Distribution) uint { return d.SegmentID })
	for i := range segments {
		segments[i].Constraints = orEmpty(constraintsOf[segments[i].ID])
		segments[i].Distributions = orEmpty(distributionsOf[segments[i].ID])
	}
	return segments, nil
}

// partsOf reads the rows whose column has one of the ids; those of one id come in the given order.
func partsOf[T any](tx *gorm.DB, column string, ids []uint, order ...string) ([]T, error) {
	all := []T{}
	for chunk := range slices.Chunk(ids, idsPerQuery) {
		// SQLite takes the index on deleted_at if it can, and so reads the whole table for each chunk.
		query := tx.Unscoped().Where(map[string]any{column: chunk}).Where("COALESCE(deleted_at, NULL) IS NULL")
		for _, name := range order {
			query = query.Order(clause.OrderByColumn{Column: clause.Column{Name: name}}) // quoted: rank is a word of MySQL
		}
		var some []T
		if err := query.Find(&some).Error; err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func grouped[T any](all []T, parent func(T) uint) map[uint][]T {
	groups := make(map[uint][]T)
	for _, one := range all {
		groups[parent(one)] = append(groups[parent(one)], one)
	}
	return groups
}

// orEmpty makes nothing an empty list, so that it becomes [] in JSON.
func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}
