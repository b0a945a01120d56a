package app_test

import (
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evallog"
)

// TestWhatIsCountedHasTheSameNumbers: eval, datar and evallog do not import each other, and convert
// outcomes and the bits of Asked by their numbers.
func TestWhatIsCountedHasTheSameNumbers(t *testing.T) {
	t.Parallel()
	for outcome, name := range map[eval.Outcome]string{
		eval.OutcomeMatched: "matched", eval.OutcomeHeldOut: "held_out", eval.OutcomeNoMatch: "no_match",
		eval.OutcomeNoSegments: "no_segments", eval.OutcomeDisabled: "disabled",
	} {
		if inDatar, inLog := datar.Outcome(outcome).String(), evallog.Outcome(outcome).String(); inDatar != name || inLog != name {
			t.Errorf("outcome %d is %q in datar and %q in evallog, want %q", outcome, inDatar, inLog, name)
		}
	}
	for bit, want := range map[eval.Asked][2]uint8{
		eval.AskedByTag:           {uint8(datar.AskedByTag), uint8(evallog.AskedByTag)},
		eval.AskedWithoutEntityID: {uint8(datar.AskedWithoutEntityID), uint8(evallog.AskedWithoutEntityID)},
		eval.AskedUnevaluable:     {uint8(datar.AskedUnevaluable), uint8(evallog.AskedUnevaluable)},
	} {
		if uint8(bit) != want[0] || uint8(bit) != want[1] {
			t.Errorf("a bit of Asked is %d in eval, %d in datar and %d in evallog", bit, want[0], want[1])
		}
	}
}
