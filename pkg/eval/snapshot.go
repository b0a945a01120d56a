package eval

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// buckets is the number of parts over which entities are spread; one percent of a distribution
	// is ten of them.
	buckets           = 1000
	bucketsPerPercent = buckets / 100
	// maxPercent limits what a damaged row can add to the arithmetic. It is far beyond the allowed
	// 100.
	maxPercent = 1_000_000
)

// Snapshot is the state of all flags at one time, prepared for evaluation. It is immutable and safe
// for concurrent use.
type Snapshot struct {
	flags []*flag // by id
	byID  map[int64]*flag
	byKey map[string]*flag
	byTag map[string][]*flag // each by id
	// maxPatterns limits the sizes of all patterns.
	maxPatterns int
	patterns    *sharedPatterns
	// unreadable are the flags that were read last and are not evaluated, sorted by ID.
	unreadable []*entity.Flag
}

// flag is an entity.Flag prepared for evaluation.
type flag struct {
	source *entity.Flag
	id     int64
	tags   []string
	// hash is the checksum of the decimal ID, to be continued with the entity ID.
	hash uint32
	// plainType reports whether the entity type of the flag is the same in JSON.
	plainType bool
	segments  []segment
	// blank and message are set if the flag gives every entity the same result without a variant.
	blank   Reason
	message string
	// json has the members of an evalResult that describe the flag, each followed by a comma.
	json string
	// values are the values of the variants in OpenFeature.
	values *Values
	// given has the shares of all segments, in the order of their indexes.
	given []*share
	// derived is the result of CompiledFlag.Derived.
	derived atomic.Pointer[derivation]
	// patterns is the sum of the sizes of the compiled patterns.
	patterns int
	// matches reports whether it compares with patterns, or with what a context has as patterns.
	matches bool
	// parts is the number of its segments and of the operators in its constraints.
	parts int
	// answerBytes is the approximate maximum length of the part of an evalResult that depends only
	// on the flag.
	answerBytes int
	// problems are the parts of the flag that could not be used.
	problems []error
}

type segment struct {
	id             int64
	rolloutPercent int
	conditions     []condition
	shares         []share
	// byBucket reports whether entities that match get different results.
	byBucket bool
	// static reports whether all entities get the same result, regardless of their context.
	static bool
}

// share is the range of buckets of one variant, from the bound of the previous share to its own.
type share struct {
	bound   int // exclusive
	variant *entity.Variant
	// middle and end are parts of an evalResult: what is between the flag and the time, and
	// everything after the time. The shares of a segment have the same middle, and those of a
	// variant the same end.
	middle, end string
	segment     *segment
	index       int // in flag.given
}

// Compile prepares flags for evaluation and keeps their parts, which must not change afterward. It
// never fails: if a constraint does not parse, its segment matches no entity, and Problems reports
// it. Deleted flags are omitted, and so are flags with values that cannot be read, which Problems
// reports, too.
func Compile(flags []entity.Flag) *Snapshot {
	return (&Snapshot{maxPatterns: maxPatterns, patterns: newSharedPatterns()}).Replace(flags)
}

// Replace is Compile for flags that take the place of all flags of s. It shares the large patterns
// with s that both have.
func (s *Snapshot) Replace(flags []entity.Flag) *Snapshot {
	return s.index(compileFlags(make([]*flag, 0, len(flags)), flags, patterns{s.maxPatterns, s.patterns}), flags)
}

// With returns a snapshot with the changed flags, in place of those with the same IDs in s if there
// are any, and without the flags whose IDs are gone. It shares all other flags with s, so that only
// changed flags take time and memory, except for a few pointers. Flags with values that cannot be
// read are in no snapshot, so they are always among the changed ones as long as they exist.
func (s *Snapshot) With(changed []entity.Flag, gone []uint) *Snapshot {
	replaced := make(map[int64]bool, len(changed)+len(gone))
	for i := range changed {
		replaced[int64(changed[i].ID)] = true
	}
	for _, id := range gone {
		replaced[int64(id)] = true
	}
	flags, patterns := make([]*flag, 0, len(s.flags)+len(changed)), patterns{s.maxPatterns, s.patterns}
	for _, f := range s.flags {
		if !replaced[f.id] {
			flags = append(flags, f)
			patterns.left -= f.patterns
		}
	}
	return s.index(compileFlags(flags, changed, patterns), changed)
}

