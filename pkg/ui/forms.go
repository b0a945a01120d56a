package ui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// maxFormParts limits the rows of one kind in a form.
	maxFormParts = 1000
	// wholeField is the last field of a form. It is missing in a form that was sent before its page
	// was completely loaded. Missing segments of such a form were not removed by the user.
	wholeField = "whole"
	// scriptField is in a form that a script sends.
	scriptField = "script"
)

// form is the targeting page as the user filled it in, valid or not. It can be written as hidden
// fields and parsed again, so that an error loses no input.
type form struct {
	Snapshot                            uint
	Key, Description, Notes, EntityType string
	Tags                                string
	Enabled, Records                    bool
	Variants                            []formVariant
	Segments                            []formSegment

	// attachments are the results of parseAttachment for large texts. See convert.
	attachments map[string]parsedAttachment
}

type parsedAttachment struct {
	entity.Attachment
	err error
}

// convert parses the large attachments in turn, once for all uses of the form. The error matches
// errNoTurn.
func (d *form) convert(ctx context.Context, turns budget.Turns, text *texts) error {
	d.attachments = map[string]parsedAttachment{}
	for _, v := range d.Variants {
		turn, err := turns.TakeFor(ctx, len(v.Attachment))
		if err != nil {
			return fmt.Errorf("%w: %w", errNoTurn, err)
		}
		if turn != nil {
			a, err := parseAttachment(v.Attachment, text)
			d.attachments[v.Attachment] = parsedAttachment{a, err}
		}
		turn.End()
	}
	return nil
}

type formVariant struct {
	ID         uint
	Key        string
	Attachment string
}

type formSegment struct {
	ID          uint
	Description string
	Rollout     string
	Constraints []formConstraint
	// Shares are the percentages by the index of the variant; empty means that the variant gets
	// nothing.
	Shares []string
}

type formConstraint struct {
	ID                        uint
	Property, Operator, Value string
}

// formOf returns the form of a saved flag.
func formOf(f *entity.Flag) *form {
	d := form{
		Snapshot: f.SnapshotID, Key: f.Key, Description: f.Description, Notes: f.Notes, EntityType: f.EntityType,
		Tags: strings.Join(tagValues(f), ", "), Enabled: f.Enabled, Records: f.DataRecordsEnabled,
	}
	for i := range f.Variants {
		v := &f.Variants[i]
		d.Variants = append(d.Variants, formVariant{v.ID, v.Key, attachmentText(v.Attachment)})
	}
	for i := range f.Segments {
		s := &f.Segments[i]
		one := formSegment{ID: s.ID, Description: s.Description, Rollout: strconv.FormatUint(uint64(s.RolloutPercent), 10), Shares: make([]string, len(f.Variants))}
		for j := range s.Constraints {
			c := &s.Constraints[j]
			one.Constraints = append(one.Constraints, constraintForm(c))
		}
		for j := range s.Distributions {
			share := &s.Distributions[j]
			if at := slices.IndexFunc(f.Variants, func(v entity.Variant) bool { return v.ID == share.VariantID }); at >= 0 {
				one.Shares[at] = strconv.FormatUint(uint64(share.Percent), 10)
			}
		}
		d.Segments = append(d.Segments, one)
	}
	return &d
}

