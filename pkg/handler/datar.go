package handler

import (
	"context"
	"net/http"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"
	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
)

// Datar reads the counts of evaluations. Its errors match datar.ErrInvalidQuery and
// datar.ErrFlagNotFound if the request is at fault.
type Datar interface {
	QuerySummary(ctx context.Context, q datar.SummaryQuery) ([]datar.FlagSummary, error)
	QueryFlagSummaryBreakdown(ctx context.Context, flagID int64, q datar.BreakdownQuery) (*datar.FlagBreakdown, error)
	Stats() datar.Stats
	// QueryCompleteness returns how complete the counts of a window are. Its error matches
	// datar.ErrNoDetails if the store cannot tell, for example on an edge server.
	QueryCompleteness(ctx context.Context, from, to *time.Time) (*datar.Completeness, error)
}

// GetDatarSummary lists the flags that were evaluated within a window.
func (h *Handler) GetDatarSummary(p datarapi.GetDatarSummaryParams) middleware.Responder {
	if h.datar == nil {
		return datarOff()
	}
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	flags, err := h.datar.QuerySummary(p.HTTPRequest.Context(),
		datar.SummaryQuery{From: timeOf(p.From), To: timeOf(p.To), Limit: p.Limit, Offset: p.Offset})
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	if isCSV(p.Format) {
		return csv(insight.SummaryTable(flags))
	}
	texts := 0
	for i := range flags {
		texts += len(flags[i].Description)
	}
	if err := insight.ReserveTexts(p.HTTPRequest.Context(), texts); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return h.okComplete(p.HTTPRequest, datarhttp.SummaryBody(flags), 0, p.From, p.To)
}

// GetDatarFlagSummary returns the results of one flag's evaluations within a window.
func (h *Handler) GetDatarFlagSummary(p datarapi.GetDatarFlagSummaryParams) middleware.Responder {
	if h.datar == nil {
		return datarOff()
	}
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	breakdown, err := h.datar.QueryFlagSummaryBreakdown(p.HTTPRequest.Context(), p.FlagID,
		datar.BreakdownQuery{From: timeOf(p.From), To: timeOf(p.To)})
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	if isCSV(p.Format) {
		return csv(insight.FlagSummaryTable(breakdown))
	}
	return h.okComplete(p.HTTPRequest, datarhttp.FlagSummaryBody(breakdown), p.FlagID, p.From, p.To)
}

// GetDatarStatus returns whether counting works.
func (h *Handler) GetDatarStatus(p datarapi.GetDatarStatusParams) middleware.Responder {
	if h.datar == nil {
		return datarOff()
	}
	body := datarhttp.StatusBody(h.datar.Stats())
	ctx, cancel := context.WithTimeout(p.HTTPRequest.Context(), datarhttp.StatusTimeout)
	defer cancel()
	if c, err := h.completeness(ctx, 0, nil, nil); err == nil {
		body = datarhttp.WithComplete(body, c)
	}
	return ok(body)
}

// okComplete responds with 200, a body, and how complete the counts in the body are. flagID 0
// stands for all flags.
func (h *Handler) okComplete(r *http.Request, body any, flagID int64, from, to *strfmt.DateTime) middleware.Responder {
	c, err := h.completeness(r.Context(), flagID, timeOf(from), timeOf(to))
	if err != nil {
		return h.fail(r, err)
	}
	return ok(datarhttp.WithComplete(body, c))
}

// ok responds with 200 and a body that is not a generated model.
func ok(body any) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		rw.WriteHeader(http.StatusOK)
		if err := producer.Produce(rw, body); err != nil {
			panic(err) // the generated responders panic, too; the recovery middleware logs it
		}
	})
}

func datarOff() middleware.Responder {
	return reply(http.StatusServiceUnavailable, "Datar is off: to switch it on, start the server with "+
		"FLAGR_RECORDER_ENABLED=true and with datar in the list FLAGR_RECORDER_TYPE, such as datar or kafka,datar. "+
		"It needs a database, so it stays off where FLAGR_DB_DBDRIVER is json_file or json_http")
}

func timeOf(t *strfmt.DateTime) *time.Time {
	return (*time.Time)(t)
}
