package app

import (
	"log/slog"
	"regexp"
	"sync"
	"time"
)

const (
	// telemetrySilence is how long a problem of OpenTelemetry must not have come up to be news again. Exporters try at least
	// once a minute by default.
	telemetrySilence = 10 * time.Minute
	// telemetryProblems is how many problems are remembered.
	telemetryProblems = 100
)

// digits differ between errors about the same, such as those of local ports.
var digits = regexp.MustCompile(`\d+`)

// telemetryLog logs what OpenTelemetry's libraries report, which is an error for each export while a collector is away: a
// problem is one line until it has been gone for a while.
type telemetryLog struct {
	logger *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // by the text of the problem, without digits
}

// Handle is for any goroutine.
func (l *telemetryLog) Handle(err error) {
	text := digits.ReplaceAllString(err.Error(), "#")
	now := time.Now()
	l.mu.Lock()
	last, known := l.last[text]
	if l.last == nil || !known && len(l.last) >= telemetryProblems {
		l.last = map[string]time.Time{}
	}
	l.last[text] = now
	l.mu.Unlock()
	if !known || now.Sub(last) >= telemetrySilence {
		l.logger.Warn("OpenTelemetry has a problem", "error", err)
	}
}
