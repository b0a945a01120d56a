package handler_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/go-openapi/strfmt"
	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/datargolden"
	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/handler"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// TestAnswersOfDatarAreThoseOfThePlugin uses the golden file of the test of pkg/datar/datarhttp,
// which serves the same responses.
func TestAnswersOfDatarAreThoseOfThePlugin(t *testing.T) {
	t.Parallel()
	datargolden.Check(t, "/api/v1", func(e datargolden.Engine) http.Handler {
		api := newAPI(t)
		handler.New(handler.Options{Datar: e, Logger: slog.New(slog.DiscardHandler)}).Register(api)
		return api.Serve(handler.CheckQuery)
	}, false)
}

// TestBodiesOfDatarAreTheGeneratedModels checks that the bodies of datarhttp have exactly the
// members of the swagger definitions.
func TestBodiesOfDatarAreTheGeneratedModels(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	type model interface {
		Validate(formats strfmt.Registry) error
	}
	complete := &datarhttp.Complete{
		Since: at, UpTo: at, Servers: 3, Silent: 1, Pending: 2, Dropped: 4, Holes: []datarhttp.Hole{{From: at, To: at, Why: "records_off"}},
	}
	for _, tc := range []struct {
		body  any
		model model
	}{
		{datarhttp.WithComplete(datarhttp.SummaryBody(nil), complete), &models.DatarSummaryResponse{}},
		{datarhttp.WithComplete(datarhttp.FlagSummaryBody(&datar.FlagBreakdown{FlagID: 1}), complete), &models.DatarFlagSummaryResponse{}},
		{datarhttp.WithComplete(datarhttp.StatusBody(datar.Stats{Writer: "w"}), &datarhttp.Complete{UpTo: at}), &models.DatarStatus{}},
		{datarhttp.SummaryBody([]datar.FlagSummary{
			{FlagID: 1, FlagInfo: datar.FlagInfo{Key: "k", Description: "d", Enabled: true}, Total: 3, LastEvaluatedAt: at},
			{FlagID: 2, FlagInfo: datar.FlagInfo{Key: "l", Deleted: true}, Total: 1, LastEvaluatedAt: at},
		}), &models.DatarSummaryResponse{}},
		{datarhttp.FlagSummaryBody(&datar.FlagBreakdown{
			FlagID: 1, Ingested: 2,
			ByVariant: []datar.VariantCount{{VariantID: 4, Count: 5}}, BySegment: []datar.SegmentCount{{SegmentID: 6, Count: 5}}, ByDay: []datar.DayCount{{Day: at, Count: 5}},
		}), &models.DatarFlagSummaryResponse{}},
		{datarhttp.StatusBody(datar.Stats{
			Writer: "w", FlushInterval: time.Minute, Recorded: 9, Adopted: 1, Stored: 2, Pending: 3, Dropped: map[datar.DropReason]int64{datar.DropCapacity: 4}, Keys: 5,
			OldestPending: at, LastFlush: at, LastFlushDuration: time.Second, Journal: "dir", LostJournals: 1, LastError: errors.New("gone"),
		}), &models.DatarStatus{}},
	} {
		encoded, err := json.Marshal(tc.body)
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(bytes.NewReader(encoded))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(tc.model); err != nil {
			t.Errorf("%s: %v", encoded, err)
		}
		if err := tc.model.Validate(strfmt.Default); err != nil {
			t.Errorf("%s: %v", encoded, err)
		}
		again, err := json.Marshal(tc.model)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decoded(t, again), decoded(t, encoded)); diff != "" {
			t.Errorf("%T (-model +body):\n%s", tc.model, diff)
		}
	}
}

func decoded(t *testing.T, document []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(document, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
