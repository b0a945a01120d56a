package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// queryLogger adapts the logger to GORM. It only logs statements. Errors are returned, and the code
// that handles them logs them. Parameters are never logged, because they are users' data.
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

// ParamsFilter removes the parameters.
func (l queryLogger) ParamsFilter(_ context.Context, sql string, _ ...any) (string, []any) {
	return sql, nil
}

// redactedError has the message of its cause without secrets. It does not unwrap, so that the cause
// is never shown.
type redactedError struct {
	message string
	cause   error
}

func (e *redactedError) Error() string        { return e.message }
func (e *redactedError) Is(target error) bool { return errors.Is(e.cause, target) }

// secretsOf returns the parts of a connection string that must not be shown. If the password equals
// the name of the user, the database or the host, only its occurrence as a password is hidden:
// messages without those names would not help.
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

// explain adds the failed operation to an error. It returns errors that the client caused
// unchanged, because they are complete. An error of a driver about a connection that broke during a
// statement matches driver.ErrBadConn.
func explain(what string, err error) error {
	for _, own := range []error{nil, entity.ErrInvalid, entity.ErrNotFound, entity.ErrDuplicateKey} {
		if errors.Is(err, own) {
			return err
		}
	}
	if errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, mysql.ErrInvalidConn) {
		return fmt.Errorf("%s: %w: %w", what, driver.ErrBadConn, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
