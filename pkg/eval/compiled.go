package eval

import (
	"context"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// CompiledFlag is a flag of a snapshot. Snapshots share those that have not changed, so it may be the key of what is derived
// from a flag. The zero value is no flag.
type CompiledFlag struct{ flag *flag }

// Compiled returns all flags in the order of their ids.
func (s *Snapshot) Compiled() []CompiledFlag {
	flags := make([]CompiledFlag, len(s.flags))
	for i, f := range s.flags {
		flags[i] = CompiledFlag{f}
	}
	return flags
}

// Find returns the flag with the given key, or else the one whose id is the key in decimal.
func (s *Snapshot) Find(key string) (_ CompiledFlag, ok bool) {
	f := s.find(0, key)
	return CompiledFlag{f}, f != nil
}

// Source is the flag itself, to be read only.
func (c CompiledFlag) Source() *entity.Flag { return c.flag.source }

// Values is what the flag's variants mean in OpenFeature.
func (c CompiledFlag) Values() *Values { return c.flag.values }

// Tags are the flag's tags, to be read only.
func (c CompiledFlag) Tags() []string { return c.flag.tags }

// Derived returns what derive makes of the flag, and keeps it as long as the flag lives, so that it is made about once. It
// serves one owner; with several, each call may derive anew. The owner must be comparable.
func (c CompiledFlag) Derived(owner any, derive func(CompiledFlag) any) any {
	if d := c.flag.derived.Load(); d != nil && d.owner == owner {
		return d.value
	}
	d := &derivation{owner, derive(c)}
	c.flag.derived.Store(d)
	return d.value
}

type derivation struct{ owner, value any }

// Grants lists what the flag can give. Result.Grant is an index into it.
func (c CompiledFlag) Grants() []Grant {
	grants := make([]Grant, len(c.flag.given))
	for i, given := range c.flag.given {
		grants[i] = given.grant()
	}
	return grants
}

func (s *share) grant() Grant {
	return Grant{SegmentID: s.segment.id, Variant: s.variant, ByBucket: s.segment.byBucket, Static: s.segment.static}
}

// Grant is a variant that a segment gives.
type Grant struct {
	SegmentID int64
	// Variant is nil for a distribution whose variant does not exist. No Result has such a grant.
	Variant *entity.Variant
	// ByBucket is whether the entity's bucket decided about it: another entity may get something else from the segment.
	ByBucket bool
	// Static is whether every entity gets the variant, whatever its context.
	Static bool
}

// Grant is the index of what was given in CompiledFlag.Grants, -1 if nothing was.
func (r *Result) Grant() int {
	if r.given == nil {
		return -1
	}
	return r.given.index
}

// Granted is what was given; false if nothing was.
func (r *Result) Granted() (_ Grant, ok bool) {
	if r.given == nil {
		return Grant{}, false
	}
	return r.given.grant(), true
}

// Flag is the flag that was found.
func (r *Result) Flag() (_ CompiledFlag, ok bool) { return CompiledFlag{r.flag}, r.flag != nil }

// EvaluateFlags evaluates flags of one snapshot for one entity, in their order. The request's names of flags are not read.
// use gets each result, and must not keep it. Unless record is set, the evaluations are neither recorded nor observed.
// The error is that of ctx; use may have got some results by then.
func (s *Service) EvaluateFlags(ctx context.Context, request Request, flags []CompiledFlag, record bool, use func(*Result)) error {
	if len(flags) == 0 {
		if s.options.Trace != nil {
			s.options.Trace.EvaluatedSeveral(ctx, 0)
		}
		return nil
	}
	request.FlagID = 0
	now := s.options.Now().UTC()
	result := &Result{}
	for i, f := range flags {
		if i%clockInterval == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		*result = Result{Request: request, Timestamp: now, Asked: AskedByTag}
		result.Request.FlagKey = f.flag.source.Key
		f.flag.describe(result)
		f.flag.decide(result, false, s.options.Random)
		if record {
			s.record(result)
			if s.options.Trace != nil {
				s.options.Trace.Evaluated(ctx, result, false)
			}
		}
		use(result)
	}
	if s.options.Trace != nil {
		s.options.Trace.EvaluatedSeveral(ctx, len(flags))
	}
	return nil
}
