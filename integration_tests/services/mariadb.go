package services

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	_ "github.com/go-sql-driver/mysql" // the driver named mysql
)

// mariadb returns the MariaDB of the distribution. The installed packages contain only the programs
// and start no server.
func mariadb() Kind {
	data := func(dir string) string { return filepath.Join(dir, "data") }
	setup := func(dir string) string { return filepath.Join(dir, "setup.sql") }
	return Kind{
		Name:     "mariadb",
		Variable: "FLAGR_TEST_MARIADB",
		driver:   "mysql",
		end:      syscall.SIGTERM,
		install: func(ctx context.Context) (string, error) {
			if err := apt(ctx, &aptLock, []string{"mariadb-server-core", "mariadb-client-core"},
				"mariadbd", "mariadb-install-db", "my_print_defaults"); err != nil {
				return "", err
			}
			return lookPath("mariadbd")
		},
		prepare: func(ctx context.Context, _, dir string, as account) error {
			const statements = "CREATE USER IF NOT EXISTS flagr@'%%' IDENTIFIED BY '%[1]s';\n" +
				"GRANT ALL PRIVILEGES ON *.* TO flagr@'%%' WITH GRANT OPTION;\n"
			if err := os.WriteFile(setup(dir), fmt.Appendf(nil, statements, password), 0o644); err != nil {
				return err
			}
			program, err := lookPath("mariadb-install-db")
			if err != nil {
				return err
			}
			return run(ctx, dir, as, program, "--no-defaults", "--datadir="+data(dir),
				"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", "--innodb-flush-method=nosync")
		},
		command: func(installed, dir string, port int) []string {
			return []string{
				installed, "--no-defaults", "--datadir=" + data(dir), "--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", port),
				"--socket=" + filepath.Join(dir, "socket"), "--pid-file=" + filepath.Join(dir, "pid"), "--init-file=" + setup(dir),
				"--max-connections=500", "--skip-name-resolve", "--innodb-buffer-pool-size=256M",
				"--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci",
				// Data survives a crash of the process, but need not survive a power failure.
				"--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=2",
				"--innodb-print-all-deadlocks=ON",
			}
		},
		dsn: func(port int) string { return fmt.Sprintf("flagr:%s@tcp(127.0.0.1:%d)/mysql", password, port) },
	}
}
