package handler

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/runtime/middleware"
	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/pkg/datar"
	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
)

// summary and summaryFlag are the generated models, but leave out a time that is not known, where the generated one
// would say that it was in the year 1.
type summary struct {
	Flags []summaryFlag `json:"flags"`
}

type summaryFlag struct {
	models.DatarSummaryFlag
	LastEvaluatedAt *strfmt.DateTime `json:"lastEvaluatedAt,omitempty"`
}

func summaryModel(flags []datar.FlagSummary) summary {
	s := summary{Flags: make([]summaryFlag, len(flags))}
	for i, f := range flags {
		s.Flags[i].DatarSummaryFlag = models.DatarSummaryFlag{
			FlagID:         f.FlagID,
			FlagKey:        f.Key,
			Enabled:        f.Enabled,
			Description:    f.Description,
			TotalEvalCount: f.Total,
		}
		s.Flags[i].LastEvaluatedAt = timeModel(f.LastEvaluatedAt)
	}
	return s
}

func breakdownModel(b *datar.FlagBreakdown) *models.DatarFlagSummaryResponse {
	var bySource []*models.DatarSourceEntry // nothing to tell where only this database's servers count
	if b.Ingested > 0 {
		server := -b.Ingested
		for _, c := range b.ByVariant {
			server += c.Count
		}
		if server > 0 {
			bySource = append(bySource, &models.DatarSourceEntry{Source: "server", Count: server})
		}
		bySource = append(bySource, &models.DatarSourceEntry{Source: "ingested", Count: b.Ingested})
	}
	return &models.DatarFlagSummaryResponse{
		FlagID:          b.FlagID,
		TrafficBySource: bySource,
		TrafficByVariant: mapAll(b.ByVariant, func(c *datar.VariantCount) *models.DatarVariantEntry {
			return &models.DatarVariantEntry{VariantID: c.VariantID, Count: c.Count}
		}),
		TrafficBySegment: mapAll(b.BySegment, func(c *datar.SegmentCount) *models.DatarSegmentEntry {
			return &models.DatarSegmentEntry{SegmentID: c.SegmentID, Count: c.Count}
		}),
		TrafficByDay: mapAll(b.ByDay, func(c *datar.DayCount) *models.DatarDayEntry {
			return &models.DatarDayEntry{Date: strfmt.Date(c.Day), Count: c.Count}
		}),
	}
}

func statusModel(s datar.Stats) *models.DatarStatus {
	m := &models.DatarStatus{
		Writer:               s.Writer,
		FlushIntervalSeconds: s.FlushInterval.Seconds(),
		Recorded:             s.Recorded,
		Adopted:              s.Adopted,
		Stored:               s.Stored,
		Pending:              s.Pending,
		Dropped:              map[string]int64{},
		Keys:                 int64(s.Keys),
		OldestPendingAt:      timeModel(s.OldestPending),
		LastFlushAt:          timeModel(s.LastFlush),
		LastFlushSeconds:     s.LastFlushDuration.Seconds(),
		Journal:              &models.DatarJournal{Directory: s.Journal, State: "file", Lost: int64(s.LostJournals)},
	}
	for reason, n := range s.Dropped {
		m.Dropped[reason.String()] = n
	}
	switch {
	case s.InMemory:
		m.Journal.State = "memory"
	case s.Journal == "":
		m.Journal.State = "off"
	}
	switch {
	case errors.Is(s.LastError, context.DeadlineExceeded):
		m.LastError = "the database did not answer in time"
	case s.LastError != nil: // its text is for the log
		m.LastError = "the database did not take the counts"
	}
	return m
}

// timeModel leaves out the zero time.
func timeModel(t time.Time) *strfmt.DateTime {
	if t.IsZero() {
		return nil
	}
	return new(strfmt.DateTime(t.UTC()))
}

// ok answers 200 with a body that is not one of the generated models.
func ok(body any) middleware.Responder {
	return middleware.ResponderFunc(func(rw http.ResponseWriter, producer runtime.Producer) {
		rw.WriteHeader(http.StatusOK)
		if err := producer.Produce(rw, body); err != nil {
			panic(err) // as the generated responders do: the recovery middleware logs it
		}
	})
}
