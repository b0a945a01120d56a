package insight

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// What is the kind of a Part of a Change.
type What string

// The kinds of parts.
const (
	WhatEnabled        What = "enabled"
	WhatRecords        What = "records"
	WhatKey            What = "key"
	WhatEntityType     What = "entityType"
	WhatVariantAdded   What = "variantAdded"
	WhatVariantRemoved What = "variantRemoved"
	WhatVariantKey     What = "variantKey"
	WhatAttachment     What = "attachment"
	WhatSegmentAdded   What = "segmentAdded"
	WhatSegmentRemoved What = "segmentRemoved"
	WhatSegmentOrder   What = "segmentOrder"
	WhatConstraint     What = "constraint"
	WhatRollout        What = "rollout"
	WhatDistribution   What = "distribution"
	WhatTags           What = "tags"
	WhatText           What = "text"
	WhatDeleted        What = "deleted"
	WhatRestored       What = "restored"
)

// Affects is the strongest effect of a Change.
type Affects string

// The effects, the strongest first.
const (
	// AffectsAssignment: entities can get another variant than before, or no variant.
	AffectsAssignment Affects = "assignment"
	// AffectsCounting: counting of the flag starts or stops.
	AffectsCounting Affects = "counting"
	// AffectsNaming: names or contents of parts change, but the assignment of entities stays the
	// same.
	AffectsNaming Affects = "naming"
	// AffectsNothing: neither evaluations nor their counts change.
	AffectsNothing Affects = "nothing"
)

// affects maps each kind of part to its effect.
func (w What) affects() Affects {
	switch w {
	case WhatEnabled, WhatSegmentAdded, WhatSegmentRemoved, WhatSegmentOrder, WhatConstraint, WhatRollout, WhatDistribution, WhatDeleted, WhatRestored:
		return AffectsAssignment
	case WhatRecords:
		return AffectsCounting
	case WhatKey, WhatVariantAdded, WhatVariantRemoved, WhatVariantKey, WhatAttachment, WhatTags:
		return AffectsNaming
	default:
		return AffectsNothing
	}
}

// Part is one difference between two snapshots of a flag.
type Part struct {
	What What
	// SegmentID, VariantID and ConstraintID identify the part that differs. They are 0 if they do
	// not apply.
	SegmentID, VariantID, ConstraintID int64
	// From and To are the values before and after, truncated to 200 bytes. A missing value is
	// empty.
	From, To string
	// Text describes the difference for users.
	Text string
}

// Change is what one snapshot of a flag changed.
type Change struct {
	SnapshotID int64
	// At is when the change was committed. By is the author, empty if unknown.
	At time.Time
	By string
	// EffectiveBy is when all connected servers evaluate with the change: At plus the refresh
	// interval.
	EffectiveBy time.Time
	Affects     Affects
	Text        string
	Parts       []Part
}

// Snapshot is a flag as it was right after one change.
type Snapshot struct {
	ID int64
	At time.Time
	By string
	// Flag is nil if the stored flag is invalid.
	Flag *entity.Flag
}

// ParseSnapshot decodes a row. Flag is nil if the row does not contain the JSON of a flag.
func ParseSnapshot(row *entity.FlagSnapshot) Snapshot {
	var flag entity.Flag
	if !decodeWhole(row.Flag, &flag) {
		return snapshotOf(row, nil)
	}
	return snapshotOf(row, &flag)
}

// parseBare is ParseSnapshot without the attachments of variants, which may have megabytes.
func parseBare(row *entity.FlagSnapshot) Snapshot {
	flag, err := entity.DecodeBareFlag(row.Flag)
	if err != nil {
		return snapshotOf(row, nil)
	}
	return snapshotOf(row, flag)
}

func snapshotOf(row *entity.FlagSnapshot, flag *entity.Flag) Snapshot {
	if flag != nil {
		flag.SnapshotID = row.ID // the JSON contains the ID of the previous snapshot
	}
	return Snapshot{ID: int64(row.ID), At: row.CreatedAt.UTC(), By: row.UpdatedBy, Flag: flag}
}

// decodeWhole decodes JSON after which nothing follows, with numbers as they are written.
func decodeWhole(text []byte, into any) bool {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(into) == nil && atEnd(decoder)
}

