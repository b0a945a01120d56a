package eval

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// describe sets the fields that depend on the flag, which is nil if none was found. The result must
// have its Request, except the fields of the entity.
func (f *flag) describe(result *Result) {
	if f == nil {
		result.Reason = FlagNotFound
		result.FlagID, result.FlagKey = result.Request.FlagID, result.Request.FlagKey
		result.Message = notFound(&result.Request)
		return
	}
	result.FlagID, result.FlagKey = f.id, f.source.Key
	result.FlagSnapshotID = int64(f.source.SnapshotID)
	result.FlagTags = f.tags
	result.flag = f
	result.DataRecordsEnabled = f.source.DataRecordsEnabled
	result.Reason, result.Message = f.blank, f.message
}

// notFound names the requested flag as in the request, and shortens a long key.
func notFound(r *Request) string {
	if r.FlagID == 0 && r.FlagKey != "" {
		const longest = 100
		return fmt.Sprintf("flagKey %q not found or deleted", r.FlagKey[:min(len(r.FlagKey), longest)])
	}
	return "flagID " + strconv.FormatInt(r.FlagID, 10) + " not found or deleted"
}

// decide sets what the entity gets. The result must be described. random generates IDs.
func (f *flag) decide(result *Result, debug bool, random func() int32) {
	if result.Reason != 0 { // the same for every entity
		return
	}
	if f.source.EntityType != "" {
		result.Request.EntityType, result.Request.PlainTexts = f.source.EntityType, result.Request.PlainTexts && f.plainType
	}
	if result.Request.EntityID == "" && !result.Request.EntityIDRequired {
		result.Request.EntityID = "randomly_generated_" + strconv.FormatInt(int64(random()), 10)
		result.Asked |= AskedWithoutEntityID
	}
	result.Reason = NoMatch
	context, isObject := propertiesOf(result.Request.EntityContext)
	context.scratch = &result.scratch
	if debug {
		context = context.decoded()
	}
	for i := range f.segments {
		s := &f.segments[i]
		before := result.scratch.work
		matched, unevaluable := s.matches(context, isObject)
		if unevaluable {
			result.Asked |= AskedUnevaluable
		}
		var given *share
		if matched {
			if s.byBucket && result.Request.EntityID == "" {
				result.Reason = EntityIDMissing
				return
			}
			given = s.rollOut(f.bucket(result.Request.EntityID))
		}
		if debug {
			used := result.scratch.work
			result.scratch.work = before
			result.SegmentLogs = append(result.SegmentLogs, SegmentLog{s.id, s.explain(context, isObject, f.bucket(result.Request.EntityID))})
			result.scratch.work = used
		}
		if given != nil {
			result.Reason = Matched
			result.given = given
			result.SegmentID = s.id
			result.VariantID = int64(given.variant.ID)
			result.VariantKey = given.variant.Key
			result.VariantAttachment = given.variant.Attachment
		}
		if matched {
			if given == nil {
				result.Reason, result.HeldOutSegmentID = HeldOut, s.id
			}
			return
		}
	}
}

// bucket returns the entity's bucket from 0 to 999.
func (f *flag) bucket(entityID string) int { return int(checksum(f.hash, entityID) % buckets) }

// matches reports whether all constraints hold. A constraint that cannot be evaluated does not
// hold; unevaluable reports that the context was the cause, not the constraint itself.
func (s *segment) matches(context properties, isObject bool) (matched, unevaluable bool) {
	if len(s.conditions) == 0 {
		return true, false
	}
	if !isObject {
		return false, true
	}
	for i := range s.conditions {
		c := &s.conditions[i]
		if holds, ok := c.holds(context); !ok || !holds {
			return false, !ok && c.err == nil
		}
	}
	return true, false
}

// rollOut returns the share of a bucket, or nil if the bucket gets no variant.
func (s *segment) rollOut(bucket int) *share {
	if s.rolloutPercent == 0 {
		return nil
	}
	lower := 0
	for i := range s.shares {
		given := &s.shares[i]
		if given.bound <= bucket {
			lower = given.bound
			continue
		}
		// The rollout takes the first buckets of each variant, so that raising it moves no entity
		// to another variant.
		width := given.bound - lower - 1
		if given.variant == nil || s.rolloutPercent < 100 && 100*(bucket-lower) > width*s.rolloutPercent {
			return nil
		}
		return given
	}
	return nil
}

// logBytes is the approximate maximum memory of the SegmentLogs of an evaluation, including their
// JSON. f may be nil.
func (f *flag) logBytes() int {
	if f == nil {
		return 0
	}
	const fixed, perByte = 400, 6 // a message, which may repeat a property of the constraint, and its JSON with spare capacity
	n := 0
	for i := range f.segments {
		s := &f.segments[i]
		longest := 0
		for c := range s.conditions {
			longest = max(longest, len(s.conditions[c].text))
		}
		shares := 0
		for _, given := range s.shares {
			shares += len("unknown variant: 000-000, ")
			if given.variant != nil {
				shares += len(given.variant.Key)
			}
		}
		n += fixed + perByte*max(longest, shares)
	}
	return n
}

// explain describes what happened to an entity in the segment.
func (s *segment) explain(context properties, isObject bool, bucket int) string {
	if len(s.conditions) > 0 && !isObject {
		return "no match: the segment has constraints, and entityContext is not an object"
	}
	for i := range s.conditions {
		c := &s.conditions[i]
		switch holds, ok := c.holds(context); {
		case !ok:
			return fmt.Sprintf("no match: constraint %s cannot be evaluated: %s", c.text, entity.Shorten(c.reason(context)))
		case !holds:
			return fmt.Sprintf("no match: constraint %s does not hold", c.text)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "match: bucket %d of %d, rollout %d%%, distribution [", bucket, buckets, s.rolloutPercent)
	lower := 0
	for i, given := range s.shares {
		if i > 0 {
			b.WriteString(", ")
		}
		key := "unknown variant"
		if given.variant != nil {
			key = given.variant.Key
		}
		if given.bound == lower {
			fmt.Fprintf(&b, "%s: none", key)
		} else {
			fmt.Fprintf(&b, "%s: %d-%d", key, lower, given.bound-1)
		}
		lower = given.bound
	}
	b.WriteString("]: ")
	if given := s.rollOut(bucket); given != nil {
		b.WriteString("variant " + given.variant.Key)
	} else {
		b.WriteString("no variant")
	}
	return b.String()
}
