package ui

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/catalog"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// change is one difference between two states of a flag, in words.
type change struct {
	Words template.HTML
	// Field is the form's field, or the path of the part, of the change.
	Field string
	// undo reverts the change in a form; nil if it cannot be reverted.
	undo func(*form)
}

// differ collects the changes between two states. In after, new parts have the ID 0, or an ID that
// before does not have.
type flagDiff struct {
	text    *texts
	changes []change
}

// changesBetween returns the differences, in the order of the page.
func (u *UI) changesBetween(before, after *entity.Flag) []change {
	d := flagDiff{text: u.text}
	d.fields(before, after)
	d.segments(before, after)
	d.variants(before, after)
	return d.changes
}

func (d *flagDiff) add(field string, undo func(*form), name string, args ...any) {
	d.changes = append(d.changes, change{d.text.say(name, args...), field, undo})
}

// arrow is "from -> to".
func (d *flagDiff) arrow(from, to any) template.HTML {
	return d.text.say("diff.arrow", "from", from, "to", to)
}

func (d *flagDiff) fields(a, b *entity.Flag) {
	if a.Enabled != b.Enabled {
		d.add("enabled", func(f *form) { f.Enabled = a.Enabled }, "diff.enabled", "x", d.arrow(d.onOff(a.Enabled), d.onOff(b.Enabled)))
	}
	if a.DataRecordsEnabled != b.DataRecordsEnabled {
		d.add("records", func(f *form) { f.Records = a.DataRecordsEnabled }, "diff.records", "x", d.arrow(d.onOff(a.DataRecordsEnabled), d.onOff(b.DataRecordsEnabled)))
	}
	if a.Key != b.Key {
		d.add("key", func(f *form) { f.Key = a.Key }, "diff.key", "x", d.arrow(code(a.Key), code(b.Key)))
	}
	if a.Description != b.Description {
		d.add("description", func(f *form) { f.Description = a.Description }, "diff.description", "x", d.arrow(catalog.Name(clip(a.Description)), catalog.Name(clip(b.Description))))
	}
	if a.EntityType != b.EntityType {
		d.add("entity", func(f *form) { f.EntityType = a.EntityType }, "diff.entity", "x", d.arrow(d.orNone(a.EntityType), d.orNone(b.EntityType)))
	}
	if a.Notes != b.Notes {
		d.add("notes", func(f *form) { f.Notes = a.Notes }, "diff.notes")
	}
	before, after := tagValues(a), tagValues(b)
	slices.Sort(before)
	slices.Sort(after)
	if !slices.Equal(before, after) {
		d.add("tags", func(f *form) { f.Tags = strings.Join(tagValues(a), ", ") }, "diff.tags", "x", d.arrow(d.orNone(strings.Join(before, ", ")), d.orNone(strings.Join(after, ", "))))
	}
}

func (d *flagDiff) onOff(on bool) string {
	return d.text.plain(map[bool]string{true: "on", false: "off"}[on])
}

func (d *flagDiff) orNone(text string) any {
	if text == "" {
		return d.text.plain("none")
	}
	return code(text)
}

// clip shortens long strings in a sentence.
func clip(text string) string { return clipTo(text, 80) }

// clipTo shortens a text to a number of characters, the last of which is then "…".
func clipTo(text string, longest int) string {
	kept, n := 0, 0
	for i := range text {
		if n++; n == longest {
			kept = i
		} else if n > longest {
			return text[:kept] + "…"
		}
	}
	return text
}

// segmentName is "segment 1, “Adults in France”".
func segmentName(text *texts, place int, description string) template.HTML {
	if description == "" {
		return text.say("segment.lower", "n", strconv.Itoa(place+1))
	}
	return text.say("segment.named", "n", strconv.Itoa(place+1), "name", catalog.Name(clip(description)))
}

func (d *flagDiff) segments(a, b *entity.Flag) {
	was := map[uint]int{}
	for i := range a.Segments {
		was[a.Segments[i].ID] = i
	}
	kept := map[uint]bool{}
	var order []int
	for i := range b.Segments {
		s := &b.Segments[i]
		at := fmt.Sprintf("s.%d", i)
		name := segmentName(d.text, i, s.Description)
		place, known := was[s.ID]
		if !known || s.ID == 0 {
			d.add(at, func(f *form) { f.act("remove-segment." + strconv.Itoa(i)) }, "diff.segment.added", "segment", name,
				"who", d.whoIn(s), "percent", points(s.RolloutPercent), "shares", catalog.Name(cmp.Or(clip(shareWords(s)), d.text.plain("diff.segment.unshared"))))
			continue
		}
		kept[s.ID] = true
		order = append(order, place)
		d.segment(at, i, name, &a.Segments[place], s, a, b)
	}
	for i := range a.Segments {
		if s := &a.Segments[i]; !kept[s.ID] {
			d.add("segments", undoRemoved(a, i), "diff.segment.removed", "segment", segmentName(d.text, i, s.Description))
		}
	}
	if !slices.IsSorted(order) {
		var words []string
		for _, place := range order {
			words = append(words, strconv.Itoa(place+1))
		}
		d.add("segments", func(f *form) { sortLike(f, a) }, "diff.segment.order", "x", strings.Join(words, ", "))
	}
}

