package store

import (
	"context"
	"database/sql/driver"
	"time"
)

// connectTimeout bounds the making of one connection, greeting included. database/sql makes some of them in the background,
// one after another and without any bound: a server that takes connections and says nothing would stop the whole pool, also
// after it has recovered.
const connectTimeout = 10 * time.Second

// boundedConnector is a driver.Connector that gives up.
type boundedConnector struct {
	driver.Connector
	timeout time.Duration
}

// Connect makes a connection, or fails when the time is up.
func (c boundedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.Connector.Connect(ctx)
}
