package metrics

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProblemsOfOpenTelemetryAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := NewErrorLog(slog.New(slog.NewTextHandler(&out, nil)))
		report := func(text string, times, lines int) {
			t.Helper()
			out.Reset()
			for port := range times {
				log.Handle(fmt.Errorf("dial from 127.0.0.1:%d: %s", 40_000+port, text))
				time.Sleep(time.Minute)
			}
			if got := strings.Count(out.String(), "\n"); got != lines {
				t.Errorf("%s: %d lines, want %d:\n%s", text, got, lines, &out)
			}
		}
		report("refused", 60, 1)
		report("no such host", 3, 1)
		report("refused", 3, 0)
		time.Sleep(errorSilence)
		report("refused", 3, 1)
		for i := range 3 * maxErrors {
			log.Handle(fmt.Errorf("%s", strings.Repeat("x", i)))
		}
		if len(log.mu.last) > maxErrors {
			t.Errorf("%d problems are remembered", len(log.mu.last))
		}
	})
}
