package evalcache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// ErrDocument marks an invalid flag document.
var ErrDocument = errors.New("flag document cannot be used")

// Severity is the effect of a Finding.
type Severity string

// The severities.
const (
	// SeverityError makes the document invalid.
	SeverityError Severity = "error"
	// SeverityDefect is an error in a part with an ID, as in an export. The document is valid, and
	// the flag is evaluated as by a server whose database has the same rows.
	SeverityDefect Severity = "defect"
	// SeverityWarning is for all else that is doubtful.
	SeverityWarning Severity = "warning"
)

// Finding is a problem in a flag document.
type Finding struct {
	Severity Severity
	// Flag is the key of the flag, or its place in the document if it has no key.
	Flag string
	// Part is the part of the flag, such as `segment 2, constraint 1`; empty for the flag itself.
	// Places count from 1.
	Part    string
	Message string
}

// String returns the finding in one line.
func (f Finding) String() string {
	if f.Part == "" {
		return fmt.Sprintf("flag %s: %s", f.Flag, f.Message)
	}
	return fmt.Sprintf("flag %s, %s: %s", f.Flag, f.Part, f.Message)
}

// ParseDocument parses a JSON flag document, `{"Flags": [...]}`. It returns the flags with all IDs
// and references set, and all findings about the document. The error, which matches ErrDocument, is
// not nil if the text is not such a document or if a finding is an error; it lists all errors.
//
// IDs that are missing or 0 are assigned in the order of the document, from 1 upward, without those
// in use. A distribution belongs to the variant that its VariantKey names, or without such a
// variant, to that of its VariantID. Variants of a flag may share a key only if all of them have
// IDs, as in an export; VariantID then decides.
func ParseDocument(document []byte) ([]entity.Flag, []Finding, error) {
	document = bytes.TrimPrefix(document, []byte(entity.ByteOrderMark))
	var top struct{ Flags json.RawMessage }
	if err := json.Unmarshal(entity.Shallow(document), &top); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if top.Flags == nil {
		return nil, nil, fmt.Errorf(`%w: it has no member "Flags"`, ErrDocument)
	}
	var flags []entity.Flag
	if err := json.Unmarshal(top.Flags, &flags); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}

	var p documentParser
	p.check(flags)
	var blocking []string
	for _, finding := range p.findings {
		if finding.Severity == SeverityError {
			blocking = append(blocking, finding.String())
		}
	}
	if len(blocking) > 0 {
		return nil, p.findings, fmt.Errorf("%w: %s", ErrDocument, strings.Join(blocking, "; "))
	}
	fillIDs(flags)
	return flags, p.findings, nil
}

type documentParser struct {
	flag     string // the one being checked
	findings []Finding
}

func (p *documentParser) add(severity Severity, part, format string, args ...any) {
	p.findings = append(p.findings, Finding{severity, p.flag, part, fmt.Sprintf(format, args...)})
}

// wrong adds an error, or a defect if the part has an ID.
func (p *documentParser) wrong(id uint, part, format string, args ...any) {
	severity := SeverityError
	if id != 0 {
		severity = SeverityDefect
	}
	p.add(severity, part, format, args...)
}

func (p *documentParser) check(flags []entity.Flag) {
	keys, ids := map[string]int{}, map[uint]int{}
	for i := range flags {
		f := &flags[i]
		p.flag = f.Key
		if f.Key == "" {
			p.flag = fmt.Sprintf("#%d", i+1)
			p.wrong(storedID(f), "", "key is missing")
		} else if first, ok := keys[f.Key]; ok {
			p.wrong(min(storedID(f), storedID(&flags[first])), "", "key is used by flags #%d and #%d", first+1, i+1)
		} else {
			keys[f.Key] = i
		}
		p.checkID("", f.ID, i, ids)
		p.checkVariants(f)
		p.checkSegments(f)
		for _, warning := range eval.ValuesOf(f).Warnings() {
			p.add(SeverityWarning, "", "%s", warning)
		}
	}
}

