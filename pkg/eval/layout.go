package eval

import (
	"hash/crc32"
	"strconv"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// Buckets is the number of buckets over which a flag spreads its entities.
const Buckets = buckets

// Layout is what the compiled segments of a flag assign, bucket by bucket.
type Layout struct {
	FlagID int64
	// Segments are in evaluation order.
	Segments []SegmentLayout
}

// SegmentLayout is what one segment assigns to the entities that match its constraints.
type SegmentLayout struct {
	SegmentID int64
	// RolloutPercent is 0 to 100.
	RolloutPercent int
	// Reach is which entities can reach the segment and match it; ReachText explains ReachNobody.
	Reach     Reach
	ReachText catalog.Message
	// Given has the variants of the segment's distributions, sorted by ID, each variant once.
	Given []VariantLayout
	// HeldOut is the number of buckets without a variant. Given and HeldOut add up to Buckets.
	HeldOut int
	// ByBucket has the ID of the variant of each bucket, or 0 for a bucket that is held out.
	ByBucket []int64
}

// VariantLayout is the part of a segment that gets one variant.
type VariantLayout struct {
	VariantID  int64
	VariantKey string
	// Percent is the variant's distribution, Buckets the number of buckets that get the variant.
	Percent, Buckets int
}

// Reach is which part of a flag's entities a segment can match.
type Reach string

// The reaches of a segment.
const (
	// ReachEverybody matches every entity that reaches it: the segment has no constraints.
	ReachEverybody Reach = "everybody"
	// ReachSome matches the entities that match the constraints.
	ReachSome Reach = "some"
	// ReachNobody matches no entity.
	ReachNobody Reach = "nobody"
)

// LayoutOf compiles the flag and returns what its segments assign. It considers only the segments:
// a flag that is off or deleted has the same layout as when it is on.
func LayoutOf(source *entity.Flag) *Layout {
	compiled := compileFlag(source, patterns{maxPatterns, newSharedPatterns()}, nil)
	layout := &Layout{FlagID: compiled.id, Segments: make([]SegmentLayout, len(compiled.segments))}
	var taken int64 // the segment that matches every entity that reaches it
	for i := range compiled.segments {
		s := &compiled.segments[i]
		layout.Segments[i] = s.layout()
		l := &layout.Segments[i]
		switch {
		case taken != 0:
			l.Reach = ReachNobody
			l.ReachText = catalog.Say("api.reach.taken", "segment", catalog.Segment(taken))
		case len(s.conditions) == 0:
			l.Reach = ReachEverybody
			taken = s.id
		default:
			l.Reach = ReachSome
			if text := neverMatches(s.conditions); !text.IsZero() {
				l.Reach, l.ReachText = ReachNobody, text
			}
		}
	}
	return layout
}

// SegmentLayouts compiles the flag and returns a function for the layout of a segment by its place
// in evaluation order, without its Reach. Unlike LayoutOf, it does not keep the layouts of all
// segments in memory, which take 8 KB each.
func SegmentLayouts(source *entity.Flag) func(i int) SegmentLayout {
	compiled := compileFlag(source, patterns{maxPatterns, newSharedPatterns()}, nil)
	return func(i int) SegmentLayout { return compiled.segments[i].layout() }
}

func (s *segment) layout() SegmentLayout {
	l := SegmentLayout{SegmentID: s.id, RolloutPercent: s.rolloutPercent, ByBucket: make([]int64, buckets)}
	index := map[int64]int{} // of a variant in Given
	lower := 0
	for _, given := range s.shares {
		if given.variant != nil {
			id := int64(given.variant.ID)
			if _, ok := index[id]; !ok {
				index[id] = len(l.Given)
				l.Given = append(l.Given, VariantLayout{VariantID: id, VariantKey: given.variant.Key})
			}
			l.Given[index[id]].Percent += (given.bound - lower) / bucketsPerPercent
		}
		lower = given.bound
	}
	for bucket := range buckets {
		given := s.rollOut(bucket)
		if given == nil {
			l.HeldOut++
			continue
		}
		id := int64(given.variant.ID)
		l.ByBucket[bucket] = id
		l.Given[index[id]].Buckets++
	}
	return l
}

// BucketOf returns the bucket of an entity within a flag, 0 to Buckets-1.
func BucketOf(flagID int64, entityID string) int {
	f := flag{hash: crc32.ChecksumIEEE(strconv.AppendInt(nil, flagID, 10))}
	return f.bucket(entityID)
}
