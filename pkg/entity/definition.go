package entity

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
)

// maxDefinitionParts is the maximum number of variants, segments, constraints, distributions and
// tags of one definition, together.
const maxDefinitionParts = 10_000

// Definition is a flag with all its parts as one value, which is saved in one step. A nil field
// does not change the flag. A list that is not nil replaces the flag's list: parts with an ID are
// changed, parts without an ID are new, and other parts of the flag are removed.
type Definition struct {
	// SnapshotID is the id of the snapshot that the definition was made from.
	SnapshotID         uint    `json:"snapshotID"`
	Key                *string `json:"key,omitempty"`
	Description        *string `json:"description,omitempty"`
	Notes              *string `json:"notes,omitempty"`
	EntityType         *string `json:"entityType,omitempty"`
	Enabled            *bool   `json:"enabled,omitempty"`
	DataRecordsEnabled *bool   `json:"dataRecordsEnabled,omitempty"`
	// Tags are the values of tags. Their order does not matter.
	Tags     []string            `json:"tags,omitempty"`
	Variants []VariantDefinition `json:"variants,omitempty"`
	// Segments are in the order of evaluation.
	Segments []SegmentDefinition `json:"segments,omitempty"`
}

// VariantDefinition is a variant of a Definition.
type VariantDefinition struct {
	// ID is 0 for a new variant.
	ID  uint   `json:"id,omitempty"`
	Key string `json:"key"`
	// Attachment is empty to keep the variant's attachment; a new variant then gets {}.
	Attachment Attachment `json:"attachment,omitempty"`
}

// SegmentDefinition is a segment of a Definition. Its lists follow the rules of a Definition's
// lists.
type SegmentDefinition struct {
	// ID is 0 for a new segment.
	ID             uint                     `json:"id,omitempty"`
	Description    string                   `json:"description"`
	RolloutPercent uint                     `json:"rolloutPercent"`
	Constraints    []ConstraintDefinition   `json:"constraints,omitempty"`
	Distributions  []DistributionDefinition `json:"distributions,omitempty"`
}

// ConstraintDefinition is a constraint of a SegmentDefinition.
type ConstraintDefinition struct {
	// ID is 0 for a new constraint.
	ID       uint   `json:"id,omitempty"`
	Property string `json:"property"`
	Operator string `json:"operator"`
	Value    string `json:"value"`
}

// DistributionDefinition is the share of one variant in a SegmentDefinition.
type DistributionDefinition struct {
	// VariantID names the variant; if it is 0, VariantKey is the variant's key in the definition.
	VariantID  uint   `json:"variantID,omitempty"`
	VariantKey string `json:"variantKey,omitempty"`
	Percent    uint   `json:"percent"`
}

// Problem is one rule that a Definition breaks.
type Problem struct {
	// Path is the path of the field, such as "segments[0].constraints[1].value". Places count from
	// 0.
	Path    string
	Message catalog.Message
}

// String returns the problem in one line.
func (p Problem) String() string { return p.Path + ": " + Shorten(p.Message.String()) }

// ProblemsError returns nil if there are no problems, else an error with all of them that matches
// ErrInvalid.
func ProblemsError(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.String()
	}
	return Invalid("%s", strings.Join(lines, "; "))
}

// ConflictError says that a flag has changed since the snapshot that a Definition was made from. It
// matches ErrConflict.
type ConflictError struct {
	// Current is the current flag with all its parts.
	Current *Flag
	// Base is the flag in the snapshot that the definition names; nil if the flag has no such
	// snapshot.
	Base *Flag
	// Named is the ID of that snapshot.
	Named uint
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("flag %d has changed since snapshot %d: it is at snapshot %d now, and nothing was saved", e.Current.ID, e.Named, e.Current.SnapshotID)
}

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// DefinitionOf returns the whole definition of a flag. The flag must have its parts.
func DefinitionOf(f *Flag) Definition {
	d := Definition{
		SnapshotID: f.SnapshotID, Key: &f.Key, Description: &f.Description, Notes: &f.Notes, EntityType: &f.EntityType,
		Enabled: &f.Enabled, DataRecordsEnabled: &f.DataRecordsEnabled,
		Tags:     make([]string, len(f.Tags)),
		Variants: make([]VariantDefinition, len(f.Variants)),
		Segments: make([]SegmentDefinition, len(f.Segments)),
	}
	for i := range f.Tags {
		d.Tags[i] = f.Tags[i].Value
	}
	for i := range f.Variants {
		v := &f.Variants[i]
		d.Variants[i] = VariantDefinition{ID: v.ID, Key: v.Key, Attachment: v.Attachment}
	}
	for i := range f.Segments {
		d.Segments[i] = segmentDefinition(&f.Segments[i])
	}
	return d
}

