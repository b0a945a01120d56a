package handler

import (
	"context"
	stderrors "errors"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/pkg/datar/datarhttp"
	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/insight"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// completeness returns how complete the counts of a window are, or nil and no error if the store
// cannot tell. Times when a flag's records were off are available only if its history is in the
// database.
func (h *Handler) completeness(ctx context.Context, flagID int64, from, to *time.Time) (*datarhttp.Complete, error) {
	if flagID != 0 && h.answers != nil && h.answers.HasCounts() {
		c, err := h.answers.CompleteOfFlag(ctx, flagID, insight.Window{From: from, To: to})
		switch {
		case err == nil:
			return completeOf(c), nil
		case !stderrors.Is(err, entity.ErrNotFound): // a flag that no longer exists may have counts
			return nil, err
		}
	}
	c, err := h.datar.QueryCompleteness(ctx, from, to)
	switch {
	case stderrors.Is(err, datar.ErrNoDetails):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return datarhttp.CompleteOf(c), nil
}

// completeOf converts to the member complete of the bodies of datarhttp.
func completeOf(c *insight.Complete) *datarhttp.Complete {
	all := &datarhttp.Complete{Since: c.Since, UpTo: c.UpTo, Servers: c.Servers, Silent: c.Silent, Pending: c.Pending, Dropped: c.Dropped}
	for _, hole := range c.Holes {
		all.Holes = append(all.Holes, datarhttp.Hole{From: hole.From, To: hole.To, Why: string(hole.Why)})
	}
	return all
}

// completeModel is completeOf for responses that are generated models.
func completeModel(c *insight.Complete) *models.DatarComplete {
	return &models.DatarComplete{
		Since: timeModel(c.Since), UpTo: timeModel(c.UpTo), Servers: new(int64(c.Servers)), Silent: new(int64(c.Silent)),
		Pending: &c.Pending, Dropped: &c.Dropped,
		Holes: mapAll(c.Holes, func(h *insight.Hole) *models.DatarHole {
			return &models.DatarHole{From: timeModel(h.From), To: timeModel(h.To), Why: new(string(h.Why))}
		}),
	}
}
