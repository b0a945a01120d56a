package eval

import (
	"context"
	"sync"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// CompiledFlag is a flag of a snapshot. Snapshots share unchanged flags, so it can be a key for
// data derived from a flag. The zero value is not a flag.
type CompiledFlag struct{ flag *flag }

// Compiled returns all flags, sorted by ID.
func (s *Snapshot) Compiled() []CompiledFlag {
	flags := make([]CompiledFlag, len(s.flags))
	for i, f := range s.flags {
		flags[i] = CompiledFlag{f}
	}
	return flags
}

// Find returns the flag with the given key, or else the flag whose ID is the key in decimal.
func (s *Snapshot) Find(key string) (_ CompiledFlag, ok bool) {
	f := s.find(0, key)
	return CompiledFlag{f}, f != nil
}

// Source returns the flag itself, which must not be changed.
func (c CompiledFlag) Source() *entity.Flag { return c.flag.source }

// Values returns the values of the flag's variants in OpenFeature.
func (c CompiledFlag) Values() *Values { return c.flag.values }

// Tags returns the flag's tags, which must not be changed.
func (c CompiledFlag) Tags() []string { return c.flag.tags }

// Derived returns what derive returns for the flag, and keeps it as long as the flag exists, so
// that derive is called once, also if many goroutines need it at the same moment. It is for one
// owner; with several owners, each call may derive again. The owner must be comparable.
func (c CompiledFlag) Derived(owner any, derive func(CompiledFlag) any) any {
	for {
		known := c.flag.derived.Load()
		if known != nil && known.owner == owner {
			return known.value()
		}
		c.flag.derived.CompareAndSwap(known, &derivation{owner, sync.OnceValue(func() any { return derive(c) })})
	}
}

type derivation struct {
	owner any
	value func() any // derives it at the first call
}

// Grants returns the variants that the flag can assign. Result.Grant is an index into it.
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

// Grant is a variant that a segment assigns.
type Grant struct {
	SegmentID int64
	// Variant is nil if the distribution's variant does not exist. No Result has such a grant.
	Variant *entity.Variant
	// ByBucket reports whether the entity's bucket selected the variant, so that another entity may
	// get another result.
	ByBucket bool
	// Static reports whether every entity gets the variant, regardless of its context.
	Static bool
}

// Grant is the index of the assigned variant in CompiledFlag.Grants, or -1 if none was assigned.
func (r *Result) Grant() int {
	if r.given == nil {
		return -1
	}
	return r.given.index
}

// Granted returns the assigned grant, or false if none was assigned.
func (r *Result) Granted() (_ Grant, ok bool) {
	if r.given == nil {
		return Grant{}, false
	}
	return r.given.grant(), true
}

// Flag is the flag that was found.
func (r *Result) Flag() (_ CompiledFlag, ok bool) { return CompiledFlag{r.flag}, r.flag != nil }

// AnswerBytes is the approximate maximum length of the part of a response that depends only on the
// flag.
func (c CompiledFlag) AnswerBytes() int { return c.flag.answerBytes }

// EvaluateFlags evaluates flags of one snapshot for one entity, in their order. It ignores the flag
// names of the request. It calls use with each result; use must not keep the result. Unless record
// is set, the evaluations are neither recorded nor observed. The error is the error of ctx; use may
// already have been called.
func (s *Service) EvaluateFlags(ctx context.Context, request Request, flags []CompiledFlag, record bool, use func(*Result)) error {
	if len(flags) == 0 {
		if s.options.Trace != nil {
			s.options.Trace.EvaluatedSeveral(ctx, 0)
		}
		return nil
	}
	request.FlagID, request.EnableDebug = 0, false
	now := s.options.Now().UTC()
	result := &Result{}
	for i, f := range flags {
		if i%clockInterval == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		known := result.scratch.known
		*result = Result{Request: request, Timestamp: now, Asked: AskedByTag}
		result.scratch.share(known)
		result.Request.FlagKey = f.flag.source.Key
		f.flag.describe(result)
		if err := s.decide(ctx, f.flag, result, request.InTurn); err != nil {
			return err
		}
		if record {
			s.record(result, s.recorder)
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
