package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/budget"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
)

// registerAnswers registers the operations of flag analytics.
func (h *Handler) registerAnswers(api *operations.FlagrAPI) {
	api.DatarGetDatarFlagOutcomesHandler = datarapi.GetDatarFlagOutcomesHandlerFunc(withCounts(h, h.GetDatarFlagOutcomes))
	api.DatarGetDatarFlagReasonsHandler = datarapi.GetDatarFlagReasonsHandlerFunc(withCounts(h, h.GetDatarFlagReasons))
	api.DatarGetDatarFlagSeriesHandler = datarapi.GetDatarFlagSeriesHandlerFunc(withCounts(h, h.GetDatarFlagSeries))
	api.DatarGetDatarFlagRolloutHandler = datarapi.GetDatarFlagRolloutHandlerFunc(withCounts(h, h.GetDatarFlagRollout))
	api.DatarGetDatarFlagStateHandler = datarapi.GetDatarFlagStateHandlerFunc(withCounts(h, h.GetDatarFlagState))
	api.DatarGetDatarStatesHandler = datarapi.GetDatarStatesHandlerFunc(withCounts(h, h.GetDatarStates))
	api.DatarGetDatarUnknownHandler = datarapi.GetDatarUnknownHandlerFunc(withCounts(h, h.GetDatarUnknown))
	api.DatarPostDatarFlagForecastHandler = datarapi.PostDatarFlagForecastHandlerFunc(withCounts(h, h.PostDatarFlagForecast))
	api.DatarGetDatarFlagTailHandler = datarapi.GetDatarFlagTailHandlerFunc(withCounts(h, h.GetDatarFlagTail))
	api.DatarGetDatarFlagChangesHandler = datarapi.GetDatarFlagChangesHandlerFunc(withAnswers(h, h.GetDatarFlagChanges))
	api.DatarPostFlagTryHandler = datarapi.PostFlagTryHandlerFunc(withAnswers(h, h.PostFlagTry))
}

// withAnswers responds with an error to operations that need flags from a database if there is no
// database.
func withAnswers[P any](h *Handler, operation func(P) middleware.Responder) func(P) middleware.Responder {
	if h.answers != nil {
		return operation
	}
	return func(P) middleware.Responder {
		return reply(http.StatusNotImplemented, "not implemented: this server takes its flags from a JSON document, which has no history")
	}
}

// withCounts responds with an error to operations that need counts while Datar is off.
func withCounts[P any](h *Handler, operation func(P) middleware.Responder) func(P) middleware.Responder {
	if h.answers != nil && h.answers.HasCounts() {
		return operation
	}
	return func(P) middleware.Responder { return datarOff() }
}

// answer responds with JSON, or with CSV if format, which must have passed checkFormat, selects it.
func (h *Handler) answer(r *http.Request, format *string, err error, body func() any, table func() *insight.Table) middleware.Responder {
	if err != nil {
		return h.fail(r, err)
	}
	if isCSV(format) {
		return csv(table())
	}
	return ok(body())
}

// csv responds with 200 and a table.
func csv(table *insight.Table) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		rw.Header().Set(runtime.HeaderContentType, "text/csv; charset=utf-8; header=present")
		rw.Header().Set("Content-Disposition", "attachment")
		rw.WriteHeader(http.StatusOK)
		_ = table.WriteCSV(rw) // fails only if the client has disconnected
	})
}

// isCSV reports whether format selects CSV. format must have passed checkFormat.
func isCSV(format *string) bool { return textOf(format) == "csv" }

// checkFormat rejects an unsupported format before any work is done.
func checkFormat(format *string) error {
	if format != nil && *format != "" && *format != "json" && *format != "csv" {
		return entity.Invalid("format is %q, want json or csv", shortened(*format))
	}
	return nil
}