// parseForm parses a form from a browser.
func parseForm(v url.Values) *form {
	id := func(name string) uint {
		n, _ := strconv.ParseUint(v.Get(name), 10, 63)
		return uint(n)
	}
	d := form{
		Snapshot: id("snapshot"), Key: strings.TrimSpace(v.Get("key")), Description: v.Get("description"), Notes: unixLines(v.Get("notes")),
		EntityType: strings.TrimSpace(v.Get("entity")), Tags: v.Get("tags"), Enabled: v.Get("enabled") == "on", Records: v.Get("records") == "on",
	}
	for i := range maxFormParts + 1 { // checkSize rejects one more than allowed
		at := fmt.Sprintf("v.%d.", i)
		if !v.Has(at + "key") {
			break
		}
		d.Variants = append(d.Variants, formVariant{id(at + "id"), strings.TrimSpace(v.Get(at + "key")), unixLines(v.Get(at + "attachment"))})
	}
	for i := range maxFormParts + 1 {
		at := fmt.Sprintf("s.%d.", i)
		if !v.Has(at + "rollout") {
			break
		}
		s := formSegment{ID: id(at + "id"), Description: v.Get(at + "description"), Rollout: strings.TrimSpace(v.Get(at + "rollout"))}
		for j := range maxFormParts + 1 {
			c := fmt.Sprintf("%sc.%d.", at, j)
			if !v.Has(c + "property") {
				break
			}
			one := formConstraint{id(c + "id"), strings.TrimSpace(v.Get(c + "property")), v.Get(c + "operator"), v.Get(c + "value")}
			if patternOf[one.Operator] == "" { // spaces around plain text belong to it
				one.Value = strings.TrimSpace(one.Value)
			}
			s.Constraints = append(s.Constraints, one)
		}
		d.Segments = append(d.Segments, s)
	}
	if len(d.Variants)*len(d.Segments) > maxFormFields {
		return &d // checkSize rejects it
	}
	for i := range d.Segments {
		for j := range d.Variants {
			d.Segments[i].Shares = append(d.Segments[i].Shares, strings.TrimSpace(v.Get(fmt.Sprintf("s.%d.d.%d", i, j))))
		}
	}
	return &d
}

// checkSize reports, as entity.ErrInvalid, a form with more rows of one kind than maxFormParts, or
// with more shares than a form can have fields.
func (u *UI) checkSize(d *form) error {
	if len(d.Variants)*len(d.Segments) > maxFormFields {
		return entity.Invalid("%s", u.text.plain("edit.err.shares", "most", maxFormFields))
	}
	most := max(len(d.Variants), len(d.Segments))
	for i := range d.Segments {
		most = max(most, len(d.Segments[i].Constraints))
	}
	if most > maxFormParts {
		return entity.Invalid("%s", u.text.plain("edit.err.parts", "most", maxFormParts))
	}
	return nil
}

// checkGrown reports, as entity.ErrInvalid, a form that a button has made larger than a browser can
// send.
func (u *UI) checkGrown(d *form) error {
	if err := u.checkSize(d); err != nil {
		return err
	}
	if n := d.fields(); n > maxFormFields {
		return entity.Invalid("%s", u.text.plain("edit.err.full", "n", n, "most", maxFormFields))
	}
	return nil
}

// unixLines ends lines as a text area of a browser does, before it sends them.
func unixLines(text string) string {
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
}

// oneLine removes line ends as a text field of a browser does.
func oneLine(text string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(text) }

// keepLines restores the line ends of texts that are unchanged otherwise, because browsers replace
// them in notes, and remove them in fields of one line.
func (d *form) keepLines(saved *entity.Flag) {
	if d.Notes == unixLines(saved.Notes) {
		d.Notes = saved.Notes
	}
	keep := func(field *string, saved string) {
		if *field == oneLine(saved) {
			*field = saved
		}
	}
	keep(&d.Description, saved.Description)
	for i := range d.Segments {
		s := &d.Segments[i]
		at := slices.IndexFunc(saved.Segments, func(one entity.Segment) bool { return one.ID == s.ID })
		if at < 0 {
			continue
		}
		before := &saved.Segments[at]
		keep(&s.Description, before.Description)
		for j := range s.Constraints {
			c := &s.Constraints[j]
			if at := slices.IndexFunc(before.Constraints, func(one entity.Constraint) bool { return one.ID == c.ID }); at >= 0 {
				keep(&c.Value, before.Constraints[at].Value)
			}
		}
	}
}

