package metrics

import (
	"log/slog"
	"regexp"
	"sync"
	"time"
)

const (
	// errorSilence is how long a problem of OpenTelemetry must be absent before it is logged again.
	// By default, exporters retry at least once a minute.
	errorSilence = 10 * time.Minute
	// maxErrors is the maximum number of remembered problems.
	maxErrors = 100
)

// digits differ between errors with the same cause, such as in local ports.
var digits = regexp.MustCompile(`\d+`)

// ErrorLog logs the errors of OpenTelemetry's libraries, which report one for each export while a
// collector is unavailable. A problem is logged once, until it has been absent for a while.
type ErrorLog struct {
	logger *slog.Logger

	mu struct {
		sync.Mutex
		last map[string]time.Time // by the text of the problem, without digits
	}
}

// NewErrorLog returns an ErrorLog.
func NewErrorLog(logger *slog.Logger) *ErrorLog { return &ErrorLog{logger: logger} }

// Handle logs a problem unless it is known. It is safe for concurrent use.
func (l *ErrorLog) Handle(err error) {
	text := digits.ReplaceAllString(err.Error(), "#")
	now := time.Now()
	l.mu.Lock()
	last, known := l.mu.last[text]
	if l.mu.last == nil || !known && len(l.mu.last) >= maxErrors {
		l.mu.last = map[string]time.Time{}
	}
	l.mu.last[text] = now
	l.mu.Unlock()
	if !known || now.Sub(last) >= errorSilence {
		l.logger.Warn("OpenTelemetry reported an error", "error", err)
	}
}
