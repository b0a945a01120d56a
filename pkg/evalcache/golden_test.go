package evalcache_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

// recordedAnswer has the fields of an evaluation's JSON that were recorded.
type recordedAnswer struct {
	FlagID             int64             `json:"flagID"`
	FlagKey            string            `json:"flagKey"`
	FlagSnapshotID     int64             `json:"flagSnapshotID"`
	FlagTags           []string          `json:"flagTags"`
	SegmentID          int64             `json:"segmentID"`
	VariantID          int64             `json:"variantID"`
	VariantKey         string            `json:"variantKey"`
	VariantAttachment  entity.Attachment `json:"variantAttachment"`
	DataRecordsEnabled bool              `json:"dataRecordsEnabled"`
	EntityType         string            `json:"entityType"`
}

type recordedRequest struct {
	FlagID        int64  `json:"flagID"`
	FlagKey       string `json:"flagKey"`
	EntityID      string `json:"entityID"`
	EntityType    string `json:"entityType"`
	EntityContext any    `json:"entityContext"`
	EnableDebug   bool   `json:"enableDebug"`
}

// TestRecordedEvaluations compares with what clients were answered before, because an entity must
// keep its variant. With debugging on, which takes another way through the code, the answers must
// be the same.
func TestRecordedEvaluations(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	cache := evalcache.New(evalcache.FromFile(golden.Path("flags.json")), evalcache.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := cache.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Stop(ctx) })
	for _, problem := range cache.Snapshot().Problems() {
		t.Errorf("problem: %v", problem)
	}

	requests := golden.Lines[recordedRequest](t, "requests.jsonl")
	answers := golden.Lines[recordedAnswer](t, "expected.jsonl")
	if len(requests) != 3000 || len(answers) != 3000 {
		t.Fatalf("have %d requests and %d answers, want 3000 each", len(requests), len(answers))
	}
	var undebugged []observed
	for i, r := range requests {
		for _, debug := range []bool{false, true} {
			got := cache.Snapshot().Evaluate(eval.Request{
				FlagID: r.FlagID, FlagKey: r.FlagKey, EntityID: r.EntityID, EntityType: r.EntityType, EntityContext: r.EntityContext, EnableDebug: debug,
			}, time.Now(), debug)
			diff := cmp.Diff(answers[i], recordedAnswer{
				got.FlagID, got.FlagKey, got.FlagSnapshotID, got.FlagTags, got.SegmentID, got.VariantID, got.VariantKey,
				got.VariantAttachment, got.DataRecordsEnabled, got.Request.EntityType,
			})
			if diff != "" {
				t.Errorf("line %d, debug %t, request %+v (-want +got):\n%s", i+1, debug, r, diff)
			}
			if debug {
				reason, segmentID, unevaluable := explained(got)
				if got.Reason != reason || got.HeldOutSegmentID != segmentID || (got.Asked&eval.AskedUnevaluable != 0) != unevaluable {
					t.Errorf("line %d: the outcome is %d with segment %d and asked %b, the log says %d, %d, %v: %+v",
						i+1, got.Reason, got.HeldOutSegmentID, got.Asked, reason, segmentID, unevaluable, got.SegmentLogs)
				}
				if without := undebugged[i]; without != (observed{got.Reason, got.HeldOutSegmentID, got.Asked}) {
					t.Errorf("line %d: without debugging the outcome is %+v", i+1, without)
				}
				continue
			}
			undebugged = append(undebugged, observed{got.Reason, got.HeldOutSegmentID, got.Asked})
		}
	}
}

// observed is what is counted of a result.
type observed struct {
	reason  eval.Reason
	heldOut int64
	asked   eval.Asked
}

// explained is the outcome that a person reads from the debug log.
func explained(r *eval.Result) (reason eval.Reason, heldOut int64, unevaluable bool) {
	switch {
	case strings.HasSuffix(r.Message, "not found or deleted"):
		return eval.FlagNotFound, 0, false
	case strings.HasSuffix(r.Message, "is not enabled"):
		return eval.FlagDisabled, 0, false
	case strings.HasSuffix(r.Message, "has no segments"):
		return eval.NoSegments, 0, false
	}
	reason = eval.NoMatch
	for _, log := range r.SegmentLogs {
		switch {
		case strings.Contains(log.Message, "cannot be evaluated"), strings.Contains(log.Message, "entityContext is not an object"):
			unevaluable = true
		case !strings.HasPrefix(log.Message, "match"):
		case strings.HasSuffix(log.Message, ": no variant"):
			reason, heldOut = eval.HeldOut, log.SegmentID
		default:
			reason = eval.Matched
		}
	}
	return reason, heldOut, unevaluable
}