// values returns the form as fields, the reverse of parseForm.
func (d *form) values() []option {
	var all []option
	add := func(name, value string) { all = append(all, option{Name: name, Value: value}) }
	number := func(name string, n uint) { add(name, strconv.FormatUint(uint64(n), 10)) }
	number("snapshot", d.Snapshot)
	add("key", d.Key)
	add("description", d.Description)
	add("notes", d.Notes)
	add("entity", d.EntityType)
	add("tags", d.Tags)
	for name, on := range map[string]bool{"enabled": d.Enabled, "records": d.Records} {
		if on {
			add(name, "on")
		}
	}
	for i, v := range d.Variants {
		at := fmt.Sprintf("v.%d.", i)
		number(at+"id", v.ID)
		add(at+"key", v.Key)
		add(at+"attachment", v.Attachment)
	}
	for i, s := range d.Segments {
		at := fmt.Sprintf("s.%d.", i)
		number(at+"id", s.ID)
		add(at+"description", s.Description)
		add(at+"rollout", s.Rollout)
		for j, c := range s.Constraints {
			to := fmt.Sprintf("%sc.%d.", at, j)
			number(to+"id", c.ID)
			add(to+"property", c.Property)
			add(to+"operator", c.Operator)
			add(to+"value", c.Value)
		}
		for j, share := range s.Shares {
			add(fmt.Sprintf("%sd.%d", at, j), share)
		}
	}
	add(wholeField, "1")
	return all
}

// fields returns the number of fields, as a browser sends them.
func (d *form) fields() int {
	const ofFlag, ofVariant, ofSegment, ofConstraint = 11, 3, 3, 4 // with that of the button
	n := ofFlag + ofVariant*len(d.Variants)
	for i := range d.Segments {
		s := &d.Segments[i]
		n += ofSegment + ofConstraint*len(s.Constraints) + len(s.Shares)
	}
	return n
}

// act performs a button that changes the form and saves nothing: "add-segment", "remove-segment.2",
// "up.1", "down.0", "add-constraint.0", "remove-constraint.0.1", "add-variant", "remove-variant.3",
// "split.0", "quote.0.1", "unquote.0.1".
func (d *form) act(action string) {
	name, rest, _ := strings.Cut(action, ".")
	var at []int
	for part := range strings.SplitSeq(rest, ".") {
		if n, err := strconv.Atoi(part); err == nil && n >= 0 {
			at = append(at, n)
		}
	}
	segment := func() *formSegment {
		if len(at) > 0 && at[0] < len(d.Segments) {
			return &d.Segments[at[0]]
		}
		return nil
	}
	switch name {
	case "add-segment":
		d.addSegment()
	case "add-variant":
		d.Variants = append(d.Variants, formVariant{})
		for i := range d.Segments {
			d.Segments[i].Shares = append(d.Segments[i].Shares, "")
		}
	case "remove-variant":
		d.removeVariant(at)
	}
	s := segment()
	if s == nil {
		return
	}
	switch name {
	case "remove-segment":
		d.Segments = slices.Delete(d.Segments, at[0], at[0]+1)
	case "up":
		if at[0] > 0 {
			d.Segments[at[0]-1], d.Segments[at[0]] = d.Segments[at[0]], d.Segments[at[0]-1]
		}
	case "down":
		if at[0]+1 < len(d.Segments) {
			d.Segments[at[0]+1], d.Segments[at[0]] = d.Segments[at[0]], d.Segments[at[0]+1]
		}
	case "add-constraint":
		s.Constraints = append(s.Constraints, formConstraint{Operator: "EQ"})
	case "split":
		s.split()
	}
	if len(at) < 2 || at[1] >= len(s.Constraints) {
		return
	}
	switch c := &s.Constraints[at[1]]; name {
	case "remove-constraint":
		s.Constraints = slices.Delete(s.Constraints, at[1], at[1]+1)
	case "quote":
		c.Value = strconv.Quote(c.Value)
	case "unquote":
		c.Value = unquoted(c.Value)
	}
}

