package handler

import (
	"context"
	stderrors "errors"
	"net/http"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/ingest"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
)

// ingestRetryAfter is the Retry-After value in seconds that a sender gets while the database or
// memory is unavailable.
const ingestRetryAfter = 10

// Ingester applies batches of counts. Its errors match those of package ingest if the request is at
// fault.
type Ingester interface {
	Ingest(ctx context.Context, batch ingest.Batch) (ingest.Result, error)
}

// PostDatarEvaluations accepts counts that were aggregated elsewhere.
func (h *Handler) PostDatarEvaluations(p datarapi.PostDatarEvaluationsParams) middleware.Responder {
	if h.ingester == nil {
		return reply(http.StatusNotImplemented, "counts from elsewhere are not taken: start the server with Datar on, and with FLAGR_RECORDER_DATAR_INGEST_ENABLED=true")
	}
	if p.Body.FlagEvaluations == nil { // a misspelled field would lose counts silently
		return reply(http.StatusBadRequest, "flagEvaluations is missing, want an array of rows")
	}
	batch := ingest.Batch{Rows: make([]ingest.Row, len(p.Body.FlagEvaluations)), Sender: p.Body.Sender}
	if p.IdempotencyKey != nil {
		batch.Key = *p.IdempotencyKey
	}
	batch.Digest, _ = p.HTTPRequest.Context().Value(digestKey{}).(string)
	for i, row := range p.Body.FlagEvaluations {
		batch.Rows[i] = row.Row()
	}
	for _, u := range p.Body.Unknown {
		if u != nil {
			batch.Unknown = append(batch.Unknown, *u)
		}
	}
	result, err := h.ingester.Ingest(p.HTTPRequest.Context(), batch)
	switch {
	case err == nil:
		return datarapi.NewPostDatarEvaluationsOK().WithPayload(ingestModel(result))
	case stderrors.Is(err, ingest.ErrInvalid):
		return reply(http.StatusBadRequest, err.Error())
	case stderrors.Is(err, ingest.ErrTooManyRows):
		return reply(http.StatusRequestEntityTooLarge, err.Error())
	case stderrors.Is(err, ingest.ErrKeyReused):
		return reply(http.StatusConflict, err.Error())
	case stderrors.Is(err, datar.ErrRefused):
		h.logger.Error("a batch of counts is refused by the database", "error", err)
		return reply(http.StatusBadRequest, "the database refuses a row of the batch; nothing of it was counted")
	default:
		h.logger.Error("a batch of counts could not be stored", "error", err)
		return later("the database is away: nothing was counted, send the batch again")
	}
}

// later responds that the client can send the same batch again.
func later(message string) middleware.Responder { return retryLater(ingestRetryAfter, message) }

func ingestModel(r ingest.Result) *models.DatarEvaluationsResult {
	return &models.DatarEvaluationsResult{
		Duplicate:     r.Duplicate,
		AcceptedRows:  int64(r.AcceptedRows),
		AcceptedCount: r.AcceptedCount,
		Errors: mapAll(r.Errors, func(e *ingest.RowError) *models.DatarRowError {
			return &models.DatarRowError{Index: int64(e.Index), Code: string(e.Code), Message: e.Message}
		}),
	}
}
