package provider

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

// resolution is a possible result of an evaluation, prepared once for each flag.
type resolution struct {
	value  any // bool, string, json.Number or structure; nil: the caller's default
	detail openfeature.ProviderResolutionDetail
	// key is what is counted, without outcome and asked; its flag is empty if nothing is counted.
	key evallog.Key
}

// resolutions are all resolutions of a flag.
type resolutions struct {
	disabled, nothing, keyMissing *resolution
	grants                        []*resolution // by eval.Result.Grant
	segments                      map[int64]evallog.Text
}

// counted returns what is counted for a result with this resolution.
func (r *resolutions) counted(result *eval.Result, of *resolution) evallog.Key {
	key := of.key
	outcome, segmentID := result.Outcome()
	key.Outcome, key.Asked = evallog.Outcome(outcome), evallog.Asked(result.Asked)
	if outcome == eval.OutcomeHeldOut {
		key.Allocation = r.segments[segmentID]
	}
	return key
}

func (r *resolutions) of(result *eval.Result) *resolution {
	switch result.Reason {
	case eval.Matched:
		return r.grants[result.Grant()]
	case eval.FlagDisabled:
		return r.disabled
	case eval.EntityIDMissing:
		return r.keyMissing
	default:
		return r.nothing
	}
}

// resolutionsOf prepares a flag. Its resolutions are equal to OFREP's responses.
func resolutionsOf(f eval.CompiledFlag) any {
	source, values := f.Source(), f.Values()
	metadata := func(extra openfeature.FlagMetadata) openfeature.FlagMetadata {
		m := openfeature.FlagMetadata{"flagID": int64(source.ID), "dataRecordsEnabled": source.DataRecordsEnabled}
		if source.SnapshotID != 0 {
			m["version"] = strconv.FormatUint(uint64(source.SnapshotID), 10)
		}
		maps.Copy(m, extra)
		return m
	}
	without := func(reason string) *resolution {
		return &resolution{detail: openfeature.ProviderResolutionDetail{Reason: openfeature.Reason(reason), FlagMetadata: metadata(nil)}}
	}
	type given struct {
		eval.Value
		decoded any
	}
	known := map[uint]*given{} // many segments may assign a variant
	with := func(v *entity.Variant, reason string, extra openfeature.FlagMetadata) *resolution {
		r := without(reason)
		value := known[v.ID]
		if value == nil {
			value = &given{Value: values.Of(v)}
			value.decoded = valueOf(value.JSON)
			known[v.ID] = value
		}
		if value.Attachment != "" {
			if extra == nil {
				extra = openfeature.FlagMetadata{}
			}
			extra["attachment"] = value.Attachment.JSON()
		}
		r.detail.FlagMetadata, r.detail.Variant = metadata(extra), v.Key
		if value.Err != nil {
			r.detail.ResolutionError, r.detail.Reason = openfeature.NewParseErrorResolutionError(value.Err.Error()), openfeature.ErrorReason
			r.detail.Variant = ""
			return r
		}
		r.value = value.decoded
		return r
	}
	rs := &resolutions{disabled: without(eval.OpenFeatureDisabled), nothing: without(eval.OpenFeatureDefault), keyMissing: without(eval.OpenFeatureError)}
	rs.keyMissing.detail.ResolutionError = openfeature.NewTargetingKeyMissingResolutionError("flag " + source.Key + " needs a targetingKey")
	if values.Default != nil {
		rs.nothing = with(values.Default, eval.OpenFeatureDefault, nil)
	}
	key := evallog.Key{
		Variant: evallog.None(), Allocation: evallog.None(), TargetingKey: evallog.None(), ErrorCode: evallog.None(), Version: int64(source.SnapshotID),
	}
	if source.DataRecordsEnabled {
		key.Flag = source.Key
	}
	rs.nothing.key, rs.disabled.key = key, key
	rs.segments = make(map[int64]evallog.Text, len(source.Segments))
	for i := range source.Segments {
		id := int64(source.Segments[i].ID)
		rs.segments[id] = evallog.Some(strconv.FormatInt(id, 10))
	}
	for _, g := range f.Grants() {
		if g.Variant == nil {
			rs.grants = append(rs.grants, rs.nothing)
			continue
		}
		r := with(g.Variant, g.OpenFeatureReason(), openfeature.FlagMetadata{"segmentID": g.SegmentID, "variantID": int64(g.Variant.ID)})
		r.key = key
		r.key.Variant, r.key.Allocation = evallog.Some(g.Variant.Key), evallog.Some(strconv.FormatInt(g.SegmentID, 10))
		rs.grants = append(rs.grants, r)
	}
	return rs
}

// structure is the JSON of an object or a list. It is decoded for each caller, because it can take
// 30 times the memory then.
type structure string

// valueOf returns the value of a resolution, or nil if the JSON is empty or null.
func valueOf(text string) any {
	if text != "" && (text[0] == '{' || text[0] == '[') {
		return structure(text)
	}
	return entity.DecodeJSON(text)
}

// evaluate returns the resolution of one evaluation, and what is counted for it, which is nothing
// for an unknown key.
func (p *Provider) evaluate(ctx context.Context, flag string, flat openfeature.FlattenedContext) (*resolution, evallog.Key) {
	if p.remote != nil {
		return p.remote.evaluate(ctx, flag, flat), evallog.Key{}
	}
	state := p.cache.State()
	if state.Version == "" {
		return failed(openfeature.NewProviderNotReadyResolutionError("no flags were loaded yet")), evallog.Key{}
	}
	request := eval.Request{FlagKey: flag, EntityIDRequired: true}
	if refused := readContext(flat, &request); refused != nil {
		return refused, evallog.Key{}
	}
	result := p.results.Get().(*eval.Result)
	defer func() {
		*result = eval.Result{} // drops references to the caller's values
		p.results.Put(result)
	}()
	state.Snapshot.EvaluateInto(request, time.Time{}, false, result)
	f, ok := result.Flag()
	if !ok {
		return failed(openfeature.NewFlagNotFoundResolutionError("flag " + flag + " does not exist")), p.unknown.counted(flag, time.Now())
	}
	all := f.Derived(p, resolutionsOf).(*resolutions)
	r := all.of(result)
	return r, all.counted(result, r)
}

