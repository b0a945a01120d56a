package handler

import (
	"context"
	"net/http"
	"time"

	"github.com/go-openapi/runtime/middleware"
	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
)

// Datar answers what the counts of evaluations say. Its errors match datar.ErrInvalidQuery and datar.ErrFlagNotFound
// where the request is at fault.
type Datar interface {
	QuerySummary(ctx context.Context, q datar.SummaryQuery) ([]datar.FlagSummary, error)
	QueryFlagSummaryBreakdown(ctx context.Context, flagID int64, q datar.BreakdownQuery) (*datar.FlagBreakdown, error)
}

// GetDatarSummary lists the flags that were evaluated within a window.
func (h *Handler) GetDatarSummary(p datarapi.GetDatarSummaryParams) middleware.Responder {
	if h.datar == nil {
		return h.datarOff()
	}
	flags, err := h.datar.QuerySummary(p.HTTPRequest.Context(),
		datar.SummaryQuery{From: timeOf(p.From), To: timeOf(p.To), Limit: p.Limit, Offset: p.Offset})
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return ok(summaryModel(flags))
}

// GetDatarFlagSummary shows what became of one flag's evaluations within a window.
func (h *Handler) GetDatarFlagSummary(p datarapi.GetDatarFlagSummaryParams) middleware.Responder {
	if h.datar == nil {
		return h.datarOff()
	}
	breakdown, err := h.datar.QueryFlagSummaryBreakdown(p.HTTPRequest.Context(), p.FlagID,
		datar.BreakdownQuery{From: timeOf(p.From), To: timeOf(p.To)})
	if err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	return datarapi.NewGetDatarFlagSummaryOK().WithPayload(breakdownModel(breakdown))
}

func (h *Handler) datarOff() middleware.Responder {
	if h.store == nil {
		return reply(http.StatusServiceUnavailable, "Datar is off: this server runs in eval-only mode, without a database to keep counts in")
	}
	return reply(http.StatusServiceUnavailable, "Datar is off: start the server with FLAGR_RECORDER_ENABLED=true and a "+
		"FLAGR_RECORDER_TYPE that lists datar, such as FLAGR_RECORDER_TYPE=datar or FLAGR_RECORDER_TYPE=kafka,datar")
}

func timeOf(t *strfmt.DateTime) *time.Time {
	return (*time.Time)(t)
}

// FlagFinder finds flags by id, deleted ones included.
type FlagFinder interface {
	FlagsByID(ctx context.Context, ids []int64) ([]entity.Flag, error)
}

// catalog names flags for Datar.
type catalog struct{ flags FlagFinder }

// NewCatalog returns the names of flags, deleted ones included, for summaries.
func NewCatalog(flags FlagFinder) datar.Catalog { return catalog{flags} }

func (c catalog) Flags(ctx context.Context, ids []int64) (map[int64]datar.FlagInfo, error) {
	flags, err := c.flags.FlagsByID(ctx, ids)
	if err != nil {
		return nil, err
	}
	infos := make(map[int64]datar.FlagInfo, len(flags))
	for _, f := range flags {
		infos[int64(f.ID)] = datar.FlagInfo{Key: f.Key, Description: f.Description, Enabled: f.Enabled}
	}
	return infos, nil
}
