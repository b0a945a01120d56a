package handler

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	openapi "github.com/go-openapi/runtime"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// evalResultModel maps a result to the generated model, with which eval.Encoder is compared.
func evalResultModel(r *eval.Result) *models.EvalResult {
	m := &models.EvalResult{
		FlagID:             r.FlagID,
		FlagKey:            r.FlagKey,
		FlagSnapshotID:     r.FlagSnapshotID,
		FlagTags:           r.FlagTags,
		SegmentID:          r.SegmentID,
		VariantID:          r.VariantID,
		VariantKey:         r.VariantKey,
		RecordSource:       r.RecordSource.String(),
		Timestamp:          r.Timestamp.UTC().Format(time.RFC3339),
		DataRecordsEnabled: r.DataRecordsEnabled,
		EvalContext:        evalContextModel(&r.Request),
		EvalDebugLog:       &models.EvalDebugLog{Msg: r.Message},
	}
	if r.Reason == eval.Matched {
		m.VariantAttachment = r.VariantAttachment // a nil attachment becomes null and is not left out
	}
	for _, s := range r.SegmentLogs {
		m.EvalDebugLog.SegmentDebugLogs = append(m.EvalDebugLog.SegmentDebugLogs,
			&models.SegmentDebugLog{SegmentID: s.SegmentID, Msg: s.Message})
	}
	return m
}

func evalContextModel(r *eval.Request) *models.EvalContext {
	m := &models.EvalContext{
		FlagID:        r.FlagID,
		FlagKey:       r.FlagKey,
		EntityID:      r.EntityID,
		EntityType:    r.EntityType,
		EntityContext: r.EntityContext,
		EnableDebug:   r.EnableDebug,
		FlagTags:      r.FlagTags,
	}
	if r.FlagTagsOperator != "" {
		m.FlagTagsOperator = &r.FlagTagsOperator
	}
	return m
}

func batchResponseModel(results []*eval.Result) *models.EvaluationBatchResponse {
	m := &models.EvaluationBatchResponse{EvaluationResults: make([]*models.EvalResult, len(results))}
	for i, r := range results {
		m.EvaluationResults[i] = evalResultModel(r)
	}
	return m
}

// produced returns what the generated operations write for a model.
func produced(t *testing.T, model any) string {
	t.Helper()
	var body bytes.Buffer
	if err := openapi.JSONProducer().Produce(&body, model); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(body.String(), "\n")
}

// FuzzEncoder compares the encoder of responses with the generated model, for single results and
// for a batch of them.
func FuzzEncoder(f *testing.F) {
	f.Add(int64(1), "", "e", "user", `{"country":"FR","age":20.0,"tags":["vip"],"n":null}`, "web", "ANY", true)
	f.Add(int64(2), "flag", "\"\u2028\xff", "\n", `"<&>"`, "", "", false)
	f.Add(int64(3), "off", "", "", `[1,{"z":1,"a":"\u003c"}]`, "a", "ALL", true)
	f.Add(int64(4), "blank", "", "", `{}`, "", "", true)
	f.Add(int64(0), "no <such> flag", "e", "", `null`, "", "", true)
	f.Fuzz(func(t *testing.T, flagID int64, flagKey, entityID, entityType, context, tag, operator string, debug bool) {
		request := eval.Request{
			FlagID: flagID, FlagKey: flagKey, EntityID: entityID, EntityType: entityType, EnableDebug: debug, FlagTagsOperator: operator,
		}
		if tag != "" {
			request.FlagTags = []string{tag, ""}
		}
		decoder := json.NewDecoder(strings.NewReader(context))
		decoder.UseNumber()
		_ = decoder.Decode(&request.EntityContext) // nil if it is not JSON
		snapshot := flags().With([]entity.Flag{{Model: entity.Model{ID: 3}, Key: "off"}, {Model: entity.Model{ID: 4}, Key: "blank", Enabled: true}}, nil)
		result := snapshot.Evaluate(request, time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), debug)
		if diff := cmp.Diff(produced(t, evalResultModel(result)), string(result.AppendJSON(nil))); diff != "" {
			t.Errorf("(-model +encoder):\n%s", diff)
		}
		batch := []*eval.Result{result, snapshot.Evaluate(eval.Request{FlagID: 2, EntityID: "e"}, time.Now(), false), result}[:1+len(tag)%3]
		encoder := eval.NewBatchEncoder(nil, nil)
		for _, r := range batch {
			encoder.Add(r)
		}
		if diff := cmp.Diff(produced(t, batchResponseModel(batch)), string(encoder.Finish())); diff != "" {
			t.Errorf("batch (-model +encoder):\n%s", diff)
		}
	})
}

func TestABatchOfNothingIsAnEmptyList(t *testing.T) {
	t.Parallel()
	if got, want := string(eval.NewBatchEncoder(nil, nil).Finish()), produced(t, batchResponseModel(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
