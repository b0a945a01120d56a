// Package mysqldialect tests the stores on go-mysql-server, which parses the SQL of MySQL 8, also
// where MariaDB differs. It does not test locks, isolation and speed of MySQL.
//
// It is a separate module, so that the server does not depend on go-mysql-server.
package mysqldialect