// atEnd reports whether nothing follows the decoded value.
func atEnd(decoder *json.Decoder) bool {
	_, err := decoder.Token()
	return errors.Is(err, io.EOF)
}

// ChangeBetween returns what changed between two consecutive snapshots of a flag. A nil before
// means that after created the flag. refresh is the interval at which servers check for changes.
func ChangeBetween(before, after *Snapshot, refresh time.Duration) Change {
	c := Change{SnapshotID: after.ID, At: after.At, By: after.By, EffectiveBy: after.At.Add(refresh), Affects: AffectsNothing, Parts: []Part{}}
	created := before == nil
	switch {
	case after.Flag == nil:
		c.Text = "This snapshot cannot be read."
		return c
	case created:
		c.Parts = append(c.Parts, differences(&entity.Flag{Key: after.Flag.Key, Description: after.Flag.Description, Notes: after.Flag.Notes}, after.Flag)...)
	case before.Flag == nil:
		c.Text = "The snapshot before cannot be read, so what changed is not known."
		return c
	default:
		c.Parts = append(c.Parts, differences(before.Flag, after.Flag)...)
	}
	texts := make([]string, 0, len(c.Parts)+1)
	if created {
		texts = append(texts, "Created")
	}
	for i := range c.Parts {
		texts = append(texts, c.Parts[i].Text)
		if a := c.Parts[i].What.affects(); a.rank() < c.Affects.rank() {
			c.Affects = a
		}
	}
	c.Text = joined(texts)
	return c
}

// joined joins the first few texts, and adds the number of the others.
func joined(texts []string) string {
	const most = 5
	switch {
	case len(texts) == 0:
		return "Saved without a change"
	case len(texts) > most:
		return fmt.Sprintf("%s; and %d more", strings.Join(texts[:most], "; "), len(texts)-most)
	default:
		return strings.Join(texts, "; ")
	}
}

func (a Affects) rank() int {
	return slices.Index([]Affects{AffectsAssignment, AffectsCounting, AffectsNaming, AffectsNothing}, a)
}

// differences lists the differences between two states of a flag, in the order of the What
// constants.
func differences(a, b *entity.Flag) []Part {
	var parts []Part
	add := func(p Part) {
		p.From, p.To = cut(p.From), cut(p.To)
		parts = append(parts, p)
	}
	deleted := b.DeletedAt.Valid && !a.DeletedAt.Valid
	if a.Enabled != b.Enabled {
		add(Part{What: WhatEnabled, From: onOff(a.Enabled), To: onOff(b.Enabled), Text: "Switched " + onOff(b.Enabled)})
	}
	if a.DataRecordsEnabled != b.DataRecordsEnabled {
		add(Part{What: WhatRecords, From: onOff(a.DataRecordsEnabled), To: onOff(b.DataRecordsEnabled), Text: "Counting switched " + onOff(b.DataRecordsEnabled)})
	}
	if a.Key != b.Key {
		add(Part{What: WhatKey, From: a.Key, To: b.Key, Text: fmt.Sprintf("Key: %q to %q", cut(a.Key), cut(b.Key))})
	}
	if a.EntityType != b.EntityType {
		add(Part{What: WhatEntityType, From: a.EntityType, To: b.EntityType, Text: fmt.Sprintf("Entity type: %q to %q", cut(a.EntityType), cut(b.EntityType))})
	}
	variantDifferences(a, b, add)
	segmentDifferences(a, b, add)
	if from, to := tagsText(a.Tags), tagsText(b.Tags); from != to {
		add(Part{What: WhatTags, From: from, To: to, Text: fmt.Sprintf("Tags: %s to %s", orNone(cut(from)), orNone(cut(to)))})
	}
	if a.Description != b.Description {
		add(Part{What: WhatText, From: a.Description, To: b.Description, Text: "Description changed"})
	}
	if a.Notes != b.Notes {
		add(Part{What: WhatText, From: a.Notes, To: b.Notes, Text: "Notes changed"})
	}
	if deleted {
		add(Part{What: WhatDeleted, Text: "Deleted"})
	}
	if a.DeletedAt.Valid && !b.DeletedAt.Valid {
		add(Part{What: WhatRestored, Text: "Restored"})
	}
	return parts
}

