// Package mysqldialect runs the stores on go-mysql-server, which understands the SQL of MySQL 8 where MariaDB differs. It
// is no MySQL: locks, isolation and speed are not what this shows.
//
// It is a module of its own, so that the server does not depend on another database.
package mysqldialect