// compileFlags appends the flags that are not deleted and can be read. The sizes of their patterns
// add up to at most p.left.
func compileFlags(compiled []*flag, flags []entity.Flag, p patterns) []*flag {
	known := knownConditions{}
	for i := range flags {
		if !flags[i].DeletedAt.Valid && flags[i].Unreadable == "" {
			f := compileFlag(&flags[i], p, known)
			p.left -= f.patterns
			compiled = append(compiled, f)
		}
	}
	return compiled
}

// index returns a snapshot of flags with the limit and the patterns of s, and keeps the list. read
// are the flags that were read for it.
func (s *Snapshot) index(flags []*flag, read []entity.Flag) *Snapshot {
	indexed := &Snapshot{
		flags: flags,
		byID:  make(map[int64]*flag, len(flags)),
		byKey: make(map[string]*flag, len(flags)),
		byTag: map[string][]*flag{},

		maxPatterns: s.maxPatterns,
		patterns:    s.patterns,
	}
	for i := range read {
		if f := &read[i]; f.Unreadable != "" && !f.DeletedAt.Valid {
			indexed.unreadable = append(indexed.unreadable, new(*f)) // a copy, so that it does not keep the list in memory
		}
	}
	slices.SortFunc(indexed.unreadable, compareFlags)
	slices.SortStableFunc(indexed.flags, func(a, b *flag) int { return cmp.Compare(a.id, b.id) })
	for _, f := range indexed.flags {
		indexed.byID[f.id] = f
		if f.source.Key != "" {
			indexed.byKey[f.source.Key] = f
		}
		for _, tag := range f.tags {
			if tagged := indexed.byTag[tag]; len(tagged) == 0 || tagged[len(tagged)-1] != f {
				indexed.byTag[tag] = append(tagged, f)
			}
		}
	}
	return indexed
}

// knownConditions are compiled constraints without patterns. Equal constraints share one. A nil map
// shares nothing.
type knownConditions map[conditionSource]condition

type conditionSource struct{ property, operator, value string }

// compile is compileConstraint for a constraint that may already be compiled.
func (k knownConditions) compile(c *entity.Constraint, p *patterns) condition {
	source := conditionSource{c.Property, c.Operator, c.Value}
	if known, ok := k[source]; ok {
		return known
	}
	before := p.left
	compiled := compileConstraint(c, p)
	if k != nil && p.left == before { // the patterns of each constraint count, so they are not shared
		k[source] = compiled
	}
	return compiled
}

// compileFlag compiles a copy of the flag, so that the flag does not keep its list in memory.
func compileFlag(of *entity.Flag, p patterns, known knownConditions) *flag {
	source := new(*of)
	source.Variants = slices.Clone(source.Variants) // because shareEnd changes them
	f := &flag{source: source, id: int64(source.ID), plainType: entity.IsPlain(source.EntityType), segments: make([]segment, 0, len(source.Segments))}
	decimal := strconv.FormatInt(f.id, 10)
	f.hash = crc32.ChecksumIEEE([]byte(decimal))
	for i := range source.Tags {
		f.tags = append(f.tags, source.Tags[i].Value)
	}
	switch {
	case !source.Enabled:
		f.blank, f.message = FlagDisabled, "flagID "+decimal+" is not enabled"
	case len(source.Segments) == 0:
		f.blank, f.message = NoSegments, "flagID "+decimal+" has no segments"
	}
	f.answerBytes = len(f.message)
	variants := make(map[uint]*variant, len(source.Variants))
	for i := range source.Variants {
		v := &source.Variants[i]
		if v.Attachment.Cut() {
			f.problems = append(f.problems, fmt.Errorf("flag %d (%s): attachment of variant %d (%s) nests some 1,000 levels or more: "+
				"what is deeper is read as null; save it with at most %d levels", source.ID, source.Key, v.ID, v.Key, entity.MaxJSONDepth))
		}
		variants[v.ID] = &variant{Variant: v}
		f.answerBytes = max(f.answerBytes, len(v.Attachment.JSON())+len(v.Key)+maxEndBytes)
	}
	f.values = ValuesOf(source)
	for _, warning := range f.values.Warnings() {
		f.problems = append(f.problems, fmt.Errorf("flag %d (%s): %s", source.ID, source.Key, warning))
	}
	before := p.left
	f.json = string(appendFlag(nil, f.id, source.Key, int64(source.SnapshotID), f.tags))
	for _, segment := range sorted(source.Segments, func(a, b *entity.Segment) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.ID, b.ID))
	}) {
		f.segments = append(f.segments, f.compileSegment(segment, variants, &p, known))
	}
	f.answerBytes += len(f.json) + len(source.EntityType)
	for i := range f.segments {
		s := &f.segments[i]
		s.static = i == 0 && len(s.conditions) == 0 && !s.byBucket
		f.parts++
		for j := range s.conditions {
			f.parts += s.conditions[j].operators
			f.matches = f.matches || s.conditions[j].matches
		}
		for j := range s.shares {
			given := &s.shares[j]
			given.segment, given.index = s, len(f.given)
			f.given = append(f.given, given)
		}
	}
	f.patterns = before - p.left
	return f
}

