// Package evallogof counts the evaluations of OpenFeature clients with package evallog:
//
//	openfeature.AddHooks(evallogof.NewHook(engine, evallogof.HookOptions{}))
//
// One hook at one place is enough: each counts every evaluation that passes it.
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
	// DefaultAllocationKey is the metadata from which a hook takes the allocation unless it is told another.
	DefaultAllocationKey = "segmentID"
	// VersionKey is the metadata that has the version of the flag: for Flagr the id of its snapshot.
	VersionKey = "version"
)

// Recorder is what a hook feeds. *evallog.Engine is one.
type Recorder interface {
	Record(evaluation evallog.Evaluation)
}

// HookOptions configure a Hook. The zero value is a good default.
type HookOptions struct {
	// AllocationKey names the entry of the flag metadata that says what assigned the variant, a text or a whole
	// number: for Flagr the id of the segment. Empty: DefaultAllocationKey.
	AllocationKey string
}

// Hook counts evaluations in the finally stage, where it sees matches, defaults and errors, also those for which the
// provider was not asked because it was not ready. The context of an evaluation does not matter: one that was cancelled
// was evaluated all the same. The only evaluations that it misses are of keys that are not UTF-8, for which the SDK calls
// no hooks.
type Hook struct {
	openfeature.UnimplementedHook
	recorder   Recorder
	allocation string
}

var _ openfeature.Hook = (*Hook)(nil)

// NewHook returns a hook that counts with the recorder. If that is nil, also as a nil *evallog.Engine, the hook counts
// nothing and NewHook logs a warning to slog.Default(): a program whose engine could not be made still evaluates its flags.
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

// Finally counts the evaluation. Its outcome is known when there is a variant, an error, or the reason DISABLED. A default
// can have more than one cause, so its outcome is left to the receiver.
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

// text returns what stands in metadata, where numbers that came through JSON are floats.
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
