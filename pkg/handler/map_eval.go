package handler

import (
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

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
		m.VariantAttachment = r.VariantAttachment // a nil attachment is served as null, and not left out
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
