package eval_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

// collector is a source of one snapshot, and keeps what is recorded.
type collector struct {
	snapshot *eval.Snapshot
	recorded []eval.Result
}

func (c *collector) Snapshot() *eval.Snapshot   { return c.snapshot }
func (c *collector) AsyncRecord(r *eval.Result) { c.recorded = append(c.recorded, *r) }

var exposureTime = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

func exposureService(recording bool, limit int) (*eval.Service, *collector) {
	c := &collector{snapshot: eval.Compile([]entity.Flag{
		{
			Model: entity.Model{ID: 1}, Key: "first", SnapshotID: 7, DataRecordsEnabled: true, EntityType: "user",
			Variants: []entity.Variant{
				{Model: entity.Model{ID: 11}, Key: "on", Attachment: `{"a":true}`},
				{Model: entity.Model{ID: 12}, Key: "off"},
			},
			Tags: []entity.Tag{{Value: "web"}},
		},
		{Model: entity.Model{ID: 2}, Key: "second", SnapshotID: 8},
		{Model: entity.Model{ID: 3}, Key: "1", SnapshotID: 9, DataRecordsEnabled: true}, // a key that looks like an id
	})}
	var recorder eval.Recorder
	if recording {
		recorder = c
	}
	return eval.NewService(c, recorder, eval.Options{ExposureBatchSize: limit, Now: func() time.Time { return exposureTime }}), c
}

func TestExposuresAreCheckedOneByOne(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		exposure eval.Exposure
		err      string
	}{
		{"no flag", eval.Exposure{EntityID: "e"}, "flagID or flagKey is required"},
		{"no entity", eval.Exposure{FlagID: 1}, "entityID is required"},
		{"unknown id", eval.Exposure{EntityID: "e", FlagID: 99}, "flag not found"},
		{"negative id", eval.Exposure{EntityID: "e", FlagID: -1}, "flag not found"},
		{"unknown id, known key", eval.Exposure{EntityID: "e", FlagID: 99, FlagKey: "first"}, "flag not found"},
		{"known id, unknown key", eval.Exposure{EntityID: "e", FlagID: 1, FlagKey: "nope"}, "flag not found"},
		{"two flags", eval.Exposure{EntityID: "e", FlagID: 1, FlagKey: "second"}, "flagID and flagKey refer to different flags"},
		{"a key before an id", eval.Exposure{EntityID: "e", FlagID: 1, FlagKey: "1"}, "flagID and flagKey refer to different flags"},
		{"unknown variant id", eval.Exposure{EntityID: "e", FlagID: 1, VariantID: 99}, "variantID 99 not found on flag"},
		{"unknown variant key", eval.Exposure{EntityID: "e", FlagID: 1, VariantKey: "nope"}, `variantKey "nope" not found on flag`},
		{"two variants", eval.Exposure{EntityID: "e", FlagID: 1, VariantID: 11, VariantKey: "off"}, `variantID 11 has the key "on", not "off"`},
		{"variant of another flag", eval.Exposure{EntityID: "e", FlagID: 2, VariantID: 11}, "variantID 11 not found on flag"},
		{"by id", eval.Exposure{EntityID: "e", FlagID: 1}, ""},
		{"by key", eval.Exposure{EntityID: "e", FlagKey: "first"}, ""},
		{"by id as a key", eval.Exposure{EntityID: "e", FlagKey: "2"}, ""},
		{"by both", eval.Exposure{EntityID: "e", FlagID: 1, FlagKey: "first", VariantID: 12, VariantKey: "off"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			service, _ := exposureService(true, 0)
			_, refused, err := service.Expose(t.Context(), []eval.Exposure{{EntityID: "e", FlagID: 1}, tc.exposure})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, r := range refused {
				if r.Index != 1 || !errors.Is(r.Err, entity.ErrInvalid) && !errors.Is(r.Err, entity.ErrNotFound) {
					t.Errorf("row %d is refused: %v", r.Index, r.Err)
				}
				got += r.Err.Error()
			}
			if got != tc.err {
				t.Errorf("refused with %q, want %q", got, tc.err)
			}
		})
	}
}

func TestWhatIsRecordedOfExposures(t *testing.T) {
	t.Parallel()
	service, c := exposureService(true, 3)
	when := time.Date(2026, 1, 1, 1, 0, 0, 0, time.FixedZone("", 3600))
	context := map[string]any{"country": "FR"}
	exposures := []eval.Exposure{
		{FlagID: 1, EntityID: "a", EntityType: "device", EntityContext: context, VariantKey: "on", FlagSnapshotID: 3, Timestamp: when},
		{FlagKey: "second", EntityID: "b"}, // its records are off
		{FlagKey: "first", EntityID: "c"},
	}
	recorded, refused, err := service.Expose(t.Context(), exposures)
	if err != nil || len(refused) > 0 || recorded != 2 {
		t.Fatalf("recorded %d, refused %v, error %v", recorded, refused, err)
	}
	want := []eval.Result{
		{
			RecordSource: eval.SourceExposure, FlagID: 1, FlagKey: "first", FlagSnapshotID: 3, FlagTags: []string{"web"},
			VariantID: 11, VariantKey: "on", DataRecordsEnabled: true, Timestamp: when.UTC(),
			Request: eval.Request{FlagID: 1, FlagKey: "first", EntityID: "a", EntityType: "user", EntityContext: context},
		},
		{
			RecordSource: eval.SourceExposure, FlagID: 1, FlagKey: "first", FlagSnapshotID: 7, FlagTags: []string{"web"},
			DataRecordsEnabled: true, Timestamp: exposureTime,
			Request: eval.Request{FlagID: 1, FlagKey: "first", EntityID: "c", EntityType: "user"},
		},
	}
	if diff := cmp.Diff(want, c.recorded, ignoreUnexported); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}

	if _, _, err := service.Expose(t.Context(), append(exposures, exposures[0])); !errors.Is(err, entity.ErrInvalid) {
		t.Errorf("four exposures give %v, want a refusal", err)
	}
	if len(c.recorded) != 2 {
		t.Errorf("%d were recorded in the end", len(c.recorded))
	}
	closed, _ := exposureService(false, 0)
	if recorded, refused, err := closed.Expose(t.Context(), exposures); recorded != 0 || len(refused) != 0 || err != nil {
		t.Errorf("without a recorder: recorded %d, refused %v, error %v", recorded, refused, err)
	}
}