func (f *flag) compileSegment(source *entity.Segment, variants map[uint]*variant, p *patterns, known knownConditions) segment {
	compiled := segment{id: int64(source.ID), rolloutPercent: int(min(source.RolloutPercent, maxPercent))}
	problem := func(format string, args ...any) {
		f.problems = append(f.problems, fmt.Errorf("flag %d (%s), segment %d: %w", f.id, f.source.Key, source.ID, fmt.Errorf(format, args...)))
	}
	compiled.conditions = compileConstraints(source.Constraints, p, known, problem)
	middle := string(appendSource(nil, SourceEvaluation, compiled.id)) + timestampName
	bound := 0
	for _, d := range sorted(source.Distributions, func(a, b *entity.Distribution) int { return cmp.Compare(a.VariantID, b.VariantID) }) {
		bound += int(min(d.Percent, maxPercent)) * bucketsPerPercent
		given := share{bound: bound, middle: middle}
		if v := variants[d.VariantID]; v != nil {
			given.variant, given.end = v.Variant, v.shareEnd()
		} else if d.Percent > 0 {
			problem("distribution %d gives nothing: variant %d is not one of the flag", d.ID, d.VariantID)
		}
		compiled.shares = append(compiled.shares, given)
	}
	compiled.byBucket = !compiled.uniform()
	return compiled
}

// uniform reports whether all buckets get the same result.
func (s *segment) uniform() bool {
	if s.rolloutPercent == 0 || len(s.shares) == 0 {
		return true
	}
	lower := 0
	for i := range s.shares {
		if bound := s.shares[i].bound; bound > lower { // the first share with buckets must have all of them
			return s.rolloutPercent >= 100 && bound >= buckets || bound >= buckets && s.shares[i].variant == nil
		}
	}
	return true
}

// compileConstraints compiles the constraints of a segment, which must all hold.
func compileConstraints(constraints []entity.Constraint, p *patterns, known knownConditions, problem func(format string, args ...any)) []condition {
	joined, err := entity.JoinedExpr(constraints)
	if joined != nil {
		c := compileExpr("of all constraints joined by AND", joined, p)
		if c.err != nil {
			problem("%w", c.err)
		}
		return []condition{c}
	}
	conditions := make([]condition, 0, len(constraints))
	usable := true
	for i := range constraints {
		c := known.compile(&constraints[i], p)
		switch {
		case c.root == nil:
			problem("constraint %d never matches: %w", constraints[i].ID, c.err)
			usable = false
		case c.err != nil:
			problem("constraint %d: %w", constraints[i].ID, c.err)
		}
		conditions = append(conditions, c)
	}
	if usable && err != nil {
		problem("the constraints cannot be joined by AND, so that the segment never matches: %w", err)
		return []condition{{text: "of all constraints joined by AND", err: err, never: true}}
	}
	return conditions
}

// variant is an entity.Variant with the end of an evalResult, which is empty until it is needed.
type variant struct {
	*entity.Variant
	end string
}

const (
	attachmentName = `","variantAttachment":`
	// maxEndBytes is the maximum length of the end of an evalResult without attachment and key.
	maxEndBytes = len(attachmentName + `,"variantID":-9223372036854775808,"variantKey":""}`)
)

