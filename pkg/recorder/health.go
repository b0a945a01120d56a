package recorder

import (
	"log/slog"
	"sync"
	"time"
)

// State says how a recorder gets on with its broker.
type State string

// The states of a recorder.
const (
	// Unproven: neither a Probe nor an attempt to deliver has ended yet, so nothing is known.
	Unproven State = "unproven"
	// Working: the last attempt succeeded, or a Probe did and nothing was attempted since.
	Working State = "working"
	// Failing: the last attempt, or a Probe before the first one, failed. Records wait, and attempts go on.
	Failing State = "failing"
)

// outageLogInterval is the least time between two log lines about beginnings of outages: a broker that comes and goes must
// not fill the log.
const outageLogInterval = time.Minute

// Health keeps the state of one recorder and logs when it changes, so that an outage costs two lines, however long it
// lasts and however often is tried. Sink and Transport report to it.
type Health struct {
	logger *slog.Logger

	// reporting is held while one report is taken and logged, so that the lines are in the order of the reports.
	reporting sync.Mutex

	// mu is never held during logging: whoever asks for the state does not wait for that.
	mu          sync.Mutex
	attempted   bool // an attempt to deliver was reported
	state       State
	since       time.Time // of state
	lastErrorAt time.Time
	lastError   string
	announced   bool      // the present outage is in the log
	announcedAt time.Time // when the last one was
}

// NewHealth makes the Health of a recorder. The logger should name it.
func NewHealth(logger *slog.Logger) *Health {
	return &Health{logger: logger, state: Unproven, since: time.Now()}
}

// Failed reports an attempt to deliver that failed.
func (h *Health) Failed(err error) { h.report(err, true) }

// Succeeded reports an attempt to deliver that succeeded.
func (h *Health) Succeeded() { h.report(nil, true) }

// probed reports what a Probe has found. It gives way to attempts to deliver, which show more.
func (h *Health) probed(err error) { h.report(err, false) }

func (h *Health) report(err error, attempt bool) {
	h.reporting.Lock()
	defer h.reporting.Unlock()
	h.mu.Lock()
	if !attempt && h.attempted {
		h.mu.Unlock()
		return
	}
	h.attempted = attempt
	if err != nil {
		announce := h.fail(err)
		h.mu.Unlock()
		if announce {
			h.logger.Warn("recorder cannot deliver, and keeps trying", "error", err)
		} else {
			h.logger.Debug("recorder cannot deliver", "error", err)
		}
		return
	}
	since, announced := h.since, h.announced
	if h.state != Working {
		h.state, h.since, h.announced = Working, time.Now(), false
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

// fail needs mu. It returns whether the outage is news for the log.
func (h *Health) fail(err error) bool {
	now := time.Now()
	if h.state != Failing {
		h.state, h.since = Failing, now
	}
	h.lastError, h.lastErrorAt = err.Error(), now
	if h.announced || !h.announcedAt.IsZero() && now.Sub(h.announcedAt) < outageLogInterval {
		return false
	}
	h.announced, h.announcedAt = true, now
	return true
}

// proven tells whether a Probe could add nothing to what is known.
func (h *Health) proven() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.attempted || h.state == Working
}

func (h *Health) fill(s *Stats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.State, s.Since, s.LastError, s.LastErrorAt = h.state, h.since.UTC(), h.lastError, h.lastErrorAt.UTC()
}
