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

// pingTimeout is how long a readiness request waits for the database.
const pingTimeout = 2 * time.Second

// HealthChecks are the inputs of health and readiness. A nil function skips its check.
type HealthChecks struct {
	// LastCheck returns when the source of the flags last confirmed those in memory. It is zero
	// before the first load.
	LastCheck func() time.Time
	// Failing reports whether the last attempt to read or use the source failed.
	Failing func() bool
	// MaxAge is the age of LastCheck that counts as a problem. 0 means no limit.
	MaxAge time.Duration
	// Ping checks the database.
	Ping func(ctx context.Context) error
	// Recorders returns the state of the recorders.
	Recorders func() []RecorderStatus
	// Version is the version of the server.
	Version string
	// Stopping reports whether the server has begun to stop.
	Stopping func() bool
}

func (c *HealthChecks) canEvaluate() bool { return c.LastCheck == nil || !c.LastCheck().IsZero() }

// GetHealth returns whether the server can evaluate. It does not check the database, because
// evaluations do not need it.
func (h *Handler) GetHealth(healthapi.GetHealthParams) middleware.Responder {
	if !h.healthChecks.canEvaluate() {
		return reply(http.StatusServiceUnavailable, "no flags have been loaded yet")
	}
	return healthapi.NewGetHealthOK().WithPayload(&models.Health{Status: "OK"})
}

// GetReady returns whether the server should get requests, and the state of its parts. It returns
// 503 only if the server cannot evaluate or soon will not be able to. A database failure alone does
// not, because it affects all servers alike.
func (h *Handler) GetReady(p healthapi.GetReadyParams) middleware.Responder {
	checks := &h.healthChecks
	degraded := false

	flags := int64(h.snapshots.Snapshot().Len())
	evaluation := &models.ReadinessEvaluation{Flags: &flags}
	if checks.LastCheck != nil && checks.canEvaluate() {
		at := checks.LastCheck()
		age := h.now().Sub(at)
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