// shareEnd returns the end of an evalResult, after the time. It makes the attachment of the variant
// a part of it, so that there is one copy of it in memory.
func (v *variant) shareEnd() string {
	if v.end != "" {
		return v.end
	}
	attachment := v.Attachment.JSON()
	rest := appendNumber([]byte{','}, `"variantID":`, int64(v.ID))
	rest = appendText(rest, `"variantKey":`, v.Key)
	rest[len(rest)-1] = '}'
	var b strings.Builder
	b.Grow(len(attachmentName) + len(attachment) + len(rest))
	b.WriteString(attachmentName)
	b.WriteString(attachment)
	b.Write(rest)
	v.end = b.String()
	if v.Attachment != "" {
		v.Attachment = entity.Attachment(v.end[len(attachmentName) : len(attachmentName)+len(attachment)])
	}
	return v.end
}

// sorted returns sorted pointers to the items of s, and does not change s.
func sorted[T any](s []T, compare func(a, b *T) int) []*T {
	pointers := make([]*T, len(s))
	for i := range s {
		pointers[i] = &s[i]
	}
	slices.SortStableFunc(pointers, compare)
	return pointers
}

// Problems reports what Compile could not use, for the log.
func (s *Snapshot) Problems() []error {
	var problems []error
	for _, f := range s.unreadable {
		problems = append(problems, fmt.Errorf("flag %d (%s) is not evaluated: %s", f.ID, f.Key, f.Unreadable))
	}
	for _, f := range s.flags {
		problems = append(problems, f.problems...)
	}
	return problems
}

// Len returns the number of flags.
func (s *Snapshot) Len() int { return len(s.flags) }

// Flags returns all flags sorted by ID. They must not be changed.
func (s *Snapshot) Flags() []*entity.Flag { return sources(s.flags) }

// Listed returns Flags and those that are not evaluated because a value cannot be read, sorted by
// ID. They must not be changed.
func (s *Snapshot) Listed() []*entity.Flag {
	listed := append(s.Flags(), s.unreadable...)
	if len(s.unreadable) > 0 {
		slices.SortFunc(listed, compareFlags)
	}
	return listed
}

func compareFlags(a, b *entity.Flag) int { return cmp.Compare(a.ID, b.ID) }

func sources(flags []*flag) []*entity.Flag {
	sources := make([]*entity.Flag, len(flags))
	for i, f := range flags {
		sources[i] = f.source
	}
	return sources
}

// Flag returns the flag with the given ID, or else the flag with the given key, or else the flag
// whose ID is the key in decimal, or else nil. It must not be changed.
func (s *Snapshot) Flag(id int64, key string) *entity.Flag {
	if f := s.find(id, key); f != nil {
		return f.source
	}
	return nil
}

func (s *Snapshot) find(id int64, key string) *flag {
	if id != 0 {
		if f := s.byID[id]; f != nil {
			return f
		}
	}
	if key == "" {
		return nil
	}
	if f := s.byKey[key]; f != nil {
		return f
	}
	if key[0] < '1' || key[0] > '9' { // ids have no sign and no leading zero
		return nil
	}
	id, err := strconv.ParseInt(key, 10, 64)
	if err != nil {
		return nil
	}
	return s.byID[id]
}

// tagged returns the flags that have any or all of the tags (see TagsAny and TagsAll), sorted by
// ID.
func (s *Snapshot) tagged(tags []string, operator string) []*flag {
	if len(tags) == 0 {
		return nil
	}
	tags = unique(tags)
	found := slices.Clone(s.byTag[tags[0]])
	if operator == TagsAll {
		if slices.ContainsFunc(tags, func(tag string) bool { return len(s.byTag[tag]) == 0 }) {
			return nil
		}
		return slices.DeleteFunc(found, func(f *flag) bool {
			return slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(f.tags, tag) })
		})
	}
	for _, tag := range tags[1:] {
		found = append(found, s.byTag[tag]...)
	}
	slices.SortFunc(found, func(a, b *flag) int { return cmp.Compare(a.id, b.id) })
	return slices.Compact(found)
}

// Evaluate evaluates a request at the current time, without recording. With debug it sets
// SegmentLogs, which is slow.
func (s *Snapshot) Evaluate(request Request, now time.Time, debug bool) *Result {
	result := &Result{}
	s.EvaluateInto(request, now, debug, result)
	return result
}

// EvaluateInto is Evaluate with the caller's memory. It overwrites result.
func (s *Snapshot) EvaluateInto(request Request, now time.Time, debug bool, result *Result) {
	*result = Result{Request: request, Timestamp: now.UTC()}
	f := s.find(request.FlagID, request.FlagKey)
	f.describe(result)
	f.decide(result, debug, rand.Int32)
}
