package insight_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
)

const refresh = 3 * time.Second

// at parses an RFC 3339 time.
func at(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// clone copies a flag through JSON, as snapshots do.
func clone(t testing.TB, f *entity.Flag) *entity.Flag {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	copied := &entity.Flag{}
	if err := json.Unmarshal(text, copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

// checkout returns a flag with two variants. Each gets half of a rollout of 50% to adults in
// France.
func checkout() *entity.Flag {
	return &entity.Flag{
		Model: entity.Model{ID: 42, CreatedAt: time.Date(2025, 12, 1, 0, 0, 0, 0, time.UTC)}, Key: "checkout-button", Enabled: true, DataRecordsEnabled: true,
		Variants: []entity.Variant{{Model: entity.Model{ID: 61}, Key: "blue"}, {Model: entity.Model{ID: 62}, Key: "green"}},
		Segments: []entity.Segment{{
			Model: entity.Model{ID: 23}, Description: "Adults in France", RolloutPercent: 50,
			Constraints: []entity.Constraint{
				{Model: entity.Model{ID: 31}, Property: "country", Operator: "EQ", Value: `"FR"`},
				{Model: entity.Model{ID: 32}, Property: "age", Operator: "GTE", Value: "18"},
			},
			Distributions: []entity.Distribution{{VariantID: 61, VariantKey: "blue", Percent: 50}, {VariantID: 62, VariantKey: "green", Percent: 50}},
		}},
	}
}

// row returns a row of flag 42.
func row(outcome datar.Outcome, variantID, segmentID int64, version uint16, count int64, last time.Time) datar.Row {
	return datar.Row{
		Key:   datar.Key{FlagID: 42, Outcome: outcome, VariantID: variantID, SegmentID: segmentID, Version: version, Hour: datar.HourOf(last)},
		Count: count, First: last.UnixMilli(), Last: last.UnixMilli(),
	}
}

func heads(t testing.TB, ids []int64, times ...string) insight.Timeline {
	t.Helper()
	list := make([]insight.Head, len(ids))
	for i, id := range ids {
		list[i] = insight.Head{SnapshotID: id, At: at(t, times[i])}
	}
	return insight.NewTimeline(list)
}
