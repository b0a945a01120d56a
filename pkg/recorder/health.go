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
	// Unproven: nothing has been sent yet, so nothing is known.
	Unproven State = "unproven"
	// Working: the last attempt succeeded.
	Working State = "working"
	// Failing: the last attempt failed. Records wait, and attempts go on.
	Failing State = "failing"
)

// outageLogInterval is the least time between two log lines about beginnings of outages: a broker that comes and goes must
// not fill the log.
const outageLogInterval = time.Minute

// Health keeps the state of one recorder and logs when it changes, so that an outage costs two lines, however long it
// lasts and however often is tried. Sink and Transport report to it.
type Health struct {
	logger *slog.Logger

	mu          sync.Mutex
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

// Failed reports an attempt that failed.
func (h *Health) Failed(err error) {
	now := time.Now()
	h.mu.Lock()
	if h.state != Failing {
		h.state, h.since = Failing, now
	}
	h.lastError, h.lastErrorAt = err.Error(), now
	announce := !h.announced && (h.announcedAt.IsZero() || now.Sub(h.announcedAt) >= outageLogInterval)
	if announce {
		h.announced, h.announcedAt = true, now
	}
	h.mu.Unlock()
	if announce {
		h.logger.Warn("recorder cannot deliver, and keeps trying", "error", err)
	} else {
		h.logger.Debug("recorder cannot deliver", "error", err)
	}
}

// Succeeded reports an attempt that succeeded.
func (h *Health) Succeeded() {
	h.mu.Lock()
	since, announced := h.since, h.announced
	if h.state != Working {
		h.state, h.since, h.announced = Working, time.Now(), false
	}
	h.mu.Unlock()
	if announced {
		h.logger.Info("recorder delivers again", "outage", time.Since(since).Round(time.Millisecond))
	}
}

func (h *Health) working() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state == Working
}

func (h *Health) fill(s *Stats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.State, s.Since, s.LastError, s.LastErrorAt = h.state, h.since.UTC(), h.lastError, h.lastErrorAt.UTC()
}