func failed(err openfeature.ResolutionError) *resolution {
	return &resolution{detail: openfeature.ProviderResolutionDetail{ResolutionError: err, Reason: openfeature.ErrorReason}}
}

// readContext uses the parts of a context that OFREP uses.
func readContext(flat openfeature.FlattenedContext, request *eval.Request) *resolution {
	if len(flat) == 0 {
		return nil
	}
	switch id := flat[openfeature.TargetingKey].(type) {
	case nil:
	case string:
		request.EntityID = id
	default:
		return failed(openfeature.NewInvalidContextResolutionError("targetingKey must be a string"))
	}
	request.EntityType, _ = flat["entityType"].(string)
	request.EntityContext = map[string]any(flat)
	for _, value := range flat {
		if !isPlain(value) { // converted as in JSON, in another map, because this one belongs to the caller
			text, err := json.Marshal(map[string]any(flat))
			if err != nil {
				return failed(openfeature.NewInvalidContextResolutionError("context is not JSON: " + err.Error()))
			}
			request.EntityContext = entity.DecodeJSON(string(text))
			break
		}
	}
	return nil
}

// isPlain reports whether constraints treat a value like its JSON.
func isPlain(value any) bool {
	switch value.(type) {
	case nil, string, bool, int, int32, int64, float32, float64, json.Number, []string, []int, []int64, []float64:
		return true
	default:
		return false
	}
}

// resolve evaluates, converts the value, and counts.
func resolve[T any](ctx context.Context, p *Provider, flag string, byDefault T, flat openfeature.FlattenedContext, convert func(any) (T, bool)) openfeature.GenericResolutionDetail[T] {
	r, key := p.evaluate(ctx, flag, flat)
	answer := openfeature.GenericResolutionDetail[T]{Value: byDefault, ProviderResolutionDetail: r.detail}
	if r.value != nil {
		value, ok := convert(r.value)
		if ok {
			answer.Value = value
		} else {
			answer.ResolutionError = openfeature.NewTypeMismatchResolutionError("the value of flag " + flag + " has another type")
			answer.Reason = openfeature.ErrorReason
			key.ErrorCode = evallog.Some(string(openfeature.TypeMismatchCode))
		}
	}
	if p.counts != nil && key.Flag != "" {
		if p.options.TargetingKeys != evallog.TargetingKeysOff {
			id, _ := flat[openfeature.TargetingKey].(string)
			key.TargetingKey = evallog.SomeOrNone(id)
		}
		p.counts.Record(evallog.Evaluation{Key: key})
	}
	return answer
}

// BooleanEvaluation implements openfeature.FeatureProvider.
func (p *Provider) BooleanEvaluation(ctx context.Context, flag string, byDefault bool, flat openfeature.FlattenedContext) openfeature.BoolResolutionDetail {
	return resolve(ctx, p, flag, byDefault, flat, as[bool])
}

// StringEvaluation implements openfeature.FeatureProvider.
func (p *Provider) StringEvaluation(ctx context.Context, flag, byDefault string, flat openfeature.FlattenedContext) openfeature.StringResolutionDetail {
	return resolve(ctx, p, flag, byDefault, flat, as[string])
}

// FloatEvaluation implements openfeature.FeatureProvider. It accepts whole numbers.
func (p *Provider) FloatEvaluation(ctx context.Context, flag string, byDefault float64, flat openfeature.FlattenedContext) openfeature.FloatResolutionDetail {
	return resolve(ctx, p, flag, byDefault, flat, asFloat)
}

// IntEvaluation implements openfeature.FeatureProvider. A number with a fraction or an exponent has
// another type.
func (p *Provider) IntEvaluation(ctx context.Context, flag string, byDefault int64, flat openfeature.FlattenedContext) openfeature.IntResolutionDetail {
	return resolve(ctx, p, flag, byDefault, flat, asInt)
}

// ObjectEvaluation implements openfeature.FeatureProvider. Objects and lists belong to the caller;
// numbers are float64.
func (p *Provider) ObjectEvaluation(ctx context.Context, flag string, byDefault any, flat openfeature.FlattenedContext) openfeature.InterfaceResolutionDetail {
	return resolve(ctx, p, flag, byDefault, flat, structured)
}

func as[T any](value any) (T, bool) {
	t, ok := value.(T)
	return t, ok
}

func asFloat(value any) (float64, bool) {
	n, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

func asInt(value any) (int64, bool) {
	n, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}

// structured returns a value that the caller may change.
func structured(value any) (any, bool) {
	if text, ok := value.(structure); ok {
		value = entity.DecodeJSON(string(text))
	}
	return withFloats(value), true
}

// withFloats replaces the numbers in a decoded value by float64.
func withFloats(value any) any {
	switch x := value.(type) {
	case json.Number:
		f, _ := x.Float64()
		return f
	case map[string]any:
		for name, member := range x {
			x[name] = withFloats(member)
		}
	case []any:
		for i, item := range x {
			x[i] = withFloats(item)
		}
	}
	return value
}
