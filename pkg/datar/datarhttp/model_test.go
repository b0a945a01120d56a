package datarhttp_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
)

func TestATimeThatIsNotKnownIsLeftOut(t *testing.T) {
	t.Parallel()
	encoded, err := json.Marshal(datarhttp.SummaryBody([]datar.FlagSummary{
		{FlagID: 1, Total: 2},
		{FlagID: 3, Total: 1, LastEvaluatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.FixedZone("", 3600))},
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"flags":[{"flagID":1,"totalEvalCount":2},{"flagID":3,"totalEvalCount":1,"lastEvaluatedAt":"2026-01-02T02:04:05.006Z"}]}`
	if string(encoded) != want {
		t.Errorf("summary is %s, want %s", encoded, want)
	}
}

func TestNamesOfVariantsAndSegmentsAreShown(t *testing.T) {
	t.Parallel()
	encoded, err := json.Marshal(datarhttp.FlagSummaryBody(&datar.FlagBreakdown{
		FlagID:    1,
		ByVariant: []datar.VariantCount{{VariantID: 2, Count: 3, Name: "on"}, {VariantID: 4, Count: 1}},
		BySegment: []datar.SegmentCount{{SegmentID: 5, Count: 3, Name: "staff"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"flagID":1,"trafficByDay":[],"trafficBySegment":[{"count":3,"segmentID":5,"segmentName":"staff"}],` +
		`"trafficByVariant":[{"count":3,"variantID":2,"variantName":"on"},{"count":1,"variantID":4}]}`
	if string(encoded) != want {
		t.Errorf("breakdown is %s, want %s", encoded, want)
	}
}
