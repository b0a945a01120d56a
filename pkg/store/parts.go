package store

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// loadParts sets variants, segments with their parts, tags, and Unreadable, also for what how has
// read of the flags themselves. It skips soft-deleted parts, even those of a deleted flag, which
// GORM's own preloading would include.
func loadParts(tx *gorm.DB, flags []entity.Flag, how reading) error {
	if err := loadTags(tx, flags, how); err != nil {
		return err
	}
	ids := idsOfFlags(flags)
	variants, err := partsOf(tx, variantColumns(), how, ofFlag, ids, compareVariants)
	if err != nil {
		return fmt.Errorf("read variants: %w", err)
	}
	segments, err := segmentsOf(tx, ids, how)
	if err != nil {
		return err
	}
	for i := range flags {
		id := flags[i].ID
		flags[i].Variants = groupOf(variants, id, func(v *entity.Variant) uint { return v.FlagID }, how)
		flags[i].Segments = groupOf(segments, id, func(s *entity.Segment) uint { return s.FlagID }, how)
	}
	how.mark(flags)
	return nil
}

func idsOfFlags(flags []entity.Flag) []uint {
	ids := make([]uint, len(flags))
	for i := range flags {
		ids[i] = flags[i].ID
	}
	return ids
}

// loadTags sets the tags, in the order of their IDs, and Unreadable. Variants and segments become
// empty.
func loadTags(tx *gorm.DB, flags []entity.Flag, how reading) error {
	links, err := parts(tx, flagTagColumns(), how, ofFlag, idsOfFlags(flags))
	if err != nil {
		return fmt.Errorf("read which flags have which tags: %w", err)
	}
	slices.SortFunc(links, func(a, b flagTag) int { return cmp.Or(cmp.Compare(a.FlagID, b.FlagID), cmp.Compare(a.TagID, b.TagID)) })
	tags, err := tagsOf(tx, links, how)
	if err != nil {
		return fmt.Errorf("read tags: %w", err)
	}
	all := make([]entity.Tag, 0, len(links)) // never grows, so lists of flags can be parts of it
	for i := range flags {
		flag, start := withoutParts(&flags[i]), len(all)
		for _, link := range ownedBy(links, flag.ID, func(t *flagTag) uint { return t.FlagID }) {
			if tag, ok := tags[link.TagID]; ok {
				all = append(all, tag)
			}
		}
		flag.Tags = listFor(all[start:], how)
	}
	how.mark(flags)
	return nil
}

// tagsOf reads the tags of the links, without the deleted ones.
func tagsOf(tx *gorm.DB, links []flagTag, how reading) (map[uint]entity.Tag, error) {
	tags := map[uint]entity.Tag{}
	for _, link := range links {
		tags[link.TagID] = entity.Tag{}
	}
	ids := slices.Sorted(maps.Keys(tags))
	clear(tags)
	for chunk := range slices.Chunk(ids, idsPerQuery) {
		some, err := find(among(tx, clause.Column{Name: "id"}, chunk), tagColumns(), how)
		if err != nil {
			return nil, err
		}
		for i := range some {
			tags[some[i].ID] = some[i]
		}
	}
	return tags, nil
}

// segmentsOf reads the segments of flags with their parts, in the order of compareSegments.
func segmentsOf(tx *gorm.DB, flagIDs []uint, how reading) ([]entity.Segment, error) {
	segments, err := partsOf(tx, segmentColumns(), how, ofFlag, flagIDs, compareSegments)
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	ids := make([]uint, len(segments))
	for i := range segments {
		ids[i] = segments[i].ID
	}
	constraints, err := partsOf(tx, constraintColumns(), how, ofSegment, ids, compareConstraints)
	if err != nil {
		return nil, fmt.Errorf("read constraints: %w", err)
	}
	distributions, err := partsOf(tx, distributionColumns(), how, ofSegment, ids, compareDistributions)
	if err != nil {
		return nil, fmt.Errorf("read distributions: %w", err)
	}
	for i := range segments {
		id := segments[i].ID
		segments[i].Constraints = groupOf(constraints, id, func(c *entity.Constraint) uint { return c.SegmentID }, how)
		segments[i].Distributions = groupOf(distributions, id, func(d *entity.Distribution) uint { return d.SegmentID }, how)
	}
	return segments, nil
}

