package recorder

import (
	"log/slog"
	"sync"
	"time"
)

// State is the state of a recorder's connection to its broker.
type State string

// The states of a recorder.
const (
	// Unproven: no Probe and no delivery attempt has ended yet.
	Unproven State = "unproven"
	// Working: the last attempt succeeded, or a Probe did and there was no attempt since.
	Working State = "working"
	// Failing: the last attempt, or a Probe before the first attempt, failed. Records wait, and the
	// recorder retries.
	Failing State = "failing"
)

// outageLogInterval is the minimum time between two log lines about beginnings of outages, so that
// an unstable broker does not fill the log.
const outageLogInterval = time.Minute

// Health has the state of one recorder and logs its changes, so that an outage costs two log lines,
// regardless of its duration and the number of retries. Sink and Transport report to it.
type Health struct {
	logger *slog.Logger

	// reporting is held while a report is processed and logged, so that log lines are in the order
	// of the reports.
	reporting sync.Mutex

	// mu is never held during logging, so that reading the state does not wait for it.
	mu struct {
		sync.Mutex
		attempted   bool // a delivery attempt was reported
		state       State
		since       time.Time // of state
		lastErrorAt time.Time
		lastError   string
		announced   bool      // the current outage is logged
		announcedAt time.Time // time of the last log line about an outage
	}
}

// NewHealth returns the Health of a recorder. The logger should have the recorder's name.
func NewHealth(logger *slog.Logger) *Health {
	h := &Health{logger: logger}
	h.mu.state, h.mu.since = Unproven, time.Now()
	return h
}

// Failed reports a failed delivery attempt.
func (h *Health) Failed(err error) { h.report(err, true) }

// Succeeded reports a successful delivery attempt.
func (h *Health) Succeeded() { h.report(nil, true) }

// probed reports the result of a Probe. Delivery attempts have priority, because they show more.
func (h *Health) probed(err error) { h.report(err, false) }

func (h *Health) report(err error, attempt bool) {
	h.reporting.Lock()
	defer h.reporting.Unlock()
	h.mu.Lock()
	if !attempt && h.mu.attempted {
		h.mu.Unlock()
		return
	}
	h.mu.attempted = attempt
	if err != nil {
		announce := h.failLocked(err)
		h.mu.Unlock()
		if announce {
			h.logger.Warn("recorder cannot deliver, and keeps trying", "error", err)
		} else {
			h.logger.Debug("recorder cannot deliver", "error", err)
		}
		return
	}
	since, announced := h.mu.since, h.mu.announced
	if h.mu.state != Working {
		h.mu.state, h.mu.since, h.mu.announced = Working, time.Now(), false
	}
	h.mu.Unlock()
	if announced {
		message := "recorder delivers again"
		if !attempt {
			message = "recorder can reach its broker"
		}
		h.logger.Info(message, "outage", time.Since(since).Round(time.Millisecond))
	}
}

// failLocked reports whether the outage must be logged.
func (h *Health) failLocked(err error) bool {
	now := time.Now()
	if h.mu.state != Failing {
		h.mu.state, h.mu.since = Failing, now
	}
	h.mu.lastError, h.mu.lastErrorAt = err.Error(), now
	if h.mu.announced || !h.mu.announcedAt.IsZero() && now.Sub(h.mu.announcedAt) < outageLogInterval {
		return false
	}
	h.mu.announced, h.mu.announcedAt = true, now
	return true
}

// proven reports whether a Probe is no longer useful.
func (h *Health) proven() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.attempted || h.mu.state == Working
}

func (h *Health) fill(s *Stats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.State, s.Since, s.LastError, s.LastErrorAt = h.mu.state, h.mu.since.UTC(), h.mu.lastError, h.mu.lastErrorAt.UTC()
}
