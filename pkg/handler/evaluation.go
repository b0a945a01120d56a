package handler

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"
	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	evaluationapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/evaluation"
)

// Evaluator evaluates and records. All evaluation operations use it, so that no operation can skip
// recording.
type Evaluator interface {
	Evaluate(ctx context.Context, r eval.Request) (*eval.Result, error)
	LogBytes(r eval.Request) int
	EvaluateEach(ctx context.Context, r eval.BatchRequest, use func(*eval.Result)) error
	Exposer
}

// PostEvaluation evaluates one flag for one entity.
func (h *Handler) PostEvaluation(p evaluationapi.PostEvaluationParams) middleware.Responder {
	return h.evaluate(p.HTTPRequest, p.Body)
}

// GetEvaluation is PostEvaluation with the body in the query.
func (h *Handler) GetEvaluation(p evaluationapi.GetEvaluationParams) middleware.Responder {
	var body models.EvalContext
	if err := h.bodyOfQuery(p.HTTPRequest, p.JSON, "evalContext", &body); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return h.evaluate(p.HTTPRequest, &body)
}

func (h *Handler) evaluate(r *http.Request, body *models.EvalContext) middleware.Responder {
	request := evalRequestOf(body)
	if err := checkDepth("entityContext", request.EntityContext); err != nil {
		return h.fail(r, err)
	}
	if h.injected != nil {
		request.EntityContext = inject(request.EntityContext, h.injected.properties(r))
	}
	if !request.EnableDebug {
		return h.evaluated(r, request)
	}
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		held := budget.Hold{Memory: h.batchMemory}
		defer held.Release()
		turn, err := h.turns.Begin(r.Context())
		if err == nil {
			defer turn.End()
			err = held.Take(h.eval.LogBytes(request))
		}
		if err != nil {
			h.fail(r, err).WriteResponse(rw, producer)
			return
		}
		request.InTurn = true
		answer := h.evaluated(r, request)
		request = eval.Request{} // a client may read slowly
		turn.End()
		answer.WriteResponse(rw, producer)
	})
}

// evaluated evaluates and returns the response.
func (h *Handler) evaluated(r *http.Request, request eval.Request) middleware.Responder {
	result, err := h.eval.Evaluate(r.Context(), request)
	if err != nil {
		return h.fail(r, err)
	}
	var encoder eval.Encoder
	start, end := encoder.Split(make([]byte, 0, payloadBytes), result)
	if end == "" {
		return encoded(start)
	}
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		_, err := rw.Write(start)
		start = nil // a client may read the end slowly
		if err == nil && eval.WriteParts(rw, end) == nil {
			_, _ = rw.Write([]byte{'\n'}) // fails only if the client has disconnected
		}
	})
}

// PostEvaluationBatch evaluates several flags for several entities.
func (h *Handler) PostEvaluationBatch(p evaluationapi.PostEvaluationBatchParams) middleware.Responder {
	return h.evaluateBatch(p.HTTPRequest, p.Body, p.HTTPRequest)
}

// GetEvaluationBatch is PostEvaluationBatch with the body in the query.
func (h *Handler) GetEvaluationBatch(p evaluationapi.GetEvaluationBatchParams) middleware.Responder {
	var body models.EvaluationBatchRequest
	if err := h.bodyOfQuery(p.HTTPRequest, p.JSON, "evaluationBatchRequest", &body); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return h.evaluateBatch(p.HTTPRequest, &body, nil)
}

