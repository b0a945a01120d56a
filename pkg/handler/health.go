package handler

import (
	"context"
	"net/http"
	"time"

	"github.com/go-openapi/runtime/middleware"
	"github.com/go-openapi/strfmt"

	"github.com/flagr-datar/flagr-datar/swagger_gen/models"
	healthapi "github.com/flagr-datar/flagr-datar/swagger_gen/restapi/operations/health"
)

// pingTimeout bounds how long a question for readiness waits for the database.
const pingTimeout = 2 * time.Second

// HealthChecks is what health and readiness look at. A nil function means that there is nothing to look at.
type HealthChecks struct {
	// LastCheck is when the source of the flags last confirmed those in memory; zero if there are none yet.
	LastCheck func() time.Time
	// Failing is whether the source could not be read or used when it was looked at last.
	Failing func() bool
	// MaxAge is how long ago that may be until it counts as a problem; 0 means any time.
	MaxAge time.Duration
	// Ping asks the database for a sign of life.
	Ping func(ctx context.Context) error
	// Recorders tells how the recorders are.
	Recorders func() []RecorderStatus
	// Version is the version of the server.
	Version string
	// Stopping is whether the server has begun to stop.
	Stopping func() bool
}

func (c *HealthChecks) canEvaluate() bool { return c.LastCheck == nil || !c.LastCheck().IsZero() }

// GetHealth says whether the server can evaluate. It does not look at the database: evaluations do not need it.
func (h *Handler) GetHealth(healthapi.GetHealthParams) middleware.Responder {
	if !h.healthChecks.canEvaluate() {
		return reply(http.StatusServiceUnavailable, "no flags have been loaded yet")
	}
	return healthapi.NewGetHealthOK().WithPayload(&models.Health{Status: "OK"})
}

// GetReady says whether the server should get requests, and how its parts are. Only what keeps it from evaluating, or
// will soon, makes it answer 503: a database that is away is away for all servers.
func (h *Handler) GetReady(p healthapi.GetReadyParams) middleware.Responder {
	checks := &h.healthChecks
	degraded := false

	flags := int64(h.snapshots.Snapshot().Len())
	evaluation := &models.ReadinessEvaluation{Flags: &flags}
	if checks.LastCheck != nil && checks.canEvaluate() {
		at := checks.LastCheck()
		age := time.Since(at)
		checkedAt, seconds := strfmt.DateTime(at.UTC()), age.Seconds()
		evaluation.CheckedAt, evaluation.AgeSeconds = &checkedAt, &seconds
		degraded = checks.MaxAge > 0 && age > checks.MaxAge
	}
	degraded = degraded || checks.Failing != nil && checks.Failing()

	state := models.ReadinessDatabaseStatusNone
	database := &models.ReadinessDatabase{Status: &state}
	if checks.Ping != nil {
		ctx, cancel := context.WithTimeout(p.HTTPRequest.Context(), pingTimeout)
		defer cancel()
		start := time.Now()
		if err := checks.Ping(ctx); err != nil {
			state, degraded = models.ReadinessDatabaseStatusUnreachable, true
			h.logger.Warn("database does not answer the question for readiness", "error", err)
		} else {
			latency := float64(time.Since(start)) / float64(time.Millisecond)
			state, database.LatencyMilliseconds = models.ReadinessDatabaseStatusOK, &latency
		}
	}

	recorders := []*models.ReadinessRecorder{}
	if checks.Recorders != nil {
		for _, r := range checks.Recorders() {
			state := models.ReadinessRecorderStatusOK
			if r.Failing {
				state, degraded = models.ReadinessRecorderStatusFailing, true
			}
			recorders = append(recorders, &models.ReadinessRecorder{Name: &r.Name, Status: &state})
		}
	}

	status := models.ReadinessStatusOK
	ready := true
	switch {
	case checks.Stopping != nil && checks.Stopping():
		status, ready = models.ReadinessStatusStopping, false
	case !checks.canEvaluate():
		status, ready = models.ReadinessStatusStarting, false
	case degraded:
		status = models.ReadinessStatusDegraded
	}
	body := &models.Readiness{Status: &status, Evaluation: evaluation, Database: database, Recorders: recorders, Version: checks.Version}
	if !ready {
		return healthapi.NewGetReadyServiceUnavailable().WithPayload(body)
	}
	return healthapi.NewGetReadyOK().WithPayload(body)
}
