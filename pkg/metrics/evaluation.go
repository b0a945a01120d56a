// Package metrics counts requests and evaluations for Prometheus, StatsD and OpenTelemetry, and
// logs evaluations. Every instrument belongs to a value that package app constructs; there is no
// default registry.
package metrics

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

const (
	// maxEvaluationSeries limits the series of each evaluation metric. 1,000 flags with 3 variants
	// and 2 entity types, with their evaluations without a variant, have 8,000.
	maxEvaluationSeries = 10_000
	// maxEntityTypes limits the values of a label that clients choose.
	maxEntityTypes = 100
	// maxLabelBytes is the maximum length of an entity type that becomes a label. Entity types of
	// flags have at most 63 bytes.
	maxLabelBytes = 64
	// overflow is the label beyond the limits. It is not a valid flag key.
	overflow = "(other)"
)

// EvaluationSink counts evaluations somewhere.
type EvaluationSink interface {
	// evaluations returns a function that counts one evaluation with these labels. It is called
	// once for each combination within the limits, and repeatedly beyond them; one call at a time.
	evaluations(l evaluationLabels) (count func())
}

// evaluationLabels identify a series.
type evaluationLabels struct {
	entityType          string
	flagID, variantID   string
	flagKey, variantKey string
	reason              string
	// openFeature is the reason in OpenFeature's terms, in lower case.
	openFeature string
	// decided reports whether the evaluation made a decision about its entity, and would be
	// recorded.
	decided bool
}

// overflowing has the labels beyond the limits.
func (l evaluationLabels) overflowing() evaluationLabels {
	l.entityType, l.flagID, l.flagKey, l.variantID, l.variantKey = overflow, "0", overflow, "0", overflow
	return l
}

// evaluationKey is evaluationLabels as a result has them.
type evaluationKey struct {
	entityType          string
	flagKey, variantKey string
	flagID, variantID   int64
	reason              eval.Reason
	byBucket, static    bool // of the grant
}

// Evaluations counts evaluations. A known combination costs a map lookup without lock or
// allocation, and an atomic addition for each metric.
type Evaluations struct {
	sinks  []EvaluationSink
	series series[evaluationKey, func()]

	// seriesMu has what series.mu protects.
	seriesMu struct {
		entityTypes map[string]struct{}
		beyond      map[evaluationKey]func() // of entity types beyond the limits
		count       int                      // of keys in series and beyond
	}
}

// NewEvaluations returns an Evaluations that counts in all sinks.
func NewEvaluations(sinks ...EvaluationSink) *Evaluations {
	e := &Evaluations{sinks: sinks}
	e.series.own = func(key evaluationKey) evaluationKey {
		key.entityType = strings.Clone(key.entityType) // part of a request, whose memory is reused
		return key
	}
	e.seriesMu.entityTypes, e.seriesMu.beyond = map[string]struct{}{}, map[evaluationKey]func(){}
	return e
}

// Observe counts one evaluation.
func (e *Evaluations) Observe(r *eval.Result) {
	key := evaluationKey{
		entityType: r.Request.EntityType,
		flagKey:    r.FlagKey,
		variantKey: r.VariantKey,
		flagID:     r.FlagID,
		variantID:  r.VariantID,
		reason:     r.Reason,
	}
	switch r.Reason {
	case eval.Matched:
		given, _ := r.Granted()
		key.byBucket, key.static = given.ByBucket, given.Static
	case eval.NoMatch:
	case eval.HeldOut: // the series include evaluations that no segment matched
		key.reason = eval.NoMatch
	case eval.FlagNotFound: // the keys that clients request are unbounded
		key = evaluationKey{reason: r.Reason}
	default:
		key.entityType = ""
	}
	e.series.get(key, e.openLocked)()
}

// openLocked returns the function that counts a key, or the function beyond the limits, which is
// not kept under this key.
func (e *Evaluations) openLocked(key evaluationKey) (count func(), keep bool) {
	if keep = e.admitLocked(key.entityType); !keep {
		key.entityType = overflow
		if count, ok := e.seriesMu.beyond[key]; ok {
			return count, false
		}
	}
	l := evaluationLabels{
		entityType:  key.entityType,
		flagID:      strconv.FormatInt(key.flagID, 10),
		flagKey:     strings.ToValidUTF8(key.flagKey, "?"), // rows that other programs wrote may be invalid
		variantID:   strconv.FormatInt(key.variantID, 10),
		variantKey:  strings.ToValidUTF8(key.variantKey, "?"),
		reason:      reasonLabel(key.reason),
		openFeature: key.openFeatureReason(),
		decided:     key.reason == eval.NoMatch || key.reason == eval.Matched,
	}
	if e.seriesMu.count >= maxEvaluationSeries {
		return e.counter(l.overflowing()), false
	}
	e.seriesMu.count++
	count = e.counter(l)
	if !keep {
		e.seriesMu.beyond[key] = count
	}
	return count, keep
}

// admitLocked reports whether an entity type may be a label.
func (e *Evaluations) admitLocked(entityType string) bool {
	if _, ok := e.seriesMu.entityTypes[entityType]; ok {
		return true
	}
	if len(e.seriesMu.entityTypes) >= maxEntityTypes || len(entityType) > maxLabelBytes || !utf8.ValidString(entityType) {
		return false
	}
	e.seriesMu.entityTypes[entityType] = struct{}{}
	return true
}

// counter counts in all sinks.
func (e *Evaluations) counter(l evaluationLabels) func() {
	counts := make([]func(), len(e.sinks))
	for i, sink := range e.sinks {
		counts[i] = sink.evaluations(l)
	}
	if len(counts) == 1 {
		return counts[0]
	}
	return func() {
		for _, count := range counts {
			count()
		}
	}
}

// openFeatureReason returns the reason for telemetry.
func (k *evaluationKey) openFeatureReason() string {
	if k.reason == eval.Matched {
		return strings.ToLower(eval.Grant{ByBucket: k.byBucket, Static: k.static}.OpenFeatureReason())
	}
	return strings.ToLower((&eval.Result{Reason: k.reason}).OpenFeatureReason())
}

// errorType returns the error type for telemetry, or an empty string if there was no error.
func errorType(r eval.Reason) string {
	switch r {
	case eval.FlagNotFound:
		return "flag_not_found"
	case eval.EntityIDMissing:
		return "targeting_key_missing"
	default:
		return ""
	}
}

func reasonLabel(r eval.Reason) string {
	switch r {
	case eval.FlagNotFound:
		return "flag_not_found"
	case eval.FlagDisabled:
		return "flag_disabled"
	case eval.NoSegments:
		return "no_segments"
	case eval.NoMatch:
		return "no_match"
	case eval.Matched:
		return "matched"
	case eval.EntityIDMissing:
		return "targeting_key_missing"
	default:
		return "unknown"
	}
}
