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

// Health keeps the state of one recorder and logs when it changes, so that an outage costs two lines, however long it
// lasts and however often is tried. Sink and Transport report to it.
type Health struct {
	logger *slog.Logger

	mu          sync.Mutex
	state       State
	since       time.Time // of state
	lastError   string
	lastErrorAt time.Time
}

// NewHealth makes the Health of a recorder. The logger should name it.
func NewHealth(logger *slog.Logger) *Health {
	return &Health{logger: logger, state: Unproven, since: time.Now()}
}

// Failed reports an attempt that failed.
func (h *Health) Failed(err error) {
	now := time.Now()
	h.mu.Lock()
	changed := h.state != Failing
	if changed {
		h.state, h.since = Failing, now
	}
	h.lastError, h.lastErrorAt = err.Error(), now
	h.mu.Unlock()
	if changed {
		h.logger.Warn("recorder cannot deliver, and keeps trying", "error", err)
	} else {
		h.logger.Debug("recorder still cannot deliver", "error", err)
	}
}

// Succeeded reports an attempt that succeeded.
func (h *Health) Succeeded() {
	h.mu.Lock()
	before, since := h.state, h.since
	if before != Working {
		h.state, h.since = Working, time.Now()
	}
	h.mu.Unlock()
	if before == Failing {
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