func variantDifferences(a, b *entity.Flag, add func(Part)) {
	before := byID(a.Variants, func(v *entity.Variant) uint { return v.ID })
	after := byID(b.Variants, func(v *entity.Variant) uint { return v.ID })
	for i := range b.Variants {
		v := &b.Variants[i]
		if before[v.ID] == nil {
			add(Part{What: WhatVariantAdded, VariantID: int64(v.ID), To: v.Key, Text: fmt.Sprintf("Variant %q added", cut(v.Key))})
		}
	}
	for i := range a.Variants {
		v := &a.Variants[i]
		if after[v.ID] == nil {
			add(Part{What: WhatVariantRemoved, VariantID: int64(v.ID), From: v.Key, Text: fmt.Sprintf("Variant %q removed", cut(v.Key))})
		}
	}
	for i := range b.Variants {
		v := &b.Variants[i]
		old := before[v.ID]
		if old == nil {
			continue
		}
		if old.Key != v.Key {
			add(Part{What: WhatVariantKey, VariantID: int64(v.ID), From: old.Key, To: v.Key,
				Text: fmt.Sprintf("Key of variant %d: %q to %q", v.ID, cut(old.Key), cut(v.Key))})
		}
		if !old.Attachment.Same(v.Attachment) {
			add(Part{What: WhatAttachment, VariantID: int64(v.ID), From: attachmentText(old.Attachment), To: attachmentText(v.Attachment), Text: fmt.Sprintf("Attachment of variant %q changed", cut(v.Key))})
		}
	}
}

func segmentDifferences(a, b *entity.Flag, add func(Part)) {
	before := byID(a.Segments, func(s *entity.Segment) uint { return s.ID })
	after := byID(b.Segments, func(s *entity.Segment) uint { return s.ID })
	for _, s := range inOrder(b.Segments) {
		if before[s.ID] == nil {
			add(Part{What: WhatSegmentAdded, SegmentID: int64(s.ID), To: s.Description, Text: fmt.Sprintf("Segment %d added: %s", s.ID, segmentText(s, b))})
		}
	}
	for _, s := range inOrder(a.Segments) {
		if after[s.ID] == nil {
			add(Part{What: WhatSegmentRemoved, SegmentID: int64(s.ID), From: s.Description, Text: fmt.Sprintf("Segment %d removed", s.ID)})
		}
	}
	if from, to := order(a, after), order(b, before); from != to {
		add(Part{What: WhatSegmentOrder, From: from, To: to, Text: fmt.Sprintf("Order of segments: %s to %s", cut(from), cut(to))})
	}
	for _, s := range inOrder(b.Segments) {
		if old := before[s.ID]; old != nil {
			partsOfSegment(a, b, old, s, add)
		}
	}
}

func partsOfSegment(a, b *entity.Flag, old, s *entity.Segment, add func(Part)) {
	id := int64(s.ID)
	before := byID(old.Constraints, func(c *entity.Constraint) uint { return c.ID })
	after := byID(s.Constraints, func(c *entity.Constraint) uint { return c.ID })
	constraint := func(c uint, from, to string) {
		if from != to {
			add(Part{What: WhatConstraint, SegmentID: id, ConstraintID: int64(c), From: from, To: to,
				Text: fmt.Sprintf("Constraint of segment %d: %s to %s", id, orNone(cut(from)), orNone(cut(to)))})
		}
	}
	for i := range s.Constraints {
		c := &s.Constraints[i]
		constraint(c.ID, ConstraintText(before[c.ID]), ConstraintText(c))
	}
	for i := range old.Constraints {
		if c := &old.Constraints[i]; after[c.ID] == nil {
			constraint(c.ID, ConstraintText(c), "")
		}
	}
	if old.RolloutPercent != s.RolloutPercent {
		add(Part{What: WhatRollout, SegmentID: id, From: fmt.Sprint(old.RolloutPercent), To: fmt.Sprint(s.RolloutPercent),
			Text: fmt.Sprintf("Rollout of segment %d: %d%% to %d%%", id, old.RolloutPercent, s.RolloutPercent)})
	}
	if !slices.Equal(shares(old), shares(s)) {
		from, to := distributionText(old, a), distributionText(s, b)
		add(Part{What: WhatDistribution, SegmentID: id, From: from, To: to,
			Text: fmt.Sprintf("Distribution of segment %d: %s to %s", id, orNone(cut(from)), orNone(cut(to)))})
	}
	if old.Description != s.Description {
		add(Part{What: WhatText, SegmentID: id, From: old.Description, To: s.Description, Text: fmt.Sprintf("Description of segment %d changed", id)})
	}
}

