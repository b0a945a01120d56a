package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// TestServersThatSayNothing connects to a server that accepts connections and never sends a
// greeting. The pool sets no deadline.
func TestServersThatSayNothing(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	forPostgres, err := pgx.ParseConfig("postgres://ann:pw@" + silent.Addr().String() + "/flagr?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	forMySQL := mysql.NewConfig()
	forMySQL.User, forMySQL.Net, forMySQL.Addr = "ann", "tcp", silent.Addr().String()
	forMySQL.Logger = driverLogger{slog.New(slog.DiscardHandler)}
	mysqlConnector, err := mysql.NewConnector(forMySQL)
	if err != nil {
		t.Fatal(err)
	}
	for name, connector := range map[string]driver.Connector{"postgres": stdlib.GetConnector(*forPostgres), "mysql": mysqlConnector} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			go func() {
				_, err := boundedConnector{connector, 50 * time.Millisecond}.Connect(context.Background())
				failed <- err
			}()
			select {
			case err := <-failed:
				if err == nil {
					t.Error("connected")
				}
			case <-time.After(time.Minute):
				t.Error("still waiting")
			}
		})
	}
}

func TestBrokenConnectionsMatchBadConn(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{mysql.ErrInvalidConn, fmt.Errorf("query: %w", pgconn.ErrConnClosed)} {
		err := explain("read flags", cause)
		if !errors.Is(err, driver.ErrBadConn) || !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "read flags: ") {
			t.Errorf("%v became %v", cause, err)
		}
	}
	if err := explain("read flags", errors.New("no such column")); errors.Is(err, driver.ErrBadConn) {
		t.Errorf("%v is about a connection", err)
	}
}
