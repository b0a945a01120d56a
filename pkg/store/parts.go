package store

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"gorm.io/gorm"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// loadParts fills in variants, segments with their parts, and tags. Soft-deleted parts are left out, also those of a
// deleted flag, which GORM's own preloading would include.
func loadParts(tx *gorm.DB, flags []entity.Flag, how reading) error {
	if err := loadTags(tx, flags, how); err != nil {
		return err
	}
	ids := make([]uint, len(flags))
	for i := range flags {
		ids[i] = flags[i].ID
	}
	variants, err := partsOf(tx, variantColumns(), how, "flag_id", ids, compareVariants)
	if err != nil {
		return fmt.Errorf("read variants: %w", err)
	}
	segments, err := segmentsOf(tx, ids, how)
	if err != nil {
		return err
	}
	variantsOf := grouped(variants, func(v *entity.Variant) uint { return v.FlagID })
	segmentsOf := grouped(segments, func(s *entity.Segment) uint { return s.FlagID })
	for i := range flags {
		flags[i].Variants = orEmpty(variantsOf[flags[i].ID])
		flags[i].Segments = orEmpty(segmentsOf[flags[i].ID])
	}
	return nil
}

// loadTags fills in the tags, in the order of their ids; variants and segments become empty.
func loadTags(tx *gorm.DB, flags []entity.Flag, how reading) error {
	byID := make(map[uint]*entity.Flag, len(flags))
	ids := make([]uint, len(flags))
	for i := range flags {
		ids[i] = flags[i].ID
		byID[ids[i]] = withoutParts(&flags[i])
	}
	var links []flagTag
	for chunk := range inChunks(ids) {
		some, err := find(tx.Where("flag_id IN ?", chunk).Order("tag_id"), flagTagColumns(), how)
		if err != nil {
			return fmt.Errorf("read which flags have which tags: %w", err)
		}
		links = append(links, some...)
	}
	tags, err := tagsOf(tx, links, how)
	if err != nil {
		return fmt.Errorf("read tags: %w", err)
	}
	for _, link := range links {
		if tag, ok := tags[link.TagID]; ok {
			flag := byID[link.FlagID]
			flag.Tags = append(flag.Tags, tag)
		}
	}
	return nil
}

// tagsOf reads the tags of the links, without those that are deleted.
func tagsOf(tx *gorm.DB, links []flagTag, how reading) (map[uint]entity.Tag, error) {
	tags := map[uint]entity.Tag{}
	for _, link := range links {
		tags[link.TagID] = entity.Tag{}
	}
	ids := slices.Sorted(maps.Keys(tags))
	clear(tags)
	for chunk := range inChunks(ids) {
		some, err := find(tx.Where("id IN ?", chunk), tagColumns(), how)
		if err != nil {
			return nil, err
		}
		for i := range some {
			tags[some[i].ID] = some[i]
		}
	}
	return tags, nil
}

// segmentsOf reads the segments of flags with their parts, in the order in which they are evaluated.
func segmentsOf(tx *gorm.DB, flagIDs []uint, how reading) ([]entity.Segment, error) {
	segments, err := partsOf(tx, segmentColumns(), how, "flag_id", flagIDs, compareSegments)
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	ids := make([]uint, len(segments))
	for i := range segments {
		ids[i] = segments[i].ID
	}
	constraints, err := partsOf(tx, constraintColumns(), how, "segment_id", ids, compareConstraints)
	if err != nil {
		return nil, fmt.Errorf("read constraints: %w", err)
	}
	distributions, err := partsOf(tx, distributionColumns(), how, "segment_id", ids, compareDistributions)
	if err != nil {
		return nil, fmt.Errorf("read distributions: %w", err)
	}
	constraintsOf := grouped(constraints, func(c *entity.Constraint) uint { return c.SegmentID })
	distributionsOf := grouped(distributions, func(d *entity.Distribution) uint { return d.SegmentID })
	for i := range segments {
		segments[i].Constraints = orEmpty(constraintsOf[segments[i].ID])
		segments[i].Distributions = orEmpty(distributionsOf[segments[i].ID])
	}
	return segments, nil
}

// partsOf reads the rows whose column has one of the ids. Rows of one id come in the order of compare, which must compare
// that column first. They are sorted here: SQLite would need longer, and they nearly are in that order.
func partsOf[T any](tx *gorm.DB, of columnsOf[T], how reading, column string, ids []uint, compare func(a, b *T) int) ([]T, error) {
	all := []T{}
	for chunk := range inChunks(ids) {
		// SQLite takes the index on deleted_at if it can, and so reads the whole table for each chunk.
		query := tx.Unscoped().Where(map[string]any{column: chunk}).Where("COALESCE(deleted_at, NULL) IS NULL")
		some, err := find(query, of, how)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(some, func(a, b T) int { return compare(&a, &b) })
		all = append(all, some...)
	}
	return all, nil
}

func compareVariants(a, b *entity.Variant) int {
	return cmp.Or(cmp.Compare(a.FlagID, b.FlagID), cmp.Compare(a.ID, b.ID))
}

// compareSegments has the order in which the segments of a flag are evaluated.
func compareSegments(a, b *entity.Segment) int {
	return cmp.Or(cmp.Compare(a.FlagID, b.FlagID), cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID))
}

func compareConstraints(a, b *entity.Constraint) int {
	return cmp.Or(cmp.Compare(a.SegmentID, b.SegmentID), cmp.Compare(a.ID, b.ID))
}

func compareDistributions(a, b *entity.Distribution) int {
	return cmp.Or(cmp.Compare(a.SegmentID, b.SegmentID), cmp.Compare(a.VariantID, b.VariantID), cmp.Compare(a.ID, b.ID))
}

// grouped gives each parent a list of its own, with no more room than it needs: flags are kept one by one.
func grouped[T any](all []T, parent func(*T) uint) map[uint][]T {
	sizes := make(map[uint]int)
	for i := range all {
		sizes[parent(&all[i])]++
	}
	groups := make(map[uint][]T, len(sizes))
	for i := range all {
		id := parent(&all[i])
		group := groups[id]
		if group == nil {
			group = make([]T, 0, sizes[id])
		}
		groups[id] = append(group, all[i])
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