// unquoted returns the string between quotes, or the value if it has none.
func unquoted(value string) string {
	if text, err := strconv.Unquote(value); err == nil && value[0] == '"' {
		return text
	}
	return value
}

// addSegment adds a segment that matches every entity and splits evenly.
func (d *form) addSegment() {
	s := formSegment{Rollout: "100", Shares: make([]string, len(d.Variants))}
	s.split()
	d.Segments = append(d.Segments, s)
}

func (d *form) removeVariant(at []int) {
	if len(at) == 0 || at[0] >= len(d.Variants) {
		return
	}
	d.Variants = slices.Delete(d.Variants, at[0], at[0]+1)
	for i := range d.Segments {
		if s := &d.Segments[i]; at[0] < len(s.Shares) {
			s.Shares = slices.Delete(s.Shares, at[0], at[0]+1)
		}
	}
}

// split gives every variant the same share. If 100 is not divisible, the first ones get one point
// more.
func (s *formSegment) split() {
	n := len(s.Shares)
	for i := range s.Shares {
		share := 100 / n
		if i < 100%n {
			share++
		}
		s.Shares[i] = strconv.Itoa(share)
	}
}

// fieldError is the error of one field of the form.
type fieldError struct{ Field, Message string }

// where names a field of the form in words, or returns "" if it has no name, or its message needs
// none.
func (c *texts) where(field string) string {
	parts := strings.Split(field, ".")
	var places []any
	for i, name := range []string{"n", "m"} {
		if at := 1 + 2*i; at < len(parts) {
			n, _ := strconv.Atoi(parts[at])
			places = append(places, name, strconv.Itoa(n+1))
		}
	}
	if len(parts) == 1 {
		return c.plain(map[string]string{"key": "edit.key", "entity": "edit.entity", "description": "edit.description", "tags": "column.tags", "notes": "notes"}[field])
	}
	if len(parts) == 4 && parts[2] == "d" {
		return c.plain("edit.at.share", places...)
	}
	last := parts[len(parts)-1]
	var part string
	switch {
	case len(parts) == 3 && parts[0] == "v" && slices.Contains([]string{"key", "attachment"}, last):
		part = "edit.at.variant"
	case len(parts) == 3 && parts[0] == "s" && slices.Contains([]string{"description", "rollout", "shares"}, last):
		part = "edit.at.segment"
	case len(parts) == 5 && slices.Contains([]string{"property", "operator", "value"}, last):
		part = "edit.at.constraint"
	default:
		return ""
	}
	return c.plain(part, append(places, "field", c.plain("edit.at."+last))...)
}