// evaluateBatch evaluates a batch and sends a long response while it evaluates. headers is the
// request whose HTTP headers are injected. For GET it is nil, and no headers are injected.
func (h *Handler) evaluateBatch(r *http.Request, body *models.EvaluationBatchRequest, headers *http.Request) middleware.Responder {
	request, err := batchRequestOf(body)
	if err != nil {
		return h.fail(r, err)
	}
	if h.injected != nil {
		added := h.injected.properties(headers)
		for i := range request.Entities {
			request.Entities[i].EntityContext = inject(request.Entities[i].EntityContext, added)
		}
	}
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		var turn *budget.Turn
		if request.IsLarge() {
			var left error
			if turn, left = h.turns.Begin(r.Context()); left != nil {
				h.fail(r, left).WriteResponse(rw, producer)
				return
			}
			defer turn.End()
		}
		held := budget.Hold{Memory: h.batchMemory}
		defer held.Release()
		request.Reserve, request.InTurn = held.Take, turn != nil
		encoder := eval.NewBatchEncoder(nil, turn.Writer(r.Context(), rw))
		err := h.eval.EvaluateEach(r.Context(), request, encoder.Add)
		turn.End()
		switch {
		case err != nil && encoder.Sent():
			panic(http.ErrAbortHandler) // so that no client takes half a response for a whole one
		case err != nil:
			h.fail(r, err).WriteResponse(rw, producer)
		default:
			encoded(encoder.Finish()).WriteResponse(rw, producer)
		}
	})
}

// encoded responds with 200 and a JSON document.
func encoded(document []byte) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		_, _ = rw.Write(append(document, '\n')) // fails only if the client has disconnected
	})
}

// bodyOfQuery decodes a query parameter into body, under the schema of the POST body. Its errors
// match entity.ErrInvalid and name the definition.
func (h *Handler) bodyOfQuery(r *http.Request, text, definition string, body interface {
	Validate(formats strfmt.Registry) error
}) error {
	if length := len(r.URL.RawQuery); h.maxGetQueryBytes > 0 && length > h.maxGetQueryBytes {
		return entity.Invalid("the query has %d bytes, more than the %d allowed (FLAGR_EVAL_GET_MAX_URL_BYTES); use POST instead",
			length, h.maxGetQueryBytes)
	}
	if err := decodeJSON(strings.NewReader(strings.TrimPrefix(text, entity.ByteOrderMark)), body); err != nil {
		return entity.Invalid("json is not valid %s: %s", definition, jsonMessage("the text", err))
	}
	if err := body.Validate(strfmt.Default); err != nil {
		return entity.Invalid("json is not valid %s: %s", definition, plain(err))
	}
	return nil
}

// checkDepth rejects a context that nests deeper than stored JSON may, because recorders store it.
func checkDepth(name string, context any) error {
	if entity.Deeper(context, entity.MaxJSONDepth) {
		return entity.Invalid("%s nests more than the %d levels of objects and lists allowed", name, entity.MaxJSONDepth)
	}
	return nil
}

func evalRequestOf(body *models.EvalContext) eval.Request {
	r := eval.Request{
		FlagID:        body.FlagID,
		FlagKey:       body.FlagKey,
		EntityID:      body.EntityID,
		EntityType:    body.EntityType,
		EntityContext: body.EntityContext,
		EnableDebug:   body.EnableDebug,
		FlagTags:      body.FlagTags,
	}
	if body.FlagTagsOperator != nil {
		r.FlagTagsOperator = *body.FlagTagsOperator
	}
	return r
}

// batchRequestOf rejects a null entity, which the generated validation allows.
func batchRequestOf(body *models.EvaluationBatchRequest) (eval.BatchRequest, error) {
	r := eval.BatchRequest{
		Entities:    make([]eval.Entity, len(body.Entities)),
		EnableDebug: body.EnableDebug,
		FlagIDs:     body.FlagIDs,
		FlagKeys:    body.FlagKeys,
		FlagTags:    body.FlagTags,
	}
	if body.FlagTagsOperator != nil {
		r.FlagTagsOperator = *body.FlagTagsOperator
	}
	for i, e := range body.Entities {
		if e == nil {
			return eval.BatchRequest{}, entity.Invalid("entities.%d must not be null", i)
		}
		if err := checkDepth(fmt.Sprintf("entities.%d.entityContext", i), e.EntityContext); err != nil {
			return eval.BatchRequest{}, err
		}
		r.Entities[i] = eval.Entity{EntityID: e.EntityID, EntityType: e.EntityType, EntityContext: e.EntityContext}
	}
	return r, nil
}