func byID[T any](items []T, id func(*T) uint) map[uint]*T {
	m := make(map[uint]*T, len(items))
	for i := range items {
		m[id(&items[i])] = &items[i]
	}
	return m
}

// inOrder returns segments in evaluation order.
func inOrder(segments []entity.Segment) []*entity.Segment {
	pointers := make([]*entity.Segment, len(segments))
	for i := range segments {
		pointers[i] = &segments[i]
	}
	slices.SortStableFunc(pointers, func(a, b *entity.Segment) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID))
	})
	return pointers
}

// order lists the IDs of those segments of the flag that are also in other.
func order(f *entity.Flag, other map[uint]*entity.Segment) string {
	var ids []string
	for _, s := range inOrder(f.Segments) {
		if other[s.ID] != nil {
			ids = append(ids, fmt.Sprint(s.ID))
		}
	}
	return strings.Join(ids, ", ")
}

// share is the share of a segment that one variant gets.
type share struct {
	variantID uint
	percent   uint
}

// shares returns the distributions with a percentage above 0, in the order of variants.
func shares(s *entity.Segment) []share {
	var list []share
	for _, d := range s.Distributions {
		if d.Percent > 0 {
			list = append(list, share{d.VariantID, d.Percent})
		}
	}
	slices.SortFunc(list, func(a, b share) int {
		return cmp.Or(cmp.Compare(a.variantID, b.variantID), cmp.Compare(a.percent, b.percent))
	})
	return list
}

func distributionText(s *entity.Segment, f *entity.Flag) string {
	var texts []string
	for _, d := range shares(s) {
		texts = append(texts, fmt.Sprintf("%s %d%%", variantName(f, d.variantID), d.percent))
	}
	return strings.Join(texts, ", ")
}

func variantName(f *entity.Flag, id uint) string {
	for i := range f.Variants {
		if f.Variants[i].ID == id {
			return f.Variants[i].Key
		}
	}
	return fmt.Sprintf("variant %d", id)
}

func segmentText(s *entity.Segment, f *entity.Flag) string {
	var constraints []string
	for i := range s.Constraints {
		constraints = append(constraints, cut(ConstraintText(&s.Constraints[i])))
	}
	who := "everybody"
	if len(constraints) > 0 {
		who = cut(strings.Join(constraints, " AND "))
	}
	return fmt.Sprintf("%s, rollout %d%%, %s", who, s.RolloutPercent, orNone(cut(distributionText(s, f))))
}

// ConstraintText formats a constraint for users, such as `country EQ "FR"`. It returns "" for nil.
func ConstraintText(c *entity.Constraint) string {
	if c == nil {
		return ""
	}
	return c.Property + " " + c.Operator + " " + strings.TrimSpace(c.Value)
}

func tagsText(tags []entity.Tag) string {
	values := make([]string, len(tags))
	for i := range tags {
		values[i] = tags[i].Value
	}
	slices.Sort(values)
	return strings.Join(values, ", ")
}

// attachmentText returns "" for an attachment without members, whether it is null or {}. It escapes
// HTML, and truncates an attachment that cut truncates as well.
func attachmentText(a entity.Attachment) string {
	if !a.HasMembers() {
		return ""
	}
	var escaped bytes.Buffer
	json.HTMLEscape(&escaped, []byte(a[:min(len(a), maxCutBytes+1)]))
	return escaped.String()
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// maxCutBytes is the maximum length of a text in a change or an error.
const maxCutBytes = 200

// cut truncates a text to maxCutBytes, at a character boundary.
func cut(s string) string { return cutTo(s, maxCutBytes) }

// cutTo truncates a text to a number of bytes, at a character boundary.
func cutTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("...")], "") + "..."
}
