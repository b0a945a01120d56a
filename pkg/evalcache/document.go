package evalcache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
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
	// SeverityWarning does not.
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
// in use. A distribution belongs to the variant that its VariantKey names; without a key, to the
// variant of its VariantID. Variants of a flag may share a key only if all of them have IDs, as in
// an export; VariantID then decides.
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

func (p *documentParser) check(flags []entity.Flag) {
	keys, ids := map[string]int{}, map[uint]int{}
	for i := range flags {
		f := &flags[i]
		p.flag = f.Key
		if f.Key == "" {
			p.flag = fmt.Sprintf("#%d", i+1)
			p.add(SeverityError, "", "key is missing")
		} else if first, ok := keys[f.Key]; ok {
			p.add(SeverityError, "", "key is used by flags #%d and #%d", first+1, i+1)
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
			p.add(SeverityError, part, "key is missing")
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
			p.add(SeverityError, part, "rollout percent is %d, more than 100", s.RolloutPercent)
		}
		for j := range s.Constraints {
			part := fmt.Sprintf("%s, constraint %d", part, j+1)
			_, err := s.Constraints[j].Expr()
			if errors.Is(err, entity.ErrBeyondLimit) { // as in a database: a server exports what it has loaded
				p.add(SeverityWarning, part, "never matches: %s", err)
				continue
			}
			if err != nil {
				p.add(SeverityError, part, "%s", err)
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
		case v != nil && v.ID != d.VariantID && sharesKey(f, v):
			p.add(SeverityError, part, "the flag has several variants with key %q: VariantID must say which", d.VariantKey)
		case v != nil:
		case d.VariantKey != "":
			p.add(SeverityError, part, "the flag has no variant with key %q", d.VariantKey)
		case d.VariantID != 0:
			p.add(SeverityError, part, "the flag has no variant with id %d", d.VariantID)
		default:
			p.add(SeverityError, part, "variant key is missing")
		}
		if d.Percent > 100 {
			p.add(SeverityError, part, "percent is %d, more than 100", d.Percent)
			tooMuch = true
		}
		sum += d.Percent
	}
	if sum != 100 && !tooMuch {
		p.add(SeverityError, part, "percents of the distributions sum to %d, not 100", sum)
	}
}

// variantOf returns the variant of a distribution, or nil if the flag does not have it. Of several
// variants with its key, it returns the one with its ID, or else the first.
func variantOf(f *entity.Flag, d *entity.Distribution) *entity.Variant {
	var first *entity.Variant
	for i := range f.Variants {
		v := &f.Variants[i]
		hasID := d.VariantID != 0 && v.ID == d.VariantID
		switch {
		case hasID && (d.VariantKey == "" || d.VariantKey == v.Key):
			return v
		case first == nil && d.VariantKey != "" && d.VariantKey == v.Key:
			first = v
		}
	}
	return first
}

func sharesKey(f *entity.Flag, v *entity.Variant) bool {
	return slices.ContainsFunc(f.Variants, func(other entity.Variant) bool { return other.Key == v.Key && other.ID != v.ID })
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
				distributionIDs.take(s.Distributions[k].ID)
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
				v := variantOf(f, d)
				d.VariantID, d.VariantKey = v.ID, v.Key
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
