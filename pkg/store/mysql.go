package store

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"
	gormmysql "gorm.io/driver/mysql"
)

func openMySQL(dsn string, logger *slog.Logger) (target, error) {
	invalid := errors.New("the connection string is not valid: it must look like user:password@tcp(host:3306)/database")
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return target{}, invalid // the driver's own message may repeat parts of the connection string
	}
	if err := checkZone(config.Loc); err != nil {
		return target{}, err
	}
	// Columns of type datetime have no time zone. All of them hold UTC.
	config.ParseTime, config.Loc = true, time.UTC
	if _, ok := config.Params["sql_mode"]; !ok {
		// A server that is not strict truncates long texts, and would store half a snapshot.
		if config.Params == nil {
			config.Params = map[string]string{}
		}
		config.Params["sql_mode"] = "CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')"
	}
	config.Logger = driverLogger{logger}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return target{}, invalid
	}
	db := sql.OpenDB(boundedConnector{connector, connectTimeout})
	limitServer(db)
	return target{
		dialector: gormmysql.New(gormmysql.Config{Conn: db, DSNConfig: config}),
		pool:      db,
		secrets:   secretsOf(dsn, config.Passwd, config.User, config.DBName),
		name:      config.Addr + "/" + config.DBName,
	}, nil
}

// checkZone rejects a time zone to which the driver would convert times before it stores them.
// Times that are already stored would be wrong by its offset when they are read.
func checkZone(zone *time.Location) error {
	for _, month := range []time.Month{time.January, time.July} {
		if _, offset := time.Date(2026, month, 1, 0, 0, 0, 0, zone).Zone(); offset != 0 {
			return fmt.Errorf("loc=%s in the connection string: times are stored in UTC only; convert those that are in this zone once, "+
				"as under \"MySQL with times of another zone\" in docs/operations.md, and remove loc", zone)
		}
	}
	return nil
}

// Temporary errors of MySQL and MariaDB: too many connections, of all users or of this one, and a
// server that stops.
const (
	mysqlTooManyConnections  = 1040
	mysqlServerShutdown      = 1053
	mysqlTooManyOfThisUser   = 1203
	mysqlUserResourceReached = 1226
)

func refusedByMySQL(err error) bool {
	var cause *mysql.MySQLError
	return errors.As(err, &cause) && !slices.Contains(
		[]uint16{mysqlTooManyConnections, mysqlServerShutdown, mysqlTooManyOfThisUser, mysqlUserResourceReached}, cause.Number)
}

// driverLogger logs the driver's messages about closed connections, which would otherwise go to
// standard error in another format. The query on such a connection also returns an error.
type driverLogger struct{ logger *slog.Logger }

// Print logs one message.
func (l driverLogger) Print(v ...any) {
	l.logger.Debug("database connection given up", "driver", "mysql", "reason", fmt.Sprint(v...))
}

// Errors of MySQL and MariaDB that name a column: for a text that is too long for it, and for one
// with characters that it cannot hold, such as emoji in utf8mb3.
const (
	dataTooLong     = 1406
	incorrectString = 1366
	// The other errors occur when such texts are compared with such a column: one text, two, or
	// more.
	mixedCollations1 = 1267
	mixedCollations2 = 1270
	mixedCollations3 = 1271
)

func incomparableForMySQL(err error) bool {
	var cause *mysql.MySQLError
	return errors.As(err, &cause) && slices.Contains([]uint16{mixedCollations1, mixedCollations2, mixedCollations3}, cause.Number)
}

// columnInMessage matches 'column' and `database`.`table`.`column`.
var columnInMessage = regexp.MustCompile("[`']([^`']+)[`'] at row")

func columnOf(err error, number uint16) (column string, ok bool) {
	var cause *mysql.MySQLError
	if !errors.As(err, &cause) || cause.Number != number {
		return "", false
	}
	match := columnInMessage.FindStringSubmatch(cause.Message)
	if match == nil {
		return "", false
	}
	return match[1], true
}