// GetDatarFlagOutcomes returns the outcomes of a flag's evaluations.
func (h *Handler) GetDatarFlagOutcomes(p datarapi.GetDatarFlagOutcomesParams) middleware.Responder {
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	o, err := h.answers.Outcomes(p.HTTPRequest.Context(), p.FlagID, insight.Window{From: timeOf(p.From), To: timeOf(p.To)})
	return h.answer(p.HTTPRequest, p.Format, err, func() any { return outcomesModel(o) }, func() *insight.Table { return o.Table() })
}

// GetDatarFlagReasons returns the constraints that stopped evaluations.
func (h *Handler) GetDatarFlagReasons(p datarapi.GetDatarFlagReasonsParams) middleware.Responder {
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	r, err := h.answers.Reasons(p.HTTPRequest.Context(), p.FlagID, insight.Window{From: timeOf(p.From), To: timeOf(p.To)})
	return h.answer(p.HTTPRequest, p.Format, err, func() any { return reasonsModel(r) }, func() *insight.Table { return r.Table() })
}

// GetDatarFlagSeries returns the traffic of a flag over time.
func (h *Handler) GetDatarFlagSeries(p datarapi.GetDatarFlagSeriesParams) middleware.Responder {
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	s, err := h.answers.Series(p.HTTPRequest.Context(), p.FlagID, insight.SeriesQuery{
		Window: insight.Window{From: timeOf(p.From), To: timeOf(p.To)},
		Bucket: textOf(p.Bucket), Zone: textOf(p.Tz), By: textOf(p.By), Compare: textOf(p.Compare),
	})
	if err == nil && isCSV(p.Format) {
		err = s.CheckTable()
	}
	return h.answer(p.HTTPRequest, p.Format, err, func() any { return seriesModel(s) }, func() *insight.Table { return s.Table() })
}

// GetDatarFlagChanges lists the changes of a flag.
func (h *Handler) GetDatarFlagChanges(p datarapi.GetDatarFlagChangesParams) middleware.Responder {
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	list, err := h.answers.Changes(p.HTTPRequest.Context(), p.FlagID, p.Limit, p.Offset)
	return h.answer(p.HTTPRequest, p.Format, err, func() any {
		return &models.DatarChanges{FlagID: &list.FlagID, Total: new(int64(list.Total)), Changes: mapAll(list.Changes, changeModel)}
	}, func() *insight.Table { return insight.ChangesTable(list.Changes) })
}

// GetDatarFlagRollout compares the configured rollout with the measured one.
func (h *Handler) GetDatarFlagRollout(p datarapi.GetDatarFlagRolloutParams) middleware.Responder {
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	r, err := h.answers.Rollout(p.HTTPRequest.Context(), p.FlagID, insight.Window{From: timeOf(p.From), To: timeOf(p.To)})
	return h.answer(p.HTTPRequest, p.Format, err, func() any { return rolloutModel(r) }, func() *insight.Table { return r.Table() })
}

// PostDatarFlagForecast forecasts the effect of a draft.
func (h *Handler) PostDatarFlagForecast(p datarapi.PostDatarFlagForecastParams) middleware.Responder {
	draft, err := h.draftOf(p.HTTPRequest.Context(), p.Body.Draft)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	if budget.Resume(p.HTTPRequest.Context()) != nil {
		return noTurnInTime(p.HTTPRequest)
	}
	f, err := h.answers.Forecast(p.HTTPRequest.Context(), p.FlagID, draft)
	return h.answer(p.HTTPRequest, nil, err, func() any { return forecastModel(f) }, nil)
}

// GetDatarFlagState returns the state of a flag and whether it can be deleted.
func (h *Handler) GetDatarFlagState(p datarapi.GetDatarFlagStateParams) middleware.Responder {
	s, err := h.answers.State(p.HTTPRequest.Context(), p.FlagID, p.Days)
	return h.answer(p.HTTPRequest, nil, err, func() any { return stateModel(s) }, nil)
}

