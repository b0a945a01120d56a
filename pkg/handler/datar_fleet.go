package handler

import (
	"context"
	stderrors "errors"
	"fmt"
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
		return csv(insight.FleetTable(fleet, func(s *datar.FleetServer) string { return silentText(s, now) }))
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
				Text: silentText(s, now),
			}
		}),
	}
}

// silentText describes why a server is silent. It returns "" if the server is not silent.
func silentText(s *datar.FleetServer, now time.Time) string {
	if s.State != datar.StateSilent {
		return ""
	}
	if ahead := s.LastHeard.Sub(now); ahead > 0 {
		return fmt.Sprintf("Its clock is or was %s ahead of this server's, so its counts may be in hours to come. If it is right now, this ends when that time has passed.", age(ahead))
	}
	return fmt.Sprintf("Not heard of for %s, and did not end: its counts may still come, up to 90 days late.", age(now.Sub(s.LastHeard)))
}

// age formats an elapsed time in whole days, hours, minutes or seconds, rounded down.
func age(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		switch n := d / unit.length; {
		case n == 1:
			return "1 " + unit.name
		case n > 1:
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
