package handler

import (
	"context"
	stderrors "errors"
	"net/http"
	"time"

	"github.com/go-openapi/runtime/middleware"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	datarapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/datar"
)

// Fleet reads the statistics of all servers. Its error matches datar.ErrNoDetails if the store does
// not keep them.
type Fleet interface {
	Fleet(ctx context.Context) (*datar.Fleet, error)
}

// GetDatarFleet returns the statistics of all servers that count into the database.
func (h *Handler) GetDatarFleet(p datarapi.GetDatarFleetParams) middleware.Responder {
	if h.fleet == nil {
		return datarOff()
	}
	if err := checkFormat(p.Format); err != nil {
		return h.fail(p.HTTPRequest, err)
	}
	fleet, err := h.fleet.Fleet(p.HTTPRequest.Context())
	switch {
	case stderrors.Is(err, datar.ErrNoDetails):
		return reply(http.StatusServiceUnavailable, "this server forwards its counts: GET /datar/fleet of the central server has them")
	case err != nil:
		return h.fail(p.HTTPRequest, err)
	}
	now := h.now()
	if isCSV(p.Format) {
		return csv(insight.FleetTable(fleet, now))
	}
	return datarapi.NewGetDatarFleetOK().WithPayload(fleetModel(fleet, now))
}

func fleetModel(f *datar.Fleet, now time.Time) *models.DatarFleet {
	return &models.DatarFleet{
		Recorded: &f.Recorded, Stored: &f.Stored, Pending: &f.Pending, Dropped: f.Dropped, Lost: f.Lost, Balanced: &f.Balanced,
		Unbalanced: mapAll(insight.Imbalances(f), func(i *insight.Imbalance) *models.DatarFleetImbalance {
			return &models.DatarFleetImbalance{Server: &i.Server, Kind: new(string(i.Kind)), Count: &i.Count, Text: new(i.Text.String())}
		}),
		Servers: mapAll(f.Servers, func(s *datar.FleetServer) *models.DatarFleetServer {
			return &models.DatarFleetServer{
				Name: &s.Name, Kind: new(string(s.Kind)), State: new(string(s.State)),
				Recorded: &s.Recorded, Stored: &s.Stored, Pending: &s.Pending, Dropped: s.Dropped, LastFlushAt: timeModel(s.LastFlush),
				Text: insight.SilentText(s, now).String(),
			}
		}),
	}
}