// storedID returns the ID of a flag of a database, and 0 for a flag of a document that somebody
// wrote, which may have an ID, too.
func storedID(f *entity.Flag) uint {
	if f.SnapshotID == 0 && f.CreatedAt.IsZero() {
		return 0
	}
	return f.ID
}

// checkID reports an ID that is too large or already used.
func (p *documentParser) checkID(part string, id uint, place int, taken map[uint]int) {
	if id == 0 {
		return
	}
	if id > math.MaxInt64 {
		p.add(SeverityError, part, "id %d is too large", id)
	}
	if first, ok := taken[id]; ok {
		p.add(SeverityError, part, "id %d is used at #%d and #%d", id, first+1, place+1)
		return
	}
	taken[id] = place
}

func (p *documentParser) checkVariants(f *entity.Flag) {
	if len(f.Variants) == 0 {
		p.add(SeverityWarning, "", "has no variants")
	}
	keys, ids := map[string]int{}, map[uint]int{}
	for i := range f.Variants {
		v := &f.Variants[i]
		part := fmt.Sprintf("variant %d", i+1)
		if v.Key == "" {
			p.wrong(v.ID, part, "key is missing")
		} else if first, ok := keys[v.Key]; ok {
			severity := SeverityError
			if v.ID != 0 && f.Variants[first].ID != 0 { // servers with a database allow it, and export it
				severity = SeverityWarning
			}
			p.add(severity, part, "key %q is that of variant %d, too", v.Key, first+1)
		} else {
			keys[v.Key] = i
		}
		p.checkID(part, v.ID, i, ids)
	}
}

func (p *documentParser) checkSegments(f *entity.Flag) {
	if len(f.Segments) == 0 {
		p.add(SeverityWarning, "", "has no segments")
	}
	ids := map[uint]int{}
	for i := range f.Segments {
		s := &f.Segments[i]
		part := fmt.Sprintf("segment %d", i+1)
		p.checkID(part, s.ID, i, ids)
		if s.RolloutPercent > 100 {
			p.wrong(s.ID, part, "rollout percent is %d, more than 100", s.RolloutPercent)
		}
		for j := range s.Constraints {
			part := fmt.Sprintf("%s, constraint %d", part, j+1)
			_, err := s.Constraints[j].Expr()
			if errors.Is(err, entity.ErrBeyondLimit) { // as in a database: a server exports what it has loaded
				p.add(SeverityWarning, part, "never matches: %s", err)
				continue
			}
			if err != nil {
				p.wrong(s.Constraints[j].ID, part, "%s", err)
				continue
			}
			for _, warning := range eval.Warnings(&s.Constraints[j]) {
				p.add(SeverityWarning, part, "%s", warning)
			}
		}
		p.checkDistributions(f, s, part)
	}
}

func (p *documentParser) checkDistributions(f *entity.Flag, s *entity.Segment, part string) {
	if len(s.Distributions) == 0 {
		p.add(SeverityWarning, part, "has no distributions, so no entity gets a variant")
		return
	}
	sum, tooMuch := uint(0), false
	for i := range s.Distributions {
		d := &s.Distributions[i]
		part := fmt.Sprintf("%s, distribution %d", part, i+1)
		switch v := variantOf(f, d); {
		case v == nil && len(namesakes(f, d)) > 1:
			p.wrong(d.ID, part, "the flag has several variants with key %q: VariantID must say which", d.VariantKey)
		case v != nil && (d.VariantKey == "" || d.VariantKey == v.Key):
		case d.VariantKey != "":
			p.wrong(d.ID, part, "the flag has no variant with key %q", d.VariantKey)
		case d.VariantID != 0:
			p.wrong(d.ID, part, "the flag has no variant with id %d", d.VariantID)
		default:
			p.wrong(d.ID, part, "variant key is missing")
		}
		if d.Percent > 100 {
			p.wrong(d.ID, part, "percent is %d, more than 100", d.Percent)
			tooMuch = true
		}
		sum += d.Percent
	}
	if sum != 100 && !tooMuch {
		p.wrong(s.ID, part, "percents of the distributions sum to %d, not 100", sum)
	}
}

