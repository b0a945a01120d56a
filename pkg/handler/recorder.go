package handler

import (
	"time"

	"github.com/go-openapi/runtime/middleware"
	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/recorder"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	recorderapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/recorder"
)

// GetRecordersStatus returns the statistics of the streaming recorders.
func (h *Handler) GetRecordersStatus(recorderapi.GetRecordersStatusParams) middleware.Responder {
	m := &models.RecordersStatus{Recorders: []*models.RecorderStatus{}}
	if h.recorderStats != nil {
		for _, s := range h.recorderStats() {
			m.Recorders = append(m.Recorders, recorderStatusModel(s))
		}
	}
	return recorderapi.NewGetRecordersStatusOK().WithPayload(m)
}

// recorderStatusModel maps statistics. It leaves out the text of the last error, which goes to the
// log only.
func recorderStatusModel(s recorder.Stats) *models.RecorderStatus {
	m := &models.RecorderStatus{
		Name:           s.Name,
		State:          string(s.State),
		Since:          strfmt.DateTime(s.Since),
		LastErrorAt:    timeModel(s.LastErrorAt),
		Recorded:       int64(s.Recorded),
		Delivered:      int64(s.Delivered),
		Pending:        int64(s.Pending),
		PendingBytes:   s.PendingBytes,
		Dropped:        map[string]int64{},
		Retried:        int64(s.Retried),
		LastDeliveryAt: timeModel(s.LastDelivery),
	}
	for reason, n := range s.Dropped {
		m.Dropped[string(reason)] = int64(n)
	}
	return m
}

// timeModel maps the zero time to nil.
func timeModel(t time.Time) *strfmt.DateTime {
	if t.IsZero() {
		return nil
	}
	return new(strfmt.DateTime(t.UTC()))
}