func segmentDefinition(s *Segment) SegmentDefinition {
	d := SegmentDefinition{
		ID: s.ID, Description: s.Description, RolloutPercent: s.RolloutPercent,
		Constraints:   make([]ConstraintDefinition, len(s.Constraints)),
		Distributions: make([]DistributionDefinition, len(s.Distributions)),
	}
	for i := range s.Constraints {
		c := &s.Constraints[i]
		d.Constraints[i] = ConstraintDefinition{ID: c.ID, Property: c.Property, Operator: c.Operator, Value: c.Value}
	}
	for i := range s.Distributions {
		one := &s.Distributions[i]
		d.Distributions[i] = DistributionDefinition{VariantID: one.VariantID, VariantKey: one.VariantKey, Percent: one.Percent}
	}
	return d
}

// Problems returns the rules that the definition breaks, regardless of the flag.
func (d *Definition) Problems() []Problem {
	var c definitionChecker
	if d.parts() > maxDefinitionParts {
		c.add("segments", "api.definition.parts", "most", catalog.Digits(maxDefinitionParts))
		return c.problems
	}
	c.checkFields(d)
	keys := c.checkVariants(d.Variants)
	ids := map[uint]bool{}
	for i := range d.Segments {
		s := &d.Segments[i]
		path := fmt.Sprintf("segments[%d]", i)
		c.checkID(path, s.ID, ids)
		c.checkSegment(path, s, keys)
	}
	return c.problems
}

func (d *Definition) parts() int {
	n := len(d.Variants) + len(d.Segments) + len(d.Tags)
	for i := range d.Segments {
		n += len(d.Segments[i].Constraints) + len(d.Segments[i].Distributions)
	}
	return n
}

type definitionChecker struct{ problems []Problem }

func (c *definitionChecker) add(path, name string, args ...any) {
	c.problems = append(c.problems, Problem{path, catalog.Say(name, args...)})
}

func (c *definitionChecker) try(path string, err error) {
	if err != nil {
		c.problems = append(c.problems, Problem{path, catalog.Of(err)})
	}
}

func (c *definitionChecker) checkFields(d *Definition) {
	if d.Key != nil {
		c.try("key", CheckKey(*d.Key))
	}
	if d.Description != nil {
		if *d.Description == "" {
			c.add("description", "api.definition.empty")
		}
		c.try("description", CheckText("description", *d.Description))
	}
	if d.Notes != nil {
		c.try("notes", CheckText("notes", *d.Notes))
	}
	if d.EntityType != nil && *d.EntityType != "" {
		c.try("entityType", CheckKey(*d.EntityType))
	}
	for i, tag := range d.Tags {
		c.try(fmt.Sprintf("tags[%d]", i), CheckTagValue(tag))
	}
}

// checkVariants returns the number of variants with each key, or nil if the definition has no list
// of variants.
func (c *definitionChecker) checkVariants(variants []VariantDefinition) map[string]int {
	if variants == nil {
		return nil
	}
	keys, ids := map[string]int{}, map[uint]bool{}
	for i, v := range variants {
		path := fmt.Sprintf("variants[%d]", i)
		c.checkID(path, v.ID, ids)
		c.try(path+".key", CheckKey(v.Key))
		c.try(path+".attachment", v.Attachment.CheckDepth())
		if keys[v.Key]++; keys[v.Key] == 2 {
			c.add(path+".key", "api.definition.taken", "key", repeated(v.Key))
		}
	}
	return keys
}

func (c *definitionChecker) checkID(path string, id uint, seen map[uint]bool) {
	if id == 0 {
		return
	}
	if seen[id] {
		c.add(path+".id", "api.definition.twice", "what", catalog.Digits(id))
	}
	seen[id] = true
}

// checkSegment gets the keys of the definition's variants, or nil if the flag's variants stay.
func (c *definitionChecker) checkSegment(path string, s *SegmentDefinition, keys map[string]int) {
	c.try(path+".description", CheckText("description", s.Description))
	if s.RolloutPercent > 100 {
		c.add(path+".rolloutPercent", "api.definition.percent", "n", catalog.Digits(s.RolloutPercent))
	}
	ids := map[uint]bool{}
	for i, one := range s.Constraints {
		at := fmt.Sprintf("%s.constraints[%d]", path, i)
		c.checkID(at, one.ID, ids)
		c.checkConstraint(at, one)
	}
	c.checkDistributions(path, s.Distributions, keys)
}