// variantOf returns the variant of a distribution, or nil if there is none, or several. Of several
// variants with its key, it returns the one with its ID.
func variantOf(f *entity.Flag, d *entity.Distribution) *entity.Variant {
	named := namesakes(f, d)
	if len(named) == 1 {
		return named[0]
	}
	for _, v := range named {
		if v.ID == d.VariantID {
			return v
		}
	}
	for i := range f.Variants {
		if v := &f.Variants[i]; len(named) == 0 && d.VariantID != 0 && v.ID == d.VariantID {
			return v
		}
	}
	return nil
}

// namesakes returns the variants that have the key of a distribution.
func namesakes(f *entity.Flag, d *entity.Distribution) (named []*entity.Variant) {
	for i := range f.Variants {
		if v := &f.Variants[i]; d.VariantKey != "" && v.Key == d.VariantKey {
			named = append(named, v)
		}
	}
	return named
}

// fillIDs assigns missing IDs, and sets the references of parts.
func fillIDs(flags []entity.Flag) {
	var flagIDs, variantIDs, segmentIDs, constraintIDs, distributionIDs, tagIDs counter
	tags := map[string]uint{}
	for i := range flags {
		f := &flags[i]
		flagIDs.take(f.ID)
		for j := range f.Variants {
			variantIDs.take(f.Variants[j].ID)
		}
		for j := range f.Tags {
			if tag := &f.Tags[j]; tag.ID != 0 {
				tagIDs.take(tag.ID)
				tags[tag.Value] = tag.ID
			}
		}
		for j := range f.Segments {
			s := &f.Segments[j]
			segmentIDs.take(s.ID)
			for k := range s.Constraints {
				constraintIDs.take(s.Constraints[k].ID)
			}
			for k := range s.Distributions {
				d := &s.Distributions[k]
				distributionIDs.take(d.ID)
				if variantOf(f, d) == nil {
					variantIDs.take(d.VariantID) // no variant gets it
				}
			}
		}
	}
	for i := range flags {
		f := &flags[i]
		flagIDs.fill(&f.ID)
		for j := range f.Variants {
			variantIDs.fill(&f.Variants[j].ID)
			f.Variants[j].FlagID = f.ID
		}
		for j := range f.Tags {
			tag := &f.Tags[j]
			if tag.ID == 0 {
				tag.ID = tags[tag.Value] // flags share the tags with the same value
			}
			tagIDs.fill(&tag.ID)
			tags[tag.Value] = tag.ID
		}
		for j := range f.Segments {
			s := &f.Segments[j]
			segmentIDs.fill(&s.ID)
			s.FlagID = f.ID
			for k := range s.Constraints {
				constraintIDs.fill(&s.Constraints[k].ID)
				s.Constraints[k].SegmentID = s.ID
			}
			for k := range s.Distributions {
				d := &s.Distributions[k]
				distributionIDs.fill(&d.ID)
				d.SegmentID = s.ID
				if v := variantOf(f, d); v != nil {
					d.VariantID, d.VariantKey = v.ID, v.Key
				}
			}
		}
	}
}

// counter assigns unused IDs.
type counter struct {
	taken map[uint]struct{}
	last  uint
}

func (c *counter) take(id uint) {
	if c.taken == nil {
		c.taken = map[uint]struct{}{}
	}
	c.taken[id] = struct{}{}
}

func (c *counter) fill(id *uint) {
	if *id != 0 {
		return
	}
	for taken := true; taken; {
		c.last++
		_, taken = c.taken[c.last]
	}
	*id = c.last
}