// whoIn lists the first constraints of a segment.
func (d *flagDiff) whoIn(s *entity.Segment) any {
	const shown = 3
	var words []string
	for i := range s.Constraints[:min(shown, len(s.Constraints))] {
		words = append(words, clip(d.text.constraint(&s.Constraints[i])))
	}
	if len(words) == 0 {
		return d.text.plain("diff.segment.everybody")
	}
	if len(s.Constraints) > shown {
		words = append(words, "…")
	}
	return code(clip(strings.Join(words, " "+d.text.plain("and")+" ")))
}

// undoRemoved restores the segment of a flag in a form.
func undoRemoved(a *entity.Flag, place int) func(*form) {
	return func(f *form) {
		saved := formOf(a)
		s := saved.Segments[place]
		shares := make([]string, len(f.Variants))
		for i, v := range f.Variants {
			if at := slices.IndexFunc(saved.Variants, func(o formVariant) bool { return o.ID == v.ID && v.ID != 0 }); at >= 0 {
				shares[i] = s.Shares[at]
			}
		}
		s.Shares = shares
		f.Segments = slices.Insert(f.Segments, min(place, len(f.Segments)), s)
	}
}

// sortLike sorts the segments of a form like those of a flag; new ones stay last.
func sortLike(f *form, a *entity.Flag) {
	place := func(id uint) int {
		if at := slices.IndexFunc(a.Segments, func(s entity.Segment) bool { return s.ID == id }); at >= 0 && id != 0 {
			return at
		}
		return len(a.Segments)
	}
	slices.SortStableFunc(f.Segments, func(x, y formSegment) int { return place(x.ID) - place(y.ID) })
}

func (d *flagDiff) segment(at string, place int, name template.HTML, a, b *entity.Segment, flagA, flagB *entity.Flag) {
	in := func(change func(s *formSegment)) func(*form) {
		return func(f *form) {
			if i := slices.IndexFunc(f.Segments, func(s formSegment) bool { return s.ID == a.ID }); i >= 0 {
				change(&f.Segments[i])
			}
		}
	}
	if a.Description != b.Description {
		d.add(at+".description", in(func(s *formSegment) { s.Description = a.Description }), "diff.segment.description", "n", strconv.Itoa(place+1), "x", d.arrow(catalog.Name(clip(a.Description)), catalog.Name(clip(b.Description))))
	}
	if a.RolloutPercent != b.RolloutPercent {
		d.add(at+".rollout", in(func(s *formSegment) { s.Rollout = strconv.FormatUint(uint64(a.RolloutPercent), 10) }), "diff.rollout", "segment", name,
			"x", d.arrow(points(a.RolloutPercent), points(b.RolloutPercent)))
	}
	d.constraints(at, name, a, b, in)
	d.shares(at, name, a, b, flagA, flagB)
}

func points(n uint) string { return strconv.FormatUint(uint64(n), 10) + "\u00a0%" }

func (d *flagDiff) constraints(at string, name template.HTML, a, b *entity.Segment, in func(func(*formSegment)) func(*form)) {
	was := map[uint]*entity.Constraint{}
	for i := range a.Constraints {
		was[a.Constraints[i].ID] = &a.Constraints[i]
	}
	kept := map[uint]bool{}
	for i := range b.Constraints {
		c := &b.Constraints[i]
		field := fmt.Sprintf("%s.c.%d", at, i)
		old, known := was[c.ID]
		if !known || c.ID == 0 {
			d.add(field, in(func(s *formSegment) {
				s.Constraints = slices.DeleteFunc(s.Constraints, func(o formConstraint) bool {
					operator, value := o.stored()
					return o.ID == 0 && o.Property == c.Property && operator == c.Operator && value == c.Value
				})
			}), "diff.constraint.added", "segment", name, "x", code(clip(d.text.constraint(c))))
			continue
		}
		kept[c.ID] = true
		if old.Property != c.Property || old.Operator != c.Operator || old.Value != c.Value {
			d.add(field, in(func(s *formSegment) {
				for j := range s.Constraints {
					if s.Constraints[j].ID == old.ID {
						s.Constraints[j] = constraintForm(old)
					}
				}
			}), "diff.constraint", "segment", name, "x", d.arrow(code(clip(d.text.constraint(old))), code(clip(d.text.constraint(c)))))
		}
	}
	for i := range a.Constraints {
		if c := &a.Constraints[i]; !kept[c.ID] {
			d.add(at, in(func(s *formSegment) {
				s.Constraints = slices.Insert(s.Constraints, min(i, len(s.Constraints)), constraintForm(c))
			}), "diff.constraint.removed", "segment", name, "x", code(clip(d.text.constraint(c))))
		}
	}
}

