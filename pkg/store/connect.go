package store

import (
	"context"
	"database/sql/driver"
	"time"
)

// connectTimeout bounds the time to open one connection, including the server's greeting.
// database/sql opens some connections in the background, one after another and without a timeout.
// Without this bound, a server that accepts connections but sends nothing would block the whole
// pool, even after it has recovered.
const connectTimeout = 10 * time.Second

// boundedConnector is a driver.Connector with a timeout.
type boundedConnector struct {
	driver.Connector
	timeout time.Duration
}

// Connect opens a connection. It fails after connectTimeout.
func (c boundedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.Connector.Connect(ctx)
}
