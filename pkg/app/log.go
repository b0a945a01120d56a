package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/pkg/web"
)

// openLogs opens the access log, and the log unless New was given one.
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
		lines := web.NewLineBuffer(os.Stderr)
		access.Logger = newLogger(c.Log, lines)
		access.Lines, access.JSON = lines, c.Log.Format == config.FormatJSON
		a.onStop("access log", lines.Stop)
	}
	return access, nil
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.SlogLevel(), ReplaceAttr: cutValue}
	if c.Format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

const (
	// maxLogValue is the maximum length of a value in a log line, in bytes. Clients control the
	// length of paths, keys and headers.
	maxLogValue = 256
	// maxLogText is the same for messages and errors.
	maxLogText = 4 << 10
)

// cutValue truncates values of log lines and marks the cut. Stacks of panics stay whole, because
// clients do not control them.
func cutValue(_ []string, a slog.Attr) slog.Attr {
	longest := maxLogValue
	var text string
	switch value := a.Value.Any().(type) {
	case string:
		text = value
	case error:
		text = value.Error()
		longest = maxLogText
	default:
		return a
	}
	switch a.Key {
	case "stack":
		return a
	case slog.MessageKey, "error", "reason", "problem", "panic":
		longest = maxLogText
	}
	if len(text) <= longest {
		return a
	}
	return slog.String(a.Key, fmt.Sprintf("%s...(%d bytes)", strings.ToValidUTF8(text[:longest], ""), len(text)))
}
