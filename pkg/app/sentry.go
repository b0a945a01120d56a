package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/getsentry/sentry-go"

	"github.com/flagr-datar/flagr-datar/pkg/config"
)

// sentryHandler sends log records of level error to Sentry, in addition to the handler that writes
// them. These include panics and internal errors of requests.
type sentryHandler struct {
	slog.Handler
	hub   *sentry.Hub
	attrs []slog.Attr // from With, outside of groups
}

// newSentry creates a client, and returns a logger that reports to it. Only flush waits for Sentry.
func newSentry(c config.Sentry, logger *slog.Logger) (_ *slog.Logger, flush func(context.Context) error, err error) {
	client, err := sentry.NewClient(sentry.ClientOptions{Dsn: c.DSN, Environment: c.Environment})
	if err != nil {
		return nil, nil, errors.New("FLAGR_SENTRY_DSN: want the address that Sentry shows for the project") // the library's error has the DSN with its key
	}
	flush = func(ctx context.Context) error {
		if !client.FlushWithContext(ctx) {
			return errors.New("not all were sent in time")
		}
		return nil
	}
	if client.Options().Dsn == "" {
		logger.Warn("FLAGR_SENTRY_ENABLED is true, but there is no FLAGR_SENTRY_DSN: nothing is reported")
	}
	hub := sentry.NewHub(client, sentry.NewScope())
	return slog.New(&sentryHandler{Handler: logger.Handler(), hub: hub}), flush, nil
}

// Handle writes the record, and reports it if it is an error.
func (h *sentryHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.report(r)
	}
	return h.Handler.Handle(ctx, r)
}

func (h *sentryHandler) report(r slog.Record) {
	event := sentry.NewEvent()
	event.Level = sentry.LevelError
	event.Logger = "flagr"
	event.Message = r.Message
	event.Timestamp = r.Time
	details := sentry.Context{}
	add := func(a slog.Attr) bool {
		value := a.Value.Resolve()
		switch a.Key {
		case "error", "panic":
			event.Exception = append(event.Exception, sentry.Exception{Type: r.Message, Value: value.String()})
		default:
			details[a.Key] = value.String()
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	event.Contexts = map[string]sentry.Context{"details": details}
	h.hub.CaptureEvent(event)
}

// WithAttrs also adds the attributes to reports.
func (h *sentryHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &sentryHandler{Handler: h.Handler.WithAttrs(attrs), hub: h.hub, attrs: append(slices.Clip(h.attrs), attrs...)}
}

// WithGroup groups the written attributes; reports stay flat.
func (h *sentryHandler) WithGroup(name string) slog.Handler {
	return &sentryHandler{Handler: h.Handler.WithGroup(name), hub: h.hub, attrs: h.attrs}
}
