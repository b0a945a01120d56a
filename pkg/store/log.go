package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// queryLogger is GORM's view of the logger. It only reports statements: errors are returned, and logged by who handles
// them. Parameters never appear, because they are other people's data.
type queryLogger struct {
	logger  *slog.Logger
	queries bool
}

var (
	_ logger.Interface  = queryLogger{}
	_ gorm.ParamsFilter = queryLogger{}
)

func (l queryLogger) LogMode(logger.LogLevel) logger.Interface { return l }
func (l queryLogger) Info(context.Context, string, ...any)     {}
func (l queryLogger) Warn(context.Context, string, ...any)     {}
func (l queryLogger) Error(context.Context, string, ...any)    {}

func (l queryLogger) Trace(ctx context.Context, begin time.Time, statement func() (string, int64), err error) {
	if !l.queries || !l.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	text, rows := statement()
	l.logger.DebugContext(ctx, "query", "sql", text, "rows", rows, "duration", time.Since(begin), "failed", err != nil)
}

// ParamsFilter leaves the parameters out.
func (l queryLogger) ParamsFilter(_ context.Context, sql string, _ ...any) (string, []any) {
	return sql, nil
}

// redactedError shows the message of its cause without secrets. It does not unwrap, so that nobody shows the cause.
type redactedError struct {
	message string
	cause   error
}

func (e *redactedError) Error() string        { return e.message }
func (e *redactedError) Is(target error) bool { return errors.Is(e.cause, target) }

// secretsOf gives what must not be shown of a connection string. A password that is also the name of the user, of the database
// or of the host is only hidden where it stands as a password: messages without those names help nobody.
func secretsOf(dsn, password string, names ...string) []string {
	if password == "" || !slices.Contains(names, password) {
		return []string{dsn, password}
	}
	return []string{dsn, ":" + password + "@", "password=" + password, "password='" + password}
}

func redact(err error, secrets []string) error {
	message := err.Error()
	for _, secret := range secrets {
		if secret != "" {
			message = strings.ReplaceAll(message, secret, "[redacted]")
		}
	}
	return &redactedError{message: message, cause: err}
}

// explain says what failed. What the sender of a request did wrong is said in full by the error already.
func explain(what string, err error) error {
	for _, own := range []error{nil, entity.ErrInvalid, entity.ErrNotFound, entity.ErrDuplicateKey} {
		if errors.Is(err, own) {
			return err
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