func (c *definitionChecker) checkConstraint(path string, d ConstraintDefinition) {
	before := len(c.problems)
	for _, field := range []struct{ name, value string }{{"property", d.Property}, {"value", d.Value}} {
		if field.value == "" {
			c.add(path+"."+field.name, "api.definition.empty")
		}
		c.try(path+"."+field.name, CheckText(field.name, field.value))
	}
	if _, ok := operatorTokens[d.Operator]; !ok {
		c.add(path+".operator", "api.definition.operator", "operator", repeated(d.Operator), "all", strings.Join(Operators(), ", "))
	}
	if len(c.problems) == before {
		constraint := Constraint{Property: d.Property, Operator: d.Operator, Value: d.Value}
		_, err := constraint.Expr()
		c.try(path+".value", err)
	}
}

func (c *definitionChecker) checkDistributions(path string, shares []DistributionDefinition, keys map[string]int) {
	sum := uint(0)
	ids, named := map[uint]bool{}, map[string]bool{}
	for i, share := range shares {
		at := fmt.Sprintf("%s.distributions[%d]", path, i)
		if share.Percent > 100 {
			c.add(at+".percent", "api.definition.percent", "n", catalog.Digits(share.Percent))
			return
		}
		sum += share.Percent
		switch {
		case share.VariantID == 0 && share.VariantKey == "":
			c.add(at, "api.definition.unnamed")
		case share.VariantID != 0:
			c.checkID(at, share.VariantID, ids)
		case keys != nil && keys[share.VariantKey] == 0:
			c.add(at+".variantKey", "api.definition.novariant", "key", repeated(share.VariantKey))
		case named[share.VariantKey]:
			c.add(at+".variantKey", "api.definition.twice", "what", repeated(share.VariantKey))
		}
		named[share.VariantKey] = true
	}
	if sum != 100 && len(shares) > 0 {
		c.add(path+".distributions", "api.definition.sum", "sum", catalog.Digits(sum))
	}
}

// Operators lists the operators of constraints.
func Operators() []string {
	return []string{"EQ", "NEQ", "LT", "LTE", "GT", "GTE", "EREG", "NEREG", "IN", "NOTIN", "CONTAINS", "NOTCONTAINS"}
}