// owner is the table that parts belong to. The column owner + "_id" of the parts has the owner's
// ID.
type owner string

const (
	ofFlag    owner = "flag"
	ofSegment owner = "segment"
)

// parts reads the rows that belong to some owners. Lists of IDs take databases several times as
// long as other conditions. So if the owners do not fit into one list and are at least half of the
// rows that are read then, parts reads a range of IDs, or all rows, and skips the parts of other
// owners.
func parts[T any](tx *gorm.DB, of columnsOf[T], how reading, o owner, ids []uint) ([]T, error) {
	column := clause.Column{Name: string(o) + "_id"}
	if most := 2 * len(ids); len(ids) > idsPerQuery {
		few, err := o.fewerThan(tx, most+1)
		if err != nil {
			return nil, err
		}
		how.owners = setOf(ids)
		if few {
			return find(tx, of, how)
		}
		if first, last := slices.Min(ids), slices.Max(ids); last-first < uint(most) {
			return find(tx.Where("? BETWEEN ? AND ?", column, first, last), of, how)
		}
	}
	all := []T{}
	for chunk := range slices.Chunk(ids, idsPerQuery) {
		some, err := find(among(tx, column, chunk), of, how)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// fewerThan reports whether the number of owners, including deleted ones, is below number.
func (o owner) fewerThan(tx *gorm.DB, number int) (bool, error) {
	db := tx.Session(&gorm.Session{NewDB: true})
	var found int
	err := db.Table("(?) AS found", db.Table(string(o)+"s").Select("id").Limit(number)).Select("COUNT(*)").Scan(&found).Error
	return found < number, err
}

func setOf(ids []uint) map[uint]struct{} {
	set := make(map[uint]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return set
}

// existing narrows a query to rows that are not deleted. SQLite uses the index on deleted_at if it
// can. Nearly all rows have the same value there, so for other conditions and for whole tables it
// would take longer.
func existing(tx *gorm.DB) *gorm.DB {
	return tx.Unscoped().Where("COALESCE(deleted_at, NULL) IS NULL")
}

// partsOf reads the parts of some owners in the order of compare, which must compare owners first.
// It sorts them itself: SQLite would take longer, and the parts are almost in that order.
func partsOf[T any](tx *gorm.DB, of columnsOf[T], how reading, o owner, ids []uint, compare func(a, b T) int) ([]T, error) {
	there := existing(tx).Session(&gorm.Session{})
	all, err := parts(there, of, how, o, ids)
	slices.SortFunc(all, compare)
	return all, err
}

func compareVariants(a, b entity.Variant) int {
	return cmp.Or(cmp.Compare(a.FlagID, b.FlagID), cmp.Compare(a.ID, b.ID))
}

// compareSegments orders the segments of a flag as they are evaluated.
func compareSegments(a, b entity.Segment) int {
	return cmp.Or(cmp.Compare(a.FlagID, b.FlagID), cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID))
}

func compareConstraints(a, b entity.Constraint) int {
	return cmp.Or(cmp.Compare(a.SegmentID, b.SegmentID), cmp.Compare(a.ID, b.ID))
}

func compareDistributions(a, b entity.Distribution) int {
	return cmp.Or(cmp.Compare(a.SegmentID, b.SegmentID), cmp.Compare(a.VariantID, b.VariantID), cmp.Compare(a.ID, b.ID))
}

// groupOf returns the parts of one owner. all contains the parts of owners one after the other, in
// the order of owners. If the owner has no parts, the list is empty but not nil, so that it becomes
// [] in JSON.
func groupOf[T any](all []T, id uint, ownerOf func(*T) uint, how reading) []T {
	return listFor(ownedBy(all, id, ownerOf), how)
}

// ownedBy returns the part of a list that belongs to one owner. The list is in the order of owners.
func ownedBy[T any](all []T, id uint, ownerOf func(*T) uint) []T {
	start := sort.Search(len(all), func(i int) bool { return ownerOf(&all[i]) >= id })
	end := start
	for end < len(all) && ownerOf(&all[end]) == id {
		end++
	}
	return all[start:end]
}

// listFor returns a part of a list for its owner. Flags that are kept in memory are kept one by
// one, so each gets its own list without spare capacity.
func listFor[T any](part []T, how reading) []T {
	if how.brief {
		return slices.Clip(part)
	}
	return append(make([]T, 0, len(part)), part...)
}