// GetDatarStates lists flags by their states.
func (h *Handler) GetDatarStates(p datarapi.GetDatarStatesParams) middleware.Responder {
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	s, err := h.answers.States(p.HTTPRequest.Context(), insight.StatesQuery{
		States: p.State, Stale: p.Stale, CanDelete: textOf(p.CanDelete), Q: textOf(p.Q), Tags: p.Tags, Enabled: p.Enabled,
		Sort: textOf(p.Sort), Days: p.Days, Limit: p.Limit, Offset: p.Offset,
	})
	return h.answer(p.HTTPRequest, p.Format, err, func() any { return statesModel(s) }, func() *insight.Table { return s.Table() })
}

// GetDatarUnknown lists requested flags that do not exist.
func (h *Handler) GetDatarUnknown(p datarapi.GetDatarUnknownParams) middleware.Responder {
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	u, err := h.answers.Unknown(p.HTTPRequest.Context(), insight.Window{From: timeOf(p.From), To: timeOf(p.To)}, p.Limit, p.Offset)
	return h.answer(p.HTTPRequest, p.Format, err, func() any {
		return &models.DatarUnknownList{From: timeModel(u.From), To: timeModel(u.To), Unknown: mapAll(u.Unknown, unknownModel), Complete: completeModel(u.Complete)}
	}, func() *insight.Table { return insight.UnknownTable(u.Unknown) })
}

// PostFlagTry evaluates without counting.
func (h *Handler) PostFlagTry(p datarapi.PostFlagTryParams) middleware.Responder {
	entities := make([]eval.Entity, len(p.Body.Entities))
	var added map[string]any
	if h.injected != nil {
		added = h.injected.properties(p.HTTPRequest)
	}
	for i, e := range p.Body.Entities {
		if e == nil {
			return h.fail(p.HTTPRequest, entity.Invalid("entities.%d must not be null", i))
		}
		entities[i] = eval.Entity{EntityID: e.EntityID, EntityType: e.EntityType, EntityContext: e.EntityContext}
		if added != nil {
			entities[i].EntityContext = inject(e.EntityContext, added)
		}
	}
	var draft *entity.Definition
	if p.Body.Draft != nil {
		var err error
		if draft, err = h.draftOf(p.HTTPRequest.Context(), p.Body.Draft); err != nil {
			return h.fail(p.HTTPRequest, err)
		}
	}
	if budget.Resume(p.HTTPRequest.Context()) != nil {
		return noTurnInTime(p.HTTPRequest)
	}
	trial, err := h.answers.Trial(p.HTTPRequest.Context(), p.FlagID, draft, entities)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	results, err := h.tried(p.HTTPRequest.Context(), trial)
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return middleware.ResponderFunc(func(rw http.ResponseWriter, _ runtime.Producer) {
		rw.WriteHeader(http.StatusOK)
		for _, part := range results {
			if _, err := rw.Write(part); err != nil {
				return // the client has disconnected
			}
		}
	})
}

// tried returns the response to a Trial in parts. It encodes each result at once, because the
// models of all results take several times the memory of their JSON.
func (h *Handler) tried(ctx context.Context, trial *insight.Trial) ([][]byte, error) {
	parts := [][]byte{[]byte(`{"results":[`)}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	length := 0
	err := trial.Each(ctx, h.now(), func(t insight.Tried) (kept int, err error) {
		buffer.Reset()
		if len(parts) > 1 {
			buffer.WriteByte(',')
		}
		if err := encoder.Encode(triedModel(&t)); err != nil {
			return 0, err
		}
		part := bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
		parts = append(parts, bytes.Clone(part))
		length += len(part)
		return len(part), trial.CheckAnswer(length)
	})
	if err != nil {
		return nil, err
	}
	return append(parts, []byte("]}\n")), nil
}

// draftOf converts the parts of a draft as definitionOf converts those of a definition.
func (h *Handler) draftOf(ctx context.Context, m *models.FlagDraft) (*entity.Definition, error) {
	if m == nil {
		return &entity.Definition{}, nil
	}
	d, err := h.definitionOf(ctx, &models.FlagDefinition{SnapshotID: new(int64(0)), Enabled: m.Enabled, Variants: m.Variants, Segments: m.Segments})
	return &d, err
}

func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
