package store

import (
	"database/sql"
	"errors"
	"time"

	"github.com/go-sql-driver/mysql"
	gormmysql "gorm.io/driver/mysql"
)

func openMySQL(dsn string) (target, error) {
	invalid := errors.New("the connection string is not valid: it must look like user:password@tcp(host:3306)/database")
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return target{}, invalid // the driver's own message may repeat parts of the connection string
	}
	// Columns of type datetime have no zone: all of them hold UTC, whatever the connection string says.
	config.ParseTime, config.Loc = true, time.UTC
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return target{}, invalid
	}
	db := sql.OpenDB(connector)
	limitServer(db)
	return target{
		dialector: gormmysql.New(gormmysql.Config{Conn: db, DSNConfig: config}),
		pool:      db,
		secrets:   []string{dsn, config.Passwd},
	}, nil
}