// Apply returns the changed flag for a flag with all its parts. New parts have the ID 0; a
// distribution of a new variant names it by key. If there are problems, the result is not usable.
// The flag itself is not changed.
func (d *Definition) Apply(f *Flag) (*Flag, []Problem) {
	c := definitionChecker{d.Problems()}
	after := *f
	set(&after.Key, d.Key)
	set(&after.Description, d.Description)
	set(&after.Notes, d.Notes)
	set(&after.EntityType, d.EntityType)
	set(&after.Enabled, d.Enabled)
	set(&after.DataRecordsEnabled, d.DataRecordsEnabled)
	if d.Tags != nil {
		after.Tags = applyTags(f.Tags, d.Tags)
	}
	if d.Variants != nil {
		after.Variants = c.applyVariants(f, d.Variants)
	}
	if d.Segments != nil {
		after.Segments = c.applySegments(f, d.Segments)
	} else {
		after.Segments = slices.Clone(f.Segments)
	}
	for i := range after.Segments {
		c.settleShares(fmt.Sprintf("segments[%d]", i), &after, &after.Segments[i], d.Segments == nil || d.Segments[i].Distributions == nil)
	}
	return &after, c.problems
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

func applyTags(have []Tag, values []string) []Tag {
	byValue := make(map[string]Tag, len(have))
	for _, tag := range have {
		byValue[tag.Value] = tag
	}
	tags := make([]Tag, 0, len(values))
	seen := map[string]bool{}
	for _, value := range values {
		if seen[value] {
			continue
		}
		seen[value] = true
		tag, ok := byValue[value]
		if !ok {
			tag = Tag{Value: value}
		}
		tags = append(tags, tag)
	}
	return tags
}

func (c *definitionChecker) applyVariants(f *Flag, definitions []VariantDefinition) []Variant {
	have := byID(f.Variants, func(v *Variant) uint { return v.ID })
	variants := make([]Variant, len(definitions))
	for i, d := range definitions {
		v := Variant{FlagID: f.ID, Attachment: "{}"}
		if d.ID != 0 {
			known, ok := have[d.ID]
			if !ok {
				c.add(fmt.Sprintf("variants[%d].id", i), "api.definition.foreign.variant", "id", catalog.Digits(d.ID), "flag", catalog.Digits(f.ID))
				continue
			}
			v = *known
		}
		v.Key = d.Key
		if d.Attachment != "" {
			v.Attachment = d.Attachment
		}
		variants[i] = v
	}
	return variants
}

func (c *definitionChecker) applySegments(f *Flag, definitions []SegmentDefinition) []Segment {
	have := byID(f.Segments, func(s *Segment) uint { return s.ID })
	segments := make([]Segment, len(definitions))
	sameOrder := len(definitions) == len(f.Segments)
	for i, d := range definitions {
		path := fmt.Sprintf("segments[%d]", i)
		s := Segment{FlagID: f.ID}
		if d.ID != 0 {
			known, ok := have[d.ID]
			if !ok {
				c.add(path+".id", "api.definition.foreign.segment", "id", catalog.Digits(d.ID), "flag", catalog.Digits(f.ID))
				continue
			}
			s = *known
		}
		sameOrder = sameOrder && f.Segments[i].ID == d.ID
		s.Description, s.RolloutPercent = d.Description, d.RolloutPercent
		if d.Constraints != nil {
			s.Constraints = c.applyConstraints(path, &s, d.Constraints)
		}
		if d.Distributions != nil {
			s.Distributions = applyShares(&s, d.Distributions)
		}
		segments[i] = s
	}
	if !sameOrder {
		for i := range segments {
			segments[i].Rank = uint(i)
		}
	}
	return segments
}

func (c *definitionChecker) applyConstraints(path string, s *Segment, definitions []ConstraintDefinition) []Constraint {
	have := byID(s.Constraints, func(one *Constraint) uint { return one.ID })
	constraints := make([]Constraint, len(definitions))
	for i, d := range definitions {
		one := Constraint{SegmentID: s.ID}
		if d.ID != 0 {
			known, ok := have[d.ID]
			if !ok {
				c.add(fmt.Sprintf("%s.constraints[%d].id", path, i), "api.definition.foreign.constraint", "id", catalog.Digits(d.ID), "segment", catalog.Digits(s.ID))
				continue
			}
			one = *known
		}
		one.Property, one.Operator, one.Value = d.Property, d.Operator, d.Value
		constraints[i] = one
	}
	// New ones get higher ids, and so come last when the flag is read again.
	slices.SortStableFunc(constraints, func(a, b Constraint) int {
		return cmp.Or(cmp.Compare(boolInt(a.ID == 0), boolInt(b.ID == 0)), cmp.Compare(a.ID, b.ID))
	})
	return constraints
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// applyShares does not check the variants; settleShares does.
func applyShares(s *Segment, definitions []DistributionDefinition) []Distribution {
	shares := make([]Distribution, len(definitions))
	for i, d := range definitions {
		shares[i] = Distribution{SegmentID: s.ID, VariantID: d.VariantID, VariantKey: d.VariantKey, Percent: d.Percent}
		if d.VariantID != 0 {
			shares[i].VariantKey = ""
		}
	}
	known := s.Distributions
	for i := range shares {
		for _, one := range known {
			if shares[i].VariantID != 0 && one.VariantID == shares[i].VariantID || shares[i].VariantID == 0 && one.VariantKey == shares[i].VariantKey {
				shares[i].Model = one.Model
			}
		}
	}
	return shares
}

// settleShares assigns the shares of a segment to the variants of the flag, by ID or by key. Shares
// that the definition does not name are kept. Shares of removed variants are removed if they are 0,
// and otherwise they are a problem.
func (c *definitionChecker) settleShares(path string, f *Flag, s *Segment, kept bool) {
	shares := slices.Clone(s.Distributions)
	settled := shares[:0]
	given := map[*Variant]bool{}
	for i, share := range shares {
		at := fmt.Sprintf("%s.distributions[%d]", path, i)
		v := variantFor(f, &share)
		switch {
		case given[v] && v != nil && !kept:
			c.add(at, "api.definition.twice", "what", repeated(v.Key))
		case v != nil:
			given[v] = true
			share.VariantID, share.VariantKey = v.ID, v.Key
			settled = append(settled, share)
		case kept && share.Percent == 0:
		case kept:
			c.add("variants", "api.definition.inuse", "key", repeated(share.VariantKey), "id", catalog.Digits(s.ID), "percent", catalog.Digits(share.Percent))
		case share.VariantID != 0:
			c.add(at+".variantID", "api.definition.foreign.variant", "id", catalog.Digits(share.VariantID), "flag", catalog.Digits(f.ID))
		default:
			c.add(at+".variantKey", "api.definition.novariant", "key", repeated(share.VariantKey))
		}
	}
	s.Distributions = settled
}

func variantFor(f *Flag, share *Distribution) *Variant {
	for i := range f.Variants {
		v := &f.Variants[i]
		if share.VariantID != 0 && v.ID == share.VariantID || share.VariantID == 0 && v.Key == share.VariantKey {
			return v
		}
	}
	return nil
}

func byID[T any](all []T, id func(*T) uint) map[uint]*T {
	m := make(map[uint]*T, len(all))
	for i := range all {
		m[id(&all[i])] = &all[i]
	}
	return m
}
