// Package evallogof counts the evaluations of OpenFeature clients with package evallog:
//
//	openfeature.AddHooks(evallogof.NewHook(engine, evallogof.HookOptions{}))
//
// One hook is enough: each hook counts every evaluation that it sees.
package evallogof

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

const (
	// DefaultAllocationKey is the default of HookOptions.AllocationKey.
	DefaultAllocationKey = "segmentID"
	// VersionKey is the metadata entry with the version of the flag: for Flagr the ID of its
	// snapshot.
	VersionKey = "version"
)

// Recorder receives the evaluations. *evallog.Engine implements it.
type Recorder interface {
	Record(evaluation evallog.Evaluation)
}

// HookOptions configure a Hook. The zero value is a good default.
type HookOptions struct {
	// AllocationKey is the entry of the flag metadata that identifies what assigned the variant, a
	// string or a whole number: for Flagr the ID of the segment. Empty means DefaultAllocationKey.
	AllocationKey string
}

// Hook counts evaluations in the finally stage, where it sees matches, defaults and errors,
// including evaluations before the provider is ready. It ignores the context of an evaluation,
// because an evaluation counts even if it was canceled. It only misses evaluations of keys that are
// not valid UTF-8, for which the SDK calls no hooks.
type Hook struct {
	openfeature.UnimplementedHook
	recorder   Recorder
	allocation string
}

var _ openfeature.Hook = (*Hook)(nil)

// NewHook returns a hook that counts with the recorder. If the recorder is nil, or a nil
// *evallog.Engine, the hook counts nothing and NewHook logs a warning to slog.Default(): a program
// without an engine can still evaluate its flags.
func NewHook(recorder Recorder, options HookOptions) *Hook {
	if engine, ok := recorder.(*evallog.Engine); recorder == nil || ok && engine == nil {
		slog.Warn("evallogof: the recorder is nil, so evaluations are not counted")
		recorder = nothing{}
	}
	hook := &Hook{recorder: recorder, allocation: options.AllocationKey}
	if hook.allocation == "" {
		hook.allocation = DefaultAllocationKey
	}
	return hook
}

// nothing is a Recorder that counts nothing.
type nothing struct{}

func (nothing) Record(evallog.Evaluation) {}

// Finally counts the evaluation. Its outcome is known if there is a variant, an error, or the
// reason DISABLED. A default has several possible causes, so the receiver determines its outcome.
func (h *Hook) Finally(_ context.Context, evaluated openfeature.HookContext, details openfeature.InterfaceEvaluationDetails, _ openfeature.HookHints) {
	h.recorder.Record(evallog.Evaluation{
		Key: evallog.Key{
			Flag:         evaluated.FlagKey(),
			Variant:      evallog.SomeOrNone(details.Variant),
			Allocation:   text(details.FlagMetadata[h.allocation]),
			TargetingKey: evallog.SomeOrNone(evaluated.EvaluationContext().TargetingKey()),
			ErrorCode:    evallog.SomeOrNone(string(details.ErrorCode)),
			Outcome:      outcome(&details),
			Version:      number(details.FlagMetadata[VersionKey]),
			Asked:        asked(&evaluated),
		},
		ErrorMessage: details.ErrorMessage,
	})
}

func outcome(details *openfeature.InterfaceEvaluationDetails) evallog.Outcome {
	switch {
	case details.Variant != "":
		return evallog.Matched
	case details.ErrorCode != "":
		return evallog.Failed
	case details.Reason == openfeature.DisabledReason:
		return evallog.Disabled
	default:
		return evallog.OutcomeUnknown
	}
}

func asked(evaluated *openfeature.HookContext) evallog.Asked {
	if evaluated.EvaluationContext().TargetingKey() == "" {
		return evallog.AskedWithoutEntityID
	}
	return 0
}

// number returns a version from metadata, or 0.
func number(value any) int64 {
	digits, _ := text(value).Get()
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0
	}
	return max(0, n)
}

// text returns the string of a metadata value. Numbers from JSON are floats.
func text(value any) evallog.Text {
	switch v := value.(type) {
	case string:
		return evallog.SomeOrNone(v)
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return evallog.Some(fmt.Sprint(v))
	case float64:
		if v != math.Trunc(v) || math.IsInf(v, 0) {
			return evallog.None()
		}
		return evallog.Some(strconv.FormatFloat(v, 'f', 0, 64))
	default:
		return evallog.None()
	}
}