// shareWords lists the shares in the order of the variants.
func shareWords(s *entity.Segment) string {
	var words []string
	for _, share := range s.Distributions {
		words = append(words, share.VariantKey+" "+points(share.Percent))
	}
	return strings.Join(words, ", ")
}

func (d *flagDiff) shares(at string, name template.HTML, a, b *entity.Segment, flagA, flagB *entity.Flag) {
	percents := func(s *entity.Segment) map[string]uint {
		m := map[string]uint{}
		for _, share := range s.Distributions {
			if share.VariantID != 0 {
				m[strconv.FormatUint(uint64(share.VariantID), 10)] = share.Percent
			} else {
				m["new "+share.VariantKey] = share.Percent
			}
		}
		return m
	}
	x, y := percents(a), percents(b)
	same := len(x) == len(y)
	for id, n := range x {
		other, ok := y[id]
		same = same && ok && other == n
	}
	if same {
		return
	}
	d.add(at+".shares", func(f *form) {
		saved := formOf(flagA)
		for i := range f.Segments {
			for j := range saved.Segments {
				if f.Segments[i].ID == a.ID && saved.Segments[j].ID == a.ID {
					undoRemovedShares(f, &f.Segments[i], saved, &saved.Segments[j])
				}
			}
		}
	}, "diff.shares", "segment", name, "x", d.arrow(d.orNoneOf(shareWords(a)), d.orNoneOf(shareWords(b))))
	_ = flagB
}

func undoRemovedShares(f *form, s *formSegment, saved *form, old *formSegment) {
	for i, v := range f.Variants {
		s.Shares[i] = ""
		if at := slices.IndexFunc(saved.Variants, func(o formVariant) bool { return o.ID == v.ID && v.ID != 0 }); at >= 0 {
			s.Shares[i] = old.Shares[at]
		}
	}
}

func (d *flagDiff) orNoneOf(words string) any {
	if words == "" {
		return d.text.plain("none")
	}
	return catalog.Name(clip(words))
}

func (d *flagDiff) variants(a, b *entity.Flag) {
	was := map[uint]*entity.Variant{}
	for i := range a.Variants {
		was[a.Variants[i].ID] = &a.Variants[i]
	}
	kept := map[uint]bool{}
	for i := range b.Variants {
		v := &b.Variants[i]
		at := fmt.Sprintf("v.%d", i)
		old, known := was[v.ID]
		if !known || v.ID == 0 {
			d.add(at, func(f *form) { f.act("remove-variant." + strconv.Itoa(i)) }, "diff.variant.added", "x", code(v.Key))
			continue
		}
		kept[v.ID] = true
		in := func(change func(v *formVariant)) func(*form) {
			return func(f *form) {
				for j := range f.Variants {
					if f.Variants[j].ID == old.ID {
						change(&f.Variants[j])
					}
				}
			}
		}
		if old.Key != v.Key {
			d.add(at+".key", in(func(v *formVariant) { v.Key = old.Key }), "diff.variant.key", "x", d.arrow(code(old.Key), code(v.Key)))
		}
		if !old.Attachment.Same(v.Attachment) {
			d.add(at+".attachment", in(func(v *formVariant) { v.Attachment = attachmentText(old.Attachment) }), "diff.variant.attachment", "x", code(v.Key))
		}
	}
	for i := range a.Variants {
		if v := &a.Variants[i]; !kept[v.ID] {
			d.add("variants", func(f *form) {
				f.Variants = append(f.Variants, formVariant{v.ID, v.Key, attachmentText(v.Attachment)})
				for j := range f.Segments {
					f.Segments[j].Shares = append(f.Segments[j].Shares, "")
				}
			}, "diff.variant.removed", "x", code(v.Key))
		}
	}
}
