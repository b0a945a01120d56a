package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
)

func openPostgres(dsn string, _ *slog.Logger) (target, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The driver's own message repeats parts of the connection string.
		return target{}, errors.New("the connection string is not valid: it must look like " +
			"postgres://user:password@host:5432/database?sslmode=require or host=db user=me password=secret dbname=flagr")
	}
	db := sql.OpenDB(boundedConnector{stdlib.GetConnector(*config, stdlib.OptionAfterConnect(readTimesAsUTC)), connectTimeout})
	limitServer(db)
	return target{
		dialector: postgres.New(postgres.Config{Conn: db}),
		pool:      db,
		secrets:   secretsOf(dsn, config.Password, config.User, config.Database, config.Host),
		name:      net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))) + "/" + config.Database,
	}, nil
}

// Temporary errors of PostgreSQL: it starts or stops, or has no connection left.
const (
	pgCannotConnectNow    = "57P03"
	pgAdminShutdown       = "57P01"
	pgCrashShutdown       = "57P02"
	pgTooManyConnections  = "53300"
	pgTooManyForThisOwner = "53400"
)

func refusedByPostgres(err error) bool {
	var cause *pgconn.PgError
	return errors.As(err, &cause) && !slices.Contains(
		[]string{pgCannotConnectNow, pgAdminShutdown, pgCrashShutdown, pgTooManyConnections, pgTooManyForThisOwner}, cause.Code)
}

// readTimesAsUTC makes times independent of the host's time zone. By default, the driver returns
// them in local time.
func readTimesAsUTC(_ context.Context, connection *pgx.Conn) error {
	connection.TypeMap().RegisterType(&pgtype.Type{
		Name:  "timestamptz",
		OID:   pgtype.TimestamptzOID,
		Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}