// definition converts the form to a definition to save, and returns the errors of invalid fields.
func (d *form) definition(text *texts) (entity.Definition, []fieldError) {
	var errs []fieldError
	percentOf := func(field, value string) uint {
		if value == "" {
			return 0
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > 100 {
			errs = append(errs, fieldError{field, text.plain("edit.err.percent", "x", value)})
		}
		return uint(n)
	}
	out := entity.Definition{
		SnapshotID: d.Snapshot, Key: &d.Key, Description: &d.Description, Notes: &d.Notes, EntityType: &d.EntityType,
		Enabled: &d.Enabled, DataRecordsEnabled: &d.Records, Tags: []string{},
		Variants: make([]entity.VariantDefinition, len(d.Variants)), Segments: make([]entity.SegmentDefinition, len(d.Segments)),
	}
	for tag := range strings.SplitSeq(d.Tags, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			out.Tags = append(out.Tags, tag)
		}
	}
	for i, v := range d.Variants {
		parsed, ok := d.attachments[v.Attachment]
		if !ok {
			parsed.Attachment, parsed.err = parseAttachment(v.Attachment, text)
		}
		if parsed.err != nil {
			errs = append(errs, fieldError{fmt.Sprintf("v.%d.attachment", i), parsed.err.Error()})
		}
		out.Variants[i] = entity.VariantDefinition{ID: v.ID, Key: v.Key, Attachment: parsed.Attachment}
	}
	for i, s := range d.Segments {
		at := fmt.Sprintf("s.%d.", i)
		if s.Rollout == "" {
			errs = append(errs, fieldError{at + "rollout", text.plain("edit.err.percent", "x", "")})
		}
		one := entity.SegmentDefinition{
			ID: s.ID, Description: s.Description, RolloutPercent: percentOf(at+"rollout", s.Rollout),
			Constraints: make([]entity.ConstraintDefinition, len(s.Constraints)), Distributions: []entity.DistributionDefinition{},
		}
		for j, c := range s.Constraints {
			operator, value := c.stored()
			if patternOf[c.Operator] != "" && c.Value == "" {
				errs = append(errs, fieldError{fmt.Sprintf("%sc.%d.value", at, j), text.plain("edit.err.notext")})
			}
			one.Constraints[j] = entity.ConstraintDefinition{ID: c.ID, Property: c.Property, Operator: operator, Value: value}
		}
		for j, share := range s.Shares {
			if share != "" && j < len(d.Variants) {
				v := d.Variants[j]
				one.Distributions = append(one.Distributions, entity.DistributionDefinition{VariantID: v.ID, VariantKey: v.Key, Percent: percentOf(fmt.Sprintf("%sd.%d", at, j), share)})
			}
		}
		out.Segments[i] = one
	}
	return out, errs
}

// placed returns the field of a share by the place of its variant. Problems have the places of the
// shares in the definition, which has no empty shares.
func (d *form) placed(field string) string {
	var segment, share int
	if _, err := fmt.Sscanf(field, "s.%d.d.%d", &segment, &share); err != nil || segment >= len(d.Segments) {
		return field
	}
	for place, percent := range d.Segments[segment].Shares {
		if percent == "" {
			continue
		}
		if share == 0 {
			return fmt.Sprintf("s.%d.d.%d", segment, place)
		}
		share--
	}
	return field
}

// parseAttachment parses a JSON object; an empty string is an empty object. The error has line and
// column.
func parseAttachment(source string, text *texts) (entity.Attachment, error) {
	source = strings.TrimPrefix(source, entity.ByteOrderMark)
	if strings.TrimSpace(source) == "" {
		return "{}", nil
	}
	a, err := entity.ParseAttachment(source)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		line, column := position(source, int(syntax.Offset))
		return "", errors.New(text.plain("edit.err.json", "line", line, "column", column, "why", syntax.Error()))
	case errors.As(err, &kind), err == nil && a == "":
		return "", errors.New(text.plain("edit.err.object", "example", `{"country": "FR"}`))
	case err != nil:
		return "", errors.New(text.problem(err))
	}
	return a, nil
}

func position(source string, offset int) (line, column int) {
	before := source[:max(0, min(offset, len(source))-1)]
	line = strings.Count(before, "\n") + 1
	return line, len([]rune(before[strings.LastIndexByte(before, '\n')+1:])) + 1
}

// fieldOf converts the path of a problem, such as segments[0].constraints[1].value, to the name of
// the field. It returns "" for the ID of a part, which no user can change.
func fieldOf(path string) string {
	replacer := strings.NewReplacer("segments[", "s.", "constraints[", "c.", "variants[", "v.", "]", "", "rolloutPercent", "rollout", "entityType", "entity")
	switch {
	case strings.HasSuffix(path, ".id"):
		return ""
	case strings.HasPrefix(path, "tags"):
		return "tags"
	case strings.Contains(path, ".distributions"):
		segment, rest, _ := strings.Cut(path, ".distributions")
		field := replacer.Replace(segment)
		if !strings.HasPrefix(rest, "[") {
			return field + ".shares"
		}
		place, _, _ := strings.Cut(rest[1:], "]")
		return field + ".d." + place
	case path == "variants" || path == "segments":
		return path
	}
	return replacer.Replace(path)
}
