package app

import (
	"io"
	"log/slog"
	"os"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// openLogs makes the log, unless New was given one, and that of accesses.
func (a *App) openLogs(c *config.Config) (web.AccessLog, error) {
	given := a.logger != nil
	if !given {
		a.logger = newLogger(c.Log, os.Stderr)
	}
	for _, n := range c.Unused() {
		a.logger.Warn("environment variable has no effect", "variable", n.Variable, "reason", n.Explanation)
	}
	if c.Sentry.Enabled {
		logger, flush, err := newSentry(c.Sentry, a.logger)
		if err != nil {
			return web.AccessLog{}, err
		}
		a.logger = logger
		a.onStop("Sentry", flushOnStop("Sentry", flushTimeout, logger, flush))
	}
	access := web.AccessLog{Logger: a.logger, Exclude: c.Log.RequestsExcludeURLs}
	if !given {
		lines := newLineBuffer(os.Stderr)
		access.Logger = newLogger(c.Log, lines)
		access.Lines, access.JSON = lines, c.Log.Format == config.FormatJSON
		a.onStop("access log", lines.stop)
	}
	return access, nil
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.SlogLevel()}
	if c.Format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
